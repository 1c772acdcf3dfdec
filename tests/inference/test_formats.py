"""Every format read back by a reader of its own: pandas, pyarrow, crowsetta for Raven and Audacity."""

from __future__ import annotations

import io
from pathlib import Path

import crowsetta
import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.core.files import guarded
from watkins_ml.core.text import shown
from watkins_ml.inference.detections import COLUMNS, RecordingDetections, Unknown, all_rows
from watkins_ml.inference.formats import Output, write_outputs

DEEP, QUIET = Path("/disk/deep/a b.wav"), Path("/disk/quiet.wav")


@pytest.fixture
def rows() -> pd.DataFrame:
    rows = [
        ("deep/a b.wav", 0, 0.0, 7.98, "Risso'sDolphin", 0.91, 0.4, 1.5),
        ("deep/a b.wav", 2, 86_395.5, 86_399.49, 'Short "Finned" (Pacific), Pilot', 0.5, 0.999, 1.5),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def output(name: str, location: Path, rows: pd.DataFrame, rate: int | None = None) -> Output:
    unknown = Unknown("silent", 0.0) if rows.empty else None
    return Output(name, location, RecordingDetections(location, rows, rate, unknown))


def write(folder: Path, format: str, *outputs: Output) -> list[Path]:
    return write_outputs(folder, (format,), list(outputs), unchanged=(), band=(0, 8_000))


@pytest.fixture
def deep(rows) -> Output:
    return output("a b-1", DEEP, rows)


@pytest.fixture
def quiet() -> Output:
    return output("quiet-2", QUIET, all_rows([]))


def test_csv_and_parquet_hold_the_table(rows, quiet, deep, tmp_path):
    early, late = output("a b-1", DEEP, rows[:1]), output("z-1", Path("/disk/z.wav"), rows[1:])
    [csv] = write(tmp_path, "csv", late, quiet, early)
    assert csv == tmp_path / "detections.csv"
    pd.testing.assert_frame_equal(pd.read_csv(csv), rows, rtol=1e-5)
    [_, parquet] = write(tmp_path, "parquet", deep)  # a table of an earlier command is written with it
    pd.testing.assert_frame_equal(pyarrow.parquet.read_table(parquet).to_pandas(), rows)
    assert write(tmp_path, "csv", quiet) == [csv, parquet] and pd.read_csv(csv).empty


def test_raven_tables_are_read_by_crowsetta_and_by_their_columns(deep, quiet, rows, tmp_path):
    table, empty = write(tmp_path, "raven", deep, quiet)
    assert table == tmp_path / "raven" / "a b-1.selections.txt"
    boxes = crowsetta.formats.bbox.Raven.from_file(table, annot_col="Species").to_bbox()
    assert [box.label for box in boxes] == rows["species"].tolist()
    assert [box.onset for box in boxes] == pytest.approx(rows["start_s"].tolist())
    assert [box.offset for box in boxes] == pytest.approx(rows["end_s"].tolist())
    assert {(box.low_freq, box.high_freq) for box in boxes} == {(0.0, 8_000.0)}
    columns = pd.read_csv(table, sep="\t")
    assert list(columns.columns[:7]) == [
        "Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)",
    ]  # fmt: skip
    assert columns["Channel"].tolist() == [1, 2] and columns["Selection"].tolist() == [1, 2]
    assert set(columns["Begin Path"]) == {str(DEEP)} and set(columns["Begin File"]) == {"a b.wav"}
    assert columns["File Offset (s)"].tolist() == pytest.approx(rows["start_s"].tolist())
    assert columns["Novelty"].tolist() == pytest.approx(rows["novelty"].tolist())
    assert pd.read_csv(empty, sep="\t").empty, "a recording without detections has a table without selections"


def test_no_selection_reaches_above_what_the_recording_holds(rows, tmp_path):
    [table] = write(tmp_path, "raven", output("a b-1", DEEP, rows, rate=8_000))
    assert set(pd.read_csv(table, sep="\t")["High Freq (Hz)"]) == {4_000}
    [table] = write(tmp_path, "raven", output("a b-1", DEEP, rows, rate=96_000))
    assert set(pd.read_csv(table, sep="\t")["High Freq (Hz)"]) == {8_000}


@settings(deadline=None, max_examples=50)
@given(
    name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20).filter(
        lambda name: name != "."
    ),
    species=st.text(max_size=20),
)
def test_no_name_breaks_a_line_or_a_column(tmp_path_factory, name, species):
    folder = tmp_path_factory.mktemp("names")
    rows = pd.DataFrame([(name, 0, 1.0, 2.0, species, 0.5, 0.1, 1.5)] * 2, columns=COLUMNS)
    odd = output("x", Path("/disk") / name, rows)
    columns = pd.read_csv(*write(folder / "r", "raven", odd), sep="\t", keep_default_na=False, dtype=str)
    assert len(columns) == 2
    assert columns["Begin Path"].tolist() == [f"/disk/{shown(name)}"] * 2
    assert columns["Species"].tolist() == [shown(species)] * 2
    labels = write(folder / "a", "audacity", odd)[0].read_text(encoding="utf-8").split("\n")
    assert [line.count("\t") for line in labels] == [2, 2, 0]
    csv = write(folder / "c", "csv", odd)[0].read_text(encoding="utf-8")
    assert len(csv.splitlines()) == 3
    cell = pd.read_csv(io.StringIO(csv), keep_default_na=False, dtype=str)["path"][0]
    assert cell == guarded(shown(name)) and not cell.startswith(("=", "@"))


def test_audacity_labels_are_read_by_crowsetta(deep, quiet, rows, tmp_path):
    labels, empty = write(tmp_path, "audacity", deep, quiet)
    sequence = crowsetta.formats.seq.AudSeq.from_file(labels).to_seq()
    assert sequence.onsets_s.tolist() == pytest.approx(rows["start_s"].tolist())
    assert sequence.offsets_s.tolist() == pytest.approx(rows["end_s"].tolist())
    assert sequence.labels.tolist() == [
        "Risso'sDolphin 0.91 novelty 0.40", 'Short "Finned" (Pacific), Pilot 0.50 channel 2 novelty 1.00',
    ]  # fmt: skip
    assert empty.read_text() == ""
