"""Tables of annotations in the forms that programs and people write them: the same rows, or one clear line."""

from __future__ import annotations

import codecs
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from watkins_ml.annotations import read
from watkins_ml.annotations.read import read_selections
from watkins_ml.core.errors import UsageError

RAVEN = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\tNotes\n"
    "1\tWaveform 1\t1\t0.5\t1.25\t50\t400\tOrca\t\n"
    "1\tSpectrogram 1\t1\t0.5\t1.25\t50\t400\tOrca\tfaint\n"
    "2\tSpectrogram 1\t1\t2\t3.5\t60\t300\tWalrus é\t\n"
)


def times(path: Path, **options) -> list[tuple[float, float, str]]:
    rows = read_selections(path, **options).rows
    return list(rows[["start_s", "end_s", "label"]].itertuples(index=False, name=None))


@pytest.fixture
def file(tmp_path):
    def file(text: str | bytes, name: str = "REC.txt") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


EXPECTED = [(0.5, 1.25, "Orca"), (2.0, 3.5, "Walrus é")]


@pytest.mark.parametrize(
    "content",
    [
        RAVEN.encode(),
        codecs.BOM_UTF8 + RAVEN.encode(),
        RAVEN.encode("utf-16"),
        RAVEN.encode("utf-16-le"),
        RAVEN.encode("latin-1"),
        RAVEN.replace("\n", "\r\n").encode(),
        RAVEN.replace(".", ",").encode(),
        RAVEN.replace("\t", ";").replace(".", ",").encode(),
        RAVEN.replace("\t", ",").encode(),
    ],
    ids=["utf-8", "mark", "utf-16", "utf-16-le", "latin-1", "dos", "decimal commas", "semicolons", "commas"],
)
def test_a_raven_table_in_any_encoding_and_with_any_separator_has_the_same_selections(file, content):
    table = read_selections(file(content))
    assert (table.kind, times(table.path)) == ("raven", EXPECTED)
    assert table.rows[["low_hz", "high_hz", "channel"]].to_numpy().tolist() == [[50, 400, 1], [60, 300, 1]]


def test_both_views_of_a_selection_are_one_with_the_label_of_whichever_has_it(file):
    rows = RAVEN.replace("1.25\t50\t400\tOrca\t\n", "1.25\t50\t400\t\t\n")
    assert times(file(rows)) == EXPECTED


def test_selections_of_one_number_at_other_times_stay(file):
    assert len(times(file(RAVEN + "2\tSpectrogram 1\t1\t4\t5\t60\t300\tOrca\t\n"))) == 3


@pytest.mark.parametrize("heading", ["species", "Annotation", "Call Type", "Scientific name", "Label"])
def test_the_label_column_is_found_among_the_usual_names(file, heading):
    assert times(file(RAVEN.replace("Species", heading))) == EXPECTED


def test_the_label_column_can_be_named(file):
    path = file(RAVEN.replace("Species", "Prediction/Comments"))
    assert not read_selections(path).has_labels
    assert times(path, label_column="prediction/comments") == EXPECTED
    with pytest.raises(UsageError, match=r"has no column 'Verdict' \(--label-column\); its columns are selection"):
        read_selections(path, "Verdict")


def test_labels_of_audacity_with_frequency_lines(file):
    table = read_selections(file("0.5\t1.25\tOrca\n\\\t50.0\t400,5\n2,0\t3,5\tWalrus é\n4\t4\t\n"))
    assert (table.kind, times(table.path)) == ("audacity", [*EXPECTED, (4.0, 4.0, "")])
    assert table.rows["low_hz"].fillna(-1).tolist() == [50.0, -1, -1]
    assert table.rows["high_hz"].fillna(-1).tolist() == [400.5, -1, -1]


def test_a_line_that_is_no_label_among_labels_of_audacity_is_named(file):
    with pytest.raises(UsageError, match=r"REC\.txt: line 2 is no label of Audacity"):
        read_selections(file("0.5\t1.25\tOrca\nhello\n"))


def test_a_csv_table_with_all_columns(file):
    path = file(
        "file,start_s,end_s,species,low_hz,high_hz,channel,confidence,annotator\n"
        'a.wav,0.5,1.25,"Orca",50,400,2,.9,Ann\nb.wav,2,3.5,Walrus é,,,,,\n',
        "all.csv",
    )
    rows = read_selections(path).rows
    assert times(path) == EXPECTED
    assert rows.loc[0, ["file", "channel", "confidence", "annotator"]].tolist() == ["a.wav", 2, 0.9, "Ann"]
    assert rows.loc[1, ["low_hz", "high_hz", "channel", "confidence"]].isna().all()


def test_a_table_with_headings_alone_has_no_rows(file):
    table = read_selections(file(RAVEN.splitlines()[0] + "\n"))
    assert len(table.rows) == 0
    assert table.kind == "raven"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "REC.txt: empty; a table has a line of headings"),
        ("a.wav,0.5,1.25,Orca\nb.wav,2,3.5,Walrus\n", "has no line of headings; name its columns in a first line"),
        ("site,depth\nA,4\n", r"is no table of annotations: no column start_s and end_s \(or begin_time_s\)"),
        ("file,start_s,species\na.wav,1,Orca\n", "no column end_s"),
        (b"PK\x03\x04workbook", "workbook of a spreadsheet"),
        ("file,start_s,end_s\na.wav,1,2,3\n", "line 2 has 4 cells where the heading has 3"),
    ],
)
def test_what_is_no_table_of_annotations_is_refused_in_one_line(file, text, told):
    with pytest.raises(UsageError, match=told) as error:
        read_selections(file(text))
    assert "\n" not in str(error.value)


def test_labels_without_end_are_refused(file, monkeypatch):
    monkeypatch.setattr(read, "MOST_ROWS", 10)
    with pytest.raises(UsageError, match="more than 10 labels"):
        read_selections(file("1\t2\tOrca\n" * 11))


def test_what_is_no_number_is_none(file):
    rows = read_selections(file("start_s,end_s,species\nsoon,1,Orca\nnan,inf,Orca\n1e400,2,Orca\n")).rows
    assert rows["start_s"].isna().all()
    assert rows["end_s"].isna().tolist() == [False, True, False]


def test_crowsetta_reads_the_same_selections(file):
    crowsetta = pytest.importorskip("crowsetta")
    path = file(
        "\n".join(line for line in RAVEN.split("\n") if "Waveform" not in line)
        .replace("00\t", "00.0\t")
        .replace("\t50\t", "\t50.0\t")
    )
    theirs = crowsetta.formats.by_name("raven").from_file(path, annot_col="Species").df
    ours = read_selections(path).rows
    pd.testing.assert_frame_equal(
        ours[["start_s", "end_s", "low_hz", "high_hz"]].set_axis([*"abcd"], axis=1),
        theirs[["begin_time_s", "end_time_s", "low_freq_hz", "high_freq_hz"]].astype(float).set_axis([*"abcd"], axis=1),
    )
    assert np.array_equal(ours["label"], theirs["annotation"])
