"""From tables to calls: which recording a row is about, what its label means, and what is rejected why."""

from __future__ import annotations

import pandas as pd
import pytest

from watkins_ml.core.errors import UsageError
from watkins_ml.inference.detections import COLUMNS, RecordingDetections
from watkins_ml.inference.formats import Output, write_outputs

RATE = 1_000
HEAD = "file,start_s,end_s,species\n"
RAVEN = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tSpecies\n"


def calls(found) -> list[tuple]:
    return list(found.calls[["recording", "start_s", "end_s", "species"]].itertuples(index=False, name=None))


def reasons(found) -> list[tuple[str, str]]:
    return list(found.rejected[["path", "reason"]].itertuples(index=False, name=None))


def spans(table) -> list[tuple]:
    return list(table[["recording", "start_s", "end_s"]].itertuples(index=False, name=None))


# ---------------------------------------------------------------- matching


@pytest.mark.parametrize(
    "name",
    [
        "a_1.Table.1.selections.txt",
        "a_1.selections.txt",
        "a_1.txt",
        "A_1.csv",
        "a_1.wav.txt",
        "a_1_annot_2022-11-24_17_allnoise.txt",
        "a_1 labels.txt",
        "a_1.BirdNET.results.csv",
    ],
)
def test_a_table_belongs_to_the_recording_of_its_name(gather, name):
    found = gather(["a.wav", "a_1.wav", "a_10.wav"], {name: "start_s,end_s,species\n1,2,Orca\n"})
    assert calls(found) == [("a_1.wav", 1.0, 2.0, "Orca")]
    assert found.described == {"a_1.wav"}


def test_a_table_belongs_to_no_recording_whose_name_only_begins_its_own(gather):
    with pytest.raises(UsageError, match=r"no table is about a recording; theirs are like a_2\.txt, the recordings"):
        gather(["a.wav"], {"a_2.txt": "1\t2\tOrca\n"})


def test_rows_of_raven_begin_at_their_offset_in_their_file(gather):
    rows = RAVEN + "1\tS\t1\t11\t12.5\tb.wav\t1\tOrca\n2\tS\t1\t3\t4\ta.wav\t3\tOrca\n"
    assert calls(gather(["a.wav", "b.wav"], {"all.txt": rows})) == [("a.wav", 3, 4, "Orca"), ("b.wav", 1, 2.5, "Orca")]


def test_times_that_count_from_the_first_of_several_files_are_refused(gather):
    rows = RAVEN.replace("\tFile Offset (s)", "") + "1\tS\t1\t11\t12\tb.wav\tOrca\n2\tS\t1\t3\t4\ta.wav\tOrca\n"
    with pytest.raises(UsageError, match=r"the first of several files \(a.wav, b.wav\); add the measurement"):
        gather(["a.wav", "b.wav"], {"all.txt": rows})


def test_begin_path_of_another_computer_is_followed_as_far_as_the_folders_agree(gather):
    head = RAVEN.replace("Begin File\tFile Offset (s)", "Begin Path")
    rows = head + "1\tS\t1\t1\t2\tD:\\sea\\site1\\a.wav\tOrca\n"
    assert calls(gather(["site1/a.wav", "site2/a.wav"], {"t.txt": rows})) == [("site1/a.wav", 1, 2, "Orca")]


def test_an_index_says_which_recording_and_which_label(gather, tmp_path):
    index = tmp_path / "index.csv"
    index.write_text("table,recording,label\nsub/x.txt,b.wav,noise\ny.txt,a,Orca\n")
    tables = {"sub/x.txt": "1\t2\t\n", "y.txt": "3\t4\t0.93\n5\t6\tWalrus\n"}
    found = gather(["a.wav", "b.wav"], tables, table_index=index)
    assert calls(found) == [("a.wav", 3, 4, "Orca"), ("a.wav", 5, 6, "Walrus"), ("b.wav", 1, 2, "noise")]
    index.write_text("table,recording\ny.txt,c\n")
    with pytest.raises(UsageError, match=r"--table-index: 'c' \(of .*y.txt\) is no recording there"):
        gather([], {}, table_index=index)


