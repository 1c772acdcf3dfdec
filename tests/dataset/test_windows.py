"""Recordings longer than a window: their windows lie beside the spectrogram and are never forgotten."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pytest
import torch

from tests.support.folders import killed_at, table
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared, windows_beside
from watkins_ml.dataset.loading import cut_windows, load_side
from watkins_ml.dataset.prepare import PrepareOptions

QUICK = FrontendSettings(sample_rate=8_000, n_fft=4096, frames=100, hop_length=40, win_length=64)
"""Windows of half a second, so that a second is long."""


@pytest.fixture
def sea(make_ocean, cut, tmp_path):
    """Two species, four tapes each, of one short and one long recording a tape."""
    audio = make_ocean(tmp_path / "sea", cuts=1)
    for number, path in enumerate(sorted(audio.rglob("*.wav"))):
        cut(path.with_stem(path.stem[:-1] + "1"), 50 + number, seconds=0.7 + 0.1 * number)
    return audio


def is_long(path: str) -> bool:
    return path.endswith("1.wav")


def test_only_long_recordings_have_windows(sea, run, tmp_path):
    run(sea, frontend=QUICK)
    data, frontend = read_prepared(tmp_path / "out"), Frontend(QUICK)
    counts = table(tmp_path / "out", "audio_annotations").set_index("path")["windows"]
    assert counts[[not is_long(path) for path in counts.index]].tolist() == [1] * 8
    assert (counts[[is_long(path) for path in counts.index]] >= 2).all()
    for side, frame in data.sides.items():
        split = load_side(data, side)
        for row, windows in zip(frame.itertuples(), cut_windows(data, split), strict=True):
            assert torch.equal(windows, frontend.file_windows(sea / row.path))
            assert len(windows) == row.windows
            stored = tmp_path / "out" / row.spectrogram
            assert torch.equal(torch.load(stored, weights_only=True), frontend.file(sea / row.path))
            assert windows_beside(stored).exists() == is_long(row.path)


def test_they_stay_where_they_are_whatever_the_split(sea, run, tmp_path, content):
    run(sea, frontend=QUICK)
    before = content(tmp_path / "out")
    assert run(sea, frontend=QUICK, seed=1).computed == 0
    after = content(tmp_path / "out")
    assert before["annotations/test.csv"] != after["annotations/test.csv"]
    assert all(after[name] == data for name, data in before.items() if name.startswith("spectrograms/"))


@pytest.mark.parametrize("damage", ["lost", "emptied"])
def test_lost_windows_are_named_and_made_again(sea, run, tmp_path, content, damage):
    run(sea, frontend=QUICK)
    before, out = content(tmp_path / "out"), tmp_path / "out"
    gone = next(path for name in table(out, "test")["spectrogram"] if (path := windows_beside(out / name)).exists())
    gone.unlink() if damage == "lost" else gone.write_bytes(b"")
    data = read_prepared(out)
    with pytest.raises(UserError, match=f"{gone.name}: (missing|damaged).*watkins prepare"):
        list(cut_windows(data, load_side(data, "test")))
    assert run(sea, frontend=QUICK).computed == 1
    assert content(out) == before


@pytest.mark.parametrize("seconds", [0.1, 1.9])
def test_a_recording_that_became_shorter_or_longer_is_as_if_made_anew(sea, cut, run, tmp_path, content, seconds):
    run(sea, frontend=QUICK)
    for path in sorted(sea.rglob("*.wav"))[:6]:
        cut(path, 900, seconds=seconds + int(path.stem) % 7 / 100)
    run(sea, frontend=QUICK)
    run(sea, tmp_path / "fresh", frontend=QUICK)
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_a_folder_of_an_earlier_version_is_refused_until_it_is_prepared_again(sea, run, tmp_path, content):
    """As version 1 left it: no windows, neither on disk nor in the table, and its own mark of the frontend."""
    out = tmp_path / "out"
    run(sea, frontend=QUICK)
    expected = content(out)
    for windows in out.rglob("*.windows"):
        windows.unlink()
    annotations = out / "annotations" / "audio_annotations.csv"
    pd.read_csv(annotations, dtype=str).drop(columns="windows").to_csv(annotations, index=False)
    journal = out / "annotations" / ".scan.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    journal.write_text("".join(json.dumps({k: v for k, v in line.items() if k != "windows"}) + "\n" for line in lines))
    (out / "spectrograms" / ".frontend").write_text("0123456789abcdef")
    with pytest.raises(UserError, match=r"earlier version, without the windows.*run `watkins prepare` again"):
        read_prepared(out)
    assert run(sea, frontend=QUICK).computed == 16
    assert content(out) == expected


@pytest.mark.slow
def test_a_run_killed_at_any_step_leaves_no_wrong_windows(make_ocean, cut, run, tmp_path, monkeypatch, content):
    """Every long recording got new audio, some became short; each rename and removal in turn is the last thing done."""
    audio, base, fresh, out = (tmp_path / name for name in ("audio", "base", "fresh", "out"))
    make_ocean(audio, tapes=3, cuts=1)
    for number, path in enumerate(sorted(audio.rglob("*.wav"))):
        cut(path, 50 + number, seconds=0.9)
    run(audio, base, frontend=QUICK, seed=3)
    for number, path in enumerate(sorted(audio.rglob("*.wav"))):
        cut(path, 80 + number, seconds=0.95 if number % 3 else 0.2)
    run(audio, fresh, frontend=QUICK)
    expected, step = content(fresh), 1
    while True:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(base, out)
        if not killed_at(step, monkeypatch, audio, out, PrepareOptions(workers=1, min_clips=3, frontend=QUICK)):
            break
        run(audio, out, frontend=QUICK)
        assert content(out) == expected, f"killed at step {step}"
        step += 2  # many steps are alike
    assert step > 20
