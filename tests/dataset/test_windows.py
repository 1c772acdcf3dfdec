"""Recordings longer than a window: their windows lie beside the spectrogram and are never forgotten."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch

from tests.support.folders import killed_at, table
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared, windows_beside
from watkins_ml.dataset.loading import cut_windows, load_side, load_sides, open_side
from watkins_ml.dataset.prepare import PrepareOptions
from watkins_ml.transforms.random_excerpt import RandomExcerpt

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


def test_random_excerpts_are_the_windows_from_memory_and_from_the_disk(sea, run, tmp_path):
    run(sea, frontend=QUICK)
    data, draw = read_prepared(tmp_path / "out"), RandomExcerpt(name="random_excerpt")
    loaded, files = load_side(data, "train", with_windows=True), open_side(data, "train", with_windows=True)
    every = list(cut_windows(data, files))
    order, seen = torch.Generator().manual_seed(0), set()
    for number in range(30):
        state = order.get_state()
        rows = torch.cat([labels for _, labels in numbered(loaded).batches(3, order, draw=draw)])
        order.set_state(state)
        batches = torch.cat([spectrograms for spectrograms, _ in loaded.batches(3, order, draw=draw)])
        if number < 3:
            again = files.batches(3, torch.Generator().set_state(state), draw=draw)
            assert torch.equal(torch.cat([spectrograms for spectrograms, _ in again]), batches)
        for row, spectrogram in zip(rows.tolist(), batches, strict=True):
            (window,) = [place for place, each in enumerate(every[row]) if torch.equal(each, spectrogram)]
            seen.add((row, window))
    assert seen == {(row, window) for row, windows in enumerate(every) for window in range(len(windows))}


def numbered(side):
    """The same side with row numbers for labels."""
    return replace(side, labels=torch.arange(len(side)))


def test_windows_count_where_memory_is_limited_and_only_those_that_are_asked_for_are_read(sea, run, tmp_path, capsys):
    run(sea, frontend=QUICK)
    data = read_prepared(tmp_path / "out")
    plain = load_sides(data, ("train", "val"))
    assert plain[0].windows is None
    train, val = load_sides(data, ("train", "val"), None, ("train",))
    assert val.windows is None and torch.is_tensor(train.windows.spectrograms)
    assert torch.equal(train.spectrograms, plain[0].spectrograms)
    size = sum(each.nbytes for each in (train.spectrograms, train.windows.spectrograms, val.spectrograms))
    capsys.readouterr()
    assert torch.is_tensor(load_sides(data, ("train", "val"), size / 1e9, ("train",))[0].windows.spectrograms)
    assert not torch.is_tensor(load_sides(data, ("train", "val"), (size - 1) / 1e9, ("train",))[0].spectrograms)


def test_lost_windows_are_named_where_a_random_one_is_wanted(sea, run, tmp_path):
    run(sea, frontend=QUICK)
    data = read_prepared(tmp_path / "out")
    files = open_side(data, "train", with_windows=True)
    gone = windows_beside(tmp_path / "out" / files.windows.spectrograms.frame["spectrogram"].iloc[0])
    gone.unlink()
    draw = RandomExcerpt(name="random_excerpt")
    for read in (
        lambda: load_side(data, "train", with_windows=True),
        lambda: list(files.batches(2, torch.Generator(), draw=draw)),
    ):
        with pytest.raises(UserError, match=r"missing; run `watkins prepare`") as error:
            read()
        assert str(gone) in str(error.value)


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