def test_two_recordings_of_one_name_are_told_apart_by_folder_or_refused(gather):
    found = gather(["s1/a.wav", "s2/a.flac"], {"s2/a.txt": "1\t2\tOrca\n"})
    assert calls(found) == [("s2/a.flac", 1, 2, "Orca")]
    with pytest.raises(UsageError, match=r"all.csv: 'a.wav' may mean s1/a.wav or s2/a.flac; name the recording with"):
        gather([], {"all.csv": HEAD + "a.wav,1,2,Orca\n"})


def test_a_row_of_an_unknown_recording_is_rejected(gather):
    found = gather(["a.wav"], {"all.csv": HEAD + "a.wav,1,2,Orca\nz.wav,1,2,Orca\n"})
    assert reasons(found) == [("all.csv row 2", "unknown recording: z.wav")]


def test_a_table_without_rows_still_is_about_its_recording(gather):
    found = gather(["a.wav", "b.wav"], {"a.txt": RAVEN, "b.txt": "1\t2\tOrca\n"}, reviewed="all")
    assert spans(found.reviewed) == [("a.wav", 0, 10), ("b.wav", 0, 10)]
    assert len(found.calls) == 1


@pytest.mark.parametrize("format", ["csv", "raven", "audacity"])
def test_what_predict_wrote_and_somebody_corrected_can_be_trained_on(gather, tmp_path, format):
    gather(["sea/a.wav"], {"a.txt": "1\t2\tx\n"}, channels=2)
    place = tmp_path / "audio" / "sea" / "a.wav"
    found = [("sea/a.wav", 0, 1.0, 2.5, "Fin Whale", 0.91, 0.4, 1.5), ("sea/a.wav", 2, 3.0, 4.5, "Orca", 0.5, 0.9, 1.5)]
    detections = RecordingDetections(place, pd.DataFrame(found, columns=COLUMNS), RATE, None)
    outputs = [Output("a-0123abcd", place, detections)]
    (tmp_path / "tables" / "a.txt").unlink()
    write_outputs(tmp_path / "tables", (format,), outputs, unchanged=(), band=(0, 500))
    again = gather([], {}).calls
    assert again[["recording", "start_s", "end_s", "species", "confidence"]].to_numpy().tolist() == [
        ["sea/a.wav", 1.0, 2.5, "Fin Whale", 0.91],
        ["sea/a.wav", 3.0, 4.5, "Orca", 0.5],
    ]
    assert again["channel"].iloc[1] == 2


# ---------------------------------------------------------------- labels


