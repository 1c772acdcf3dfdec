"""What there is to know of a file that can be used reaches the user, whichever way it is used."""

from __future__ import annotations

import io
import shutil
import struct
from pathlib import Path

import pandas as pd
import pytest

NOTE = "its header gives no length, but the file holds 0.4 s; all of it was read"


@pytest.fixture
def unfinished(archive, tmp_path) -> Path:
    """A cut whose recorder lost power before it filled in the header."""
    content = bytearray(next(archive.rglob("*.wav")).read_bytes())
    content[40:44] = struct.pack("<I", 0)
    path = tmp_path / "unfinished.wav"
    path.write_bytes(content)
    return path


def test_predict_tells_it_beside_its_answer(watkins, finished, unfinished):
    said = watkins("predict", finished.run_dir, unfinished, "--by", "file", "--format", "csv")
    assert said.status == 0 and f"unfinished.wav: {NOTE}" in said.err
    [row] = pd.read_csv(io.StringIO(said.out)).to_dict("records")
    assert row["note"] == NOTE and pd.isna(row["problem"])


def test_predict_over_time_tells_it_again_when_it_goes_on(watkins, finished, unfinished, tmp_path):
    command = ("predict", finished.run_dir, unfinished, "--out", tmp_path / "found", "--min-confidence", 0)
    for _ in range(2):  # judged, and then kept
        said = watkins(*command, "--max-novelty", "inf")
        assert said.status == 0 and said.err.count(NOTE) == 1
    assert len(pd.read_csv(tmp_path / "found" / "detections.csv")) == 1


def test_explain_tells_it(watkins, finished, unfinished):
    said = watkins("explain", finished.run_dir, unfinished, "--out", "picture.png")
    assert said.status == 0 and NOTE in said.out


def test_prepare_tells_it(watkins, archive, tmp_path):
    folder = tmp_path / "archive"
    shutil.copytree(archive, folder)
    for number, path in enumerate(sorted(folder.rglob("*.wav"))):
        if number % 12 == 0:
            path.write_bytes(path.read_bytes()[:40] + bytes(4) + path.read_bytes()[44:])
    said = watkins("prepare", folder, "--out", "data", "--workers", 1)
    assert said.status == 0 and "3 recordings used of which there is something to know: column file_note of" in said.out
    used = pd.read_csv("data/annotations/audio_annotations.csv", keep_default_na=False)
    assert len(used) == 36 and (used["file_note"] == NOTE).sum() == 3 and (used["file_note"] == "").sum() == 33
