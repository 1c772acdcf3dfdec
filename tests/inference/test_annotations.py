"""Every format read back by a reader of its own: pandas, pyarrow, crowsetta for Raven and Audacity."""

from __future__ import annotations

import crowsetta
import pandas as pd
import pyarrow.parquet
import pytest

from watkins_ml.inference.annotations import write_annotations
from watkins_ml.inference.detections import COLUMNS

NAMES = {"deep/a b.wav": "a b-1", "quiet.wav": "quiet-2"}


@pytest.fixture
def found() -> pd.DataFrame:
    rows = [
        ("deep/a b.wav", 0, 0.0, 7.98, "Risso'sDolphin", 0.91),
        ("deep/a b.wav", 2, 86_395.5, 86_399.49, 'Short "Finned" (Pacific), Pilot', 0.5),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def test_csv_and_parquet_hold_the_table(found, tmp_path):
    [csv] = write_annotations(tmp_path, "csv", found, NAMES, 8_000)
    pd.testing.assert_frame_equal(pd.read_csv(csv), found, rtol=1e-5)
    [parquet] = write_annotations(tmp_path, "parquet", found, NAMES, 8_000)
    pd.testing.assert_frame_equal(pyarrow.parquet.read_table(parquet).to_pandas(), found)


def test_raven_tables_are_read_by_crowsetta_and_by_their_columns(found, tmp_path):
    table, quiet = write_annotations(tmp_path, "raven", found, NAMES, 8_000)
    assert table == tmp_path / "raven" / "a b-1.selections.txt"
    boxes = crowsetta.formats.bbox.Raven.from_file(table, annot_col="Species").to_bbox()
    assert [box.label for box in boxes] == found["species"].tolist()
    assert [box.onset for box in boxes] == pytest.approx(found["start_s"].tolist())
    assert [box.offset for box in boxes] == pytest.approx(found["end_s"].tolist())
    assert {(box.low_freq, box.high_freq) for box in boxes} == {(0.0, 8_000.0)}
    columns = pd.read_csv(table, sep="\t")
    assert columns["Channel"].tolist() == [1, 2] and columns["Selection"].tolist() == [1, 2]
    assert columns["Begin Path"].tolist() == found["path"].tolist()
    assert pd.read_csv(quiet, sep="\t").empty, "a recording without detections has a table without selections"


def test_audacity_labels_are_read_by_crowsetta(found, tmp_path):
    labels, quiet = write_annotations(tmp_path, "audacity", found, NAMES, 8_000)
    sequence = crowsetta.formats.seq.AudSeq.from_file(labels).to_seq()
    assert sequence.onsets_s.tolist() == pytest.approx(found["start_s"].tolist())
    assert sequence.offsets_s.tolist() == pytest.approx(found["end_s"].tolist())
    assert sequence.labels.tolist() == ["Risso'sDolphin 0.91", 'Short "Finned" (Pacific), Pilot 0.50 channel 2']
    assert quiet.read_text() == ""
