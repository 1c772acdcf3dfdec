"""Writing files: old content or new content, never half, and the disk's faults as one sentence."""

from __future__ import annotations

import csv
import errno
import io
import json
import os

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.core import files
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import csv_text, read_csv, shown_csv


def below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in files.files_below(folder))


def test_files_are_found_behind_links_to_folders(tmp_path):
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "a.wav").touch()
    (tmp_path / "archive").mkdir()
    for name in ("Orca", "Walrus"):
        (tmp_path / "archive" / name).symlink_to(tmp_path / "disk")
    (tmp_path / "archive" / "b.wav").symlink_to(tmp_path / "disk" / "deep" / "a.wav")
    (tmp_path / "archive" / "gone.wav").symlink_to(tmp_path / "nowhere")
    assert below(tmp_path / "archive") == ["Orca/deep/a.wav", "Walrus/deep/a.wav", "b.wav", "gone.wav"]


def test_hidden_files_and_links_to_themselves_are_no_trouble(tmp_path, monkeypatch):
    (tmp_path / ".Trashes").mkdir()
    (tmp_path / "._a.wav").touch()
    (tmp_path / "a.wav").touch()
    (tmp_path / "self.wav").symlink_to(tmp_path / "self.wav")
    scandir = os.scandir
    read = []
    monkeypatch.setattr(os, "scandir", lambda path: (read.append(path), scandir(path))[1])
    assert below(tmp_path) == ["a.wav", "self.wav"]
    assert read == [tmp_path]  # other people's hidden folders often cannot be read


def test_links_in_circles_are_followed_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.wav").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to-b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to-a").symlink_to(tmp_path / "a")
    assert below(tmp_path) == ["a/a.wav", "a/to-b/b.wav", "b/b.wav", "b/to-a/a.wav"]


def test_a_name_that_is_not_utf8_goes_through_json_and_stops_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    files.write_json(tmp_path / "a.json", {"model": name})
    assert json.loads((tmp_path / "a.json").read_text()) == {"model": name}
    files.write_text(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_text() == "caf\\udce9"


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    scandir = os.scandir

    def refused(path):
        if path.name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(UserError, match=r"deep: cannot be read \(Permission denied\)$"):
        below(tmp_path)


def test_parents_are_made_and_content_is_kept(tmp_path):
    path = tmp_path / "a" / "b" / "names.json"
    files.write_json(path, {"species": "Risso'sDolphin, æøå"})
    assert json.loads(path.read_text(encoding="utf-8")) == {"species": "Risso'sDolphin, æøå"}
    assert "æøå" in path.read_text(encoding="utf-8")


def test_csv_reads_back_with_awkward_names(tmp_path):
    frame = pd.DataFrame({"path": ['a, "b".wav', "line\nbreak.wav", "it's (1).wav"], "n": [1, 2, 3]})
    files.write_csv(tmp_path / "t.csv", frame)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t.csv"), frame)


def test_tensors_load_without_pickle(tmp_path):
    files.write_tensors(tmp_path / "t.pt", {"weight": torch.arange(3.0)})
    assert torch.load(tmp_path / "t.pt", weights_only=True)["weight"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_failed_write_leaves_the_old_content_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match="No space"):
        files.write_text(path, "new and longer")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_reader_never_sees_half_a_file(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    seen = []
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: (seen.append(path.read_text()), replace(*names)))
    files.write_text(path, "new")
    assert [*seen, path.read_text()] == ["old", "new"]


def test_disk_error_becomes_one_sentence_with_a_way_on():
    with pytest.raises(UserError) as error, files.disk_errors("cannot write x", "then try again"):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x.pt")
    assert str(error.value) == "cannot write x: No space left on device (/data/x.pt); then try again"


TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12),
    st.from_regex(r"'*[=+\-@\t\r][^\0]{0,9}"),
)


@given(st.lists(TEXTS, min_size=1, max_size=6), st.floats(allow_nan=False, allow_infinity=False))
def test_a_table_comes_back_as_it_was_and_no_cell_is_a_formula(texts, number):
    table = pd.DataFrame({"path": texts, "=column": texts, "number": number})
    written = csv_text(table)
    for row in csv.reader(io.StringIO(written, newline="")):
        for cell in row:
            assert not cell.startswith(tuple("=@\t\r\n")), row
            assert not cell.startswith(("+", "-")) or float(cell) is not None
    again = read_csv(io.StringIO(written, newline=""), dtype={"path": str, "=column": str}, keep_default_na=False)
    assert again["path"].tolist() == texts
    assert again["=column"].tolist() == texts
    assert again["number"].tolist() == pytest.approx([number] * len(texts))


def test_numbers_stay_numbers_also_as_text():
    table = pd.DataFrame({"latitude": ["-3.2", "+1e-5", "-", "=1"], "score": [-1.5, 2.0, float("nan"), -0.0]})
    assert csv_text(table) == "latitude,score\n-3.2,-1.5\n+1e-5,2.0\n'-,\n'=1,-0.0\n"


def test_a_table_for_people_has_a_line_a_row():
    table = pd.DataFrame({"path": ["a\nb\x1b[31m.wav", "\t=1"], "p": [0.5, 1.0]})
    assert shown_csv(table) == "path,p\na\\nb\\x1b[31m.wav,0.5\n\\t=1,1.0\n"