def test_a_mapping_renames_drops_and_doubts(gather, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text("label,species\norca,Orca\nship,\nu,?\nn,background\n")
    rows = "a.wav,0,1,ORCA\na.wav,1,2,Orca\na.wav,2,3,ship\na.wav,3,4,u\na.wav,4,5,n\na.wav,5,6,seal\na.wav,6,7,\n"
    found = gather(["a.wav"], {"all.csv": HEAD + rows}, labels=labels)
    assert calls(found) == [("a.wav", 0, 1, "Orca"), ("a.wav", 1, 2, "Orca")]
    assert spans(found.reviewed) == [("a.wav", 4, 5)]
    assert spans(found.uncertain) == [("a.wav", 3, 4), ("a.wav", 5, 6), ("a.wav", 6, 7)]  # heard, if without a name
    assert reasons(found) == [
        ("all.csv row 3", "dropped by the mapping"),
        ("all.csv row 6", "label not in the mapping"),
        ("all.csv row 7", "no label"),
    ]
    labels.write_text("label,species\na,Orca\na,Walrus\n")
    with pytest.raises(UsageError, match="'a' has two species, 'Orca' and 'Walrus'"):
        gather([], {}, labels=labels)


def test_tables_without_labels_need_one(gather):
    table = {"a.csv": "start_s,end_s\n1,2\n"}
    with pytest.raises(UsageError, match=r"a.csv: no column of labels is found; name it \(--label-column\)"):
        gather(["a.wav"], table)
    assert calls(gather([], {}, label="Orca")) == [("a.wav", 1, 2, "Orca")]


# ---------------------------------------------------------------- rows that cannot be


def test_rows_that_cannot_be_are_rejected_with_the_reason(gather):
    rows = [
        ("a.wav,2,1,Orca", "negative length: it ends before it begins"),
        ("a.wav,2,2,Orca", "no length: it is a point in time"),
        ("a.wav,x,2,Orca", "no times: its start or end is not a number"),
        ("a.wav,-3,2,Orca", "begins before the recording"),
        ("a.wav,10,11,Orca", "beyond the end: the recording lasts 10.00 s"),
        ("a.wav,9.5,12,Orca", "beyond the end: most of it lies behind the recording's 10.00 s"),
        ("a.wav,9,10.5,Orca", ""),
        ("a.wav,3,4,Orca", ""),
        ("a.wav,3.001,4,Orca", "duplicate of all.csv row 8"),
        ("a.wav,5,6,Orca", "contradictory: one box is labelled Orca and Walrus"),
        ("a.wav,5,6,Walrus", "contradictory: one box is labelled Orca and Walrus"),
        ("a.wav,5.5,6.5,Walrus", ""),
    ]
    found = gather(["a.wav"], {"all.csv": HEAD + "\n".join(row for row, _ in rows)})
    expected = [(f"all.csv row {number}", reason) for number, (_, reason) in enumerate(rows, start=1) if reason]
    assert reasons(found) == expected
    assert calls(found) == [("a.wav", 3, 4, "Orca"), ("a.wav", 5.5, 6.5, "Walrus"), ("a.wav", 9, 10, "Orca")]
    assert spans(found.uncertain) == [("a.wav", 5, 6), ("a.wav", 5, 6)]


def test_a_channel_that_the_recording_lacks_is_rejected(gather):
    rows = "file,start_s,end_s,species,channel\na.wav,1,2,Orca,2\na.wav,1,2,Orca,3\na.wav,1,2,Orca,\n"
    found = gather(["a.wav"], {"all.csv": rows}, channels=2)
    assert reasons(found) == [("all.csv row 2", "unknown channel: the recording has 2")]
    assert sorted(found.calls["channel"]) == [0, 2]


# ---------------------------------------------------------------- what was listened to


def test_reviewed_spans_come_from_a_word_or_a_table(gather, tmp_path):
    rows = {"all.csv": HEAD + "a.wav,1,2,Orca\na.wav,4,5,background\n"}
    assert spans(gather(["a.wav", "b.wav"], rows).reviewed) == [("a.wav", 4, 5)]
    assert spans(gather([], {}, reviewed="none").reviewed) == []
    assert spans(gather([], {}, reviewed="all").reviewed) == [("a.wav", 0, 10), ("a.wav", 4, 5)]
    table = tmp_path / "tables" / "listened.csv"  # among the tables, and none of them
    table.write_text("file,start_s,end_s\nb,,\na.wav,2,30\na.wav,20,30\nc.wav,1,2\n")
    found = gather([], {}, reviewed=str(table))
    assert spans(found.reviewed) == [("b.wav", 0, 10), ("a.wav", 2, 10), ("a.wav", 4, 5)]
    assert reasons(found) == [
        ("listened.csv row 3", "a span of no length, or beyond the end"),
        ("listened.csv row 4", "unknown recording: c.wav"),
    ]
    with pytest.raises(UsageError, match="--reviewed some: neither all, spans or none, nor a table"):
        gather([], {}, reviewed="some")


def test_the_digest_is_of_the_tables_and_how_they_are_read(gather):
    first = gather(["a.wav"], {"a.txt": "1\t2\tOrca\n"}).digest
    assert gather([], {}).digest == first
    assert gather([], {}, label="Orca").digest != first
    assert gather([], {}, reviewed="all").digest != first
    assert gather([], {"a.txt": "1\t2.1\tOrca\n"}).digest != first
