"""Counts in what the commands print."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import soundfile

from watkins_ml.cli.prediction_tables import print_detections
from watkins_ml.core.wording import differences, plural
from watkins_ml.inference.detections import RecordingDetections
from watkins_ml.inference.pipeline import PipelineResult


def test_one_and_many_and_none():
    assert [plural(count, "file") for count in (0, 1, 2, 15_248)] == ["0 files", "1 file", "2 files", "15,248 files"]
    assert [plural(count, "entry", "entries") for count in (1, 3)] == ["1 entry", "3 entries"]


def test_prepare_counts_one_file_and_one_recording_in_the_singular(archive, watkins, tmp_path):
    shutil.copytree(archive, tmp_path / "sea")
    (tmp_path / "sea" / "FinWhale" / "01009001.wav").write_bytes(b"RIFF, and no more")
    (tmp_path / "sea" / "Narwhal").mkdir()
    samples, rate = soundfile.read(next((archive / "FinWhale").iterdir()))
    soundfile.write(tmp_path / "sea" / "Narwhal" / "09000001.wav", samples[::-1], rate)
    said = watkins("prepare", tmp_path / "sea", "--out", tmp_path / "data", "--workers", 1)
    assert said.status == 0, said.err
    assert "36 recordings of 3 species on 12 tapes; 38 files read now; " in said.out
    assert "2 files left out (" in said.out and "Narwhal left out: 1 recording, fewer than 10" in said.out
    shutil.rmtree(tmp_path / "sea" / "Narwhal")
    said = watkins("prepare", tmp_path / "sea", "--out", tmp_path / "data", "--workers", 1)
    assert "1 file left out (1 unreadable)" in said.out, said.out


@pytest.mark.parametrize(("names", "said"), [(["a.wav"], "1 file\n"), (["a.wav", "b.wav"], "2 files\n")])
def test_predict_counts_files(names, said, capsys):
    rows = (pd.DataFrame({"path": [name], "species": "Narwhal", "probability": 0.9}) for name in names)
    recordings = [RecordingDetections(Path(name), each) for name, each in zip(names, rows, strict=True)]
    print_detections(PipelineResult(recordings, [Path("detections.csv")]), "files")
    assert said in capsys.readouterr().out


def test_differences_name_each_changed_key_once_and_what_is_missing():
    assert differences({"b": 1, "a": "x", "c": 2}, {"c": 2, "a": "y", "d": 3}) == [
        "a was x, now y", "b was 1, now None", "d was None, now 3",
    ]  # fmt: skip
