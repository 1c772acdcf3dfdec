"""Tables as spreadsheets and programs write them: the same rows come out of all of them, or a sentence."""

from __future__ import annotations

import csv
import io
import os

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.core import csv_import
from watkins_ml.core.csv_import import import_csv
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import unguarded
from watkins_ml.core.names import normal

KNOWN = ("file", "site", "latitude", "cut_id")
ROWS = [["0001.wav", 'Malmö, "Kai"\nNord', "55.6"], ["0002.wav", "Århus; Øst", "56"], ["=1.wav", "", ""]]


def written(separator=",", heading=("file", "site", "latitude"), rows=ROWS, end="\r\n") -> str:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator, lineterminator=end).writerows([heading, *rows])
    return text.getvalue()


def read(tmp_path, content: bytes | str) -> pd.DataFrame:
    (tmp_path / "t.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    return import_csv(tmp_path / "t.csv", KNOWN).rows


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_separator_and_encoding_gives_the_same_rows(tmp_path, encoding, separator, end):
    table = read(tmp_path, written(separator, end=end).encode(encoding))
    assert list(table) == ["file", "site", "latitude"]
    assert table.to_numpy().tolist() == ROWS


def test_an_old_mac_is_read_and_told(tmp_path):
    rows = [["0001.wav", "Malmö", "55"]]
    (tmp_path / "t.csv").write_bytes(written(";", rows=rows, end="\r").encode("mac-roman"))
    found = import_csv(tmp_path / "t.csv", KNOWN)
    assert found.rows.to_numpy().tolist() == rows
    assert "an old Mac" in found.notes[0] and "CSV UTF-8" in found.notes[0]


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "\n\r\n", "\ufeffsep=;\n"])
def test_a_line_for_excel_and_blank_ones_are_no_heading(tmp_path, first):
    assert read(tmp_path, first + written(";")).to_numpy().tolist() == ROWS


def test_headings_in_other_words_and_empty_columns_and_rows(tmp_path):
    text = " File ,SITE,Latitude,,\n\n0001.wav,a,1,,\n,,,,\n0002.wav\n"
    assert read(tmp_path, text).to_dict("list") == {
        "file": ["0001.wav", "0002.wav"], "site": ["a", ""], "latitude": ["1", ""]
    }  # fmt: skip
    assert list(read(tmp_path, "Cut ID;Site\n1;a\n")) == ["cut_id", "site"]
    assert list(read(tmp_path, "CutID,Site,site\n1,a,b\n")) == ["cut_id", "site"]


CELL = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=9)


@settings(deadline=None, max_examples=100)
@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), separator=st.sampled_from(",;\t|"))
def test_whatever_the_cells_hold_they_are_found_again(tmp_path_factory, rows, separator):
    rows = [[f"{number}.wav", *row] for number, row in enumerate(rows)]
    table = read(tmp_path_factory.mktemp("t"), written(separator, ("file", "site", "note"), rows))
    assert table.to_numpy().tolist() == [[normal(unguarded(cell.strip())) for cell in row] for row in rows]


def test_a_file_without_end_is_refused_and_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "zero").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    for name, what in {"zero": "not a file", "pipe": "not a file", ".": "a folder and no CSV table"}.items():
        with pytest.raises(UsageError, match=what):
            import_csv(tmp_path / name, KNOWN)
    monkeypatch.setattr(csv_import, "MOST_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="more than 1 MB are no table"):
        read(tmp_path, b"file,site\n" * 200_000)
    monkeypatch.setattr(csv_import, "MOST_ROWS", 1000)
    with pytest.raises(UsageError, match="more than 1,000 rows are no table"):
        read(tmp_path, b"file,site\n" * 2000)
