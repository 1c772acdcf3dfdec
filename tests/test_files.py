"""Writing files: old content or new content, never half, and the disk's faults as one sentence."""

from __future__ import annotations

import errno
import json
import os

import pandas as pd
import pytest
import torch

from watkins_ml import files
from watkins_ml.errors import UserError


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
