"""Prepared data back into memory: complete, repeatably shuffled, and every damage named."""

from __future__ import annotations

import shutil
import threading

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from watkins_ml.core import console
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import Side, joined, load_side, load_sides, open_side


def numbered(size: int) -> Side:
    """A split whose spectrograms and labels are their row numbers."""
    rows = torch.arange(size)
    return Side(pd.DataFrame({"row": rows}), rows.float().view(-1, 1, 1, 1), rows)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 70), batch_size=st.integers(1, 80), seed=st.none() | st.integers(0, 99))
def test_batches_lose_nothing_and_only_the_last_is_smaller(size, batch_size, seed):
    def batches():
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return list(numbered(size).batches(batch_size, generator))

    labels = [label for _, label in batches()]
    assert sorted(torch.cat(labels).tolist()) == list(range(size))
    assert all(len(label) == batch_size for label in labels[:-1])
    assert 1 <= len(labels[-1]) <= batch_size
    assert all(torch.equal(spectrogram.flatten().long(), label) for spectrogram, label in batches())
    assert torch.equal(torch.cat([label for _, label in batches()]), torch.cat(labels))


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4), batch_size=st.integers(1, 30), data=st.data())
def test_joined_sides_are_as_one(sizes, batch_size, data):
    whole = numbered(sum(sizes))
    parts = [
        Side(whole.frame.iloc[rows], whole.spectrograms[rows], whole.labels[rows])
        for rows in torch.arange(sum(sizes)).split(sizes)
    ]
    together = joined(*parts)
    assert together.frame.equals(whole.frame)
    assert together.spectrograms.shape == whole.spectrograms.shape
    for one, other in zip(together.batches(batch_size), whole.batches(batch_size), strict=True):
        assert all(map(torch.equal, one, other))
    rows = torch.tensor(data.draw(st.lists(st.integers(0, sum(sizes) - 1), max_size=9)), dtype=torch.long)
    assert torch.equal(together.spectrograms[rows], whole.spectrograms[rows])
    assert torch.equal(together.spectrograms[:3], whole.spectrograms[:3])


def test_without_a_generator_the_order_is_that_of_the_table():
    assert torch.cat([label for _, label in numbered(10).batches(3)]).tolist() == list(range(10))


def test_a_generator_shuffles_anew_each_epoch():
    generator = torch.Generator().manual_seed(0)
    epochs = [torch.cat([label for _, label in numbered(50).batches(8, generator)]).tolist() for _ in range(2)]
    assert epochs[0] != list(range(50))
    assert epochs[0] != epochs[1]


def test_a_side_holds_the_spectrograms_of_its_table(prepared):
    data = read_prepared(prepared)
    for side, frame in data.sides.items():
        split = load_side(data, side)
        assert split.spectrograms.shape == (len(frame), 1, 128, 400)
        assert split.labels.dtype == torch.int64
        assert [data.classes[label] for label in split.labels] == frame["species"].tolist()
        stored = torch.load(prepared / frame["spectrogram"].iloc[-1], weights_only=True)
        assert torch.equal(split.spectrograms[-1], stored)


@pytest.mark.parametrize("seed", [None, 3])
def test_batches_read_from_the_disk_are_those_of_memory(prepared, seed):
    data = read_prepared(prepared)
    whole, files = load_side(data, "train"), open_side(data, "train")

    def batches(split):
        return list(split.batches(7, None if seed is None else torch.Generator().manual_seed(seed)))

    for mine, its in zip(batches(whole), batches(files), strict=True):
        assert torch.equal(mine[0], its[0]) and torch.equal(mine[1], its[1])
    rows = slice(2, 5)
    assert files.spectrograms.shape == whole.spectrograms.shape
    assert torch.equal(files.spectrograms[rows], whole.spectrograms[rows])


def test_what_memory_may_not_take_stays_on_the_disk(prepared, capsys):
    data = read_prepared(prepared)
    sides, size = ("train", "val"), sum(4 * 128 * 400 * len(data.sides[side]) for side in ("train", "val"))
    for limit in (None, size / 1e9):
        assert all(torch.is_tensor(split.spectrograms) for split in load_sides(data, sides, limit))
    assert "batch by batch" not in capsys.readouterr().err
    assert not any(torch.is_tensor(split.spectrograms) for split in load_sides(data, sides, size / 1e9 - 1e-6))
    assert "batch by batch" in (said := capsys.readouterr().err) and "data.memory_gb" in said


def test_an_epoch_that_is_left_early_leaves_no_reader_behind(prepared):
    before = set(threading.enumerate())
    batches = open_side(read_prepared(prepared), "train").batches(2)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()
    assert set(threading.enumerate()) <= before


def empty(path):
    path.write_bytes(b"")


def cut_off(path):
    path.write_bytes(path.read_bytes()[:1_000])


def rubbish(path):
    path.write_bytes(b"\x00rubbish" * 500)


def text(path):
    path.write_text("not a tensor")


def wrong_shape(path):
    torch.save(torch.zeros(1), path)


def no_tensor(path):
    torch.save({"a": 1}, path)


def delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [empty, cut_off, rubbish, text, wrong_shape, no_tensor, delete])
def test_a_damaged_spectrogram_is_named(prepared, tmp_path, damage):
    copy = tmp_path / "data"
    shutil.copytree(prepared, copy)
    data = read_prepared(copy)
    path = copy / data.sides["val"]["spectrogram"].iloc[0]
    damage(path)
    for read in (load_side, lambda data, side: list(open_side(data, side).batches(4))):
        with pytest.raises(UserError, match=r"(missing|damaged).*watkins prepare") as error:
            read(data, "val")
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_loading_shows_a_bar_on_a_terminal(prepared, monkeypatch, tmp_path):
    with open(tmp_path / "terminal.txt", "w") as terminal:
        monkeypatch.setattr(console, "err", Console(file=terminal, force_terminal=True, width=120))
        load_side(read_prepared(prepared), "val")
    assert "Loading val" in (tmp_path / "terminal.txt").read_text()
