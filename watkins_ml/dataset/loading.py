"""Prepared spectrograms back into memory, ready to train on or to look at."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import psutil
import torch

from watkins_ml.audio.any_settings import AnySettings
from watkins_ml.core.console import err, progress
from watkins_ml.core.distributed import current
from watkins_ml.dataset.layout import PreparedData, windows_beside
from watkins_ml.dataset.stored import (
    JoinedRows,
    SpectrogramFiles,
    Spectrograms,
    WindowFiles,
    is_here,
    moved,
    parts_of,
    read_tensor,
)
from watkins_ml.dataset.targets import LABELS, decode

READERS = 4
"""Threads that read batches from the disk, each one batch."""
Draw = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""By how many windows each recording of an epoch is classified, int64 (recordings,), to the one that it is trained on;
-1 is the central spectrogram."""


@dataclass(frozen=True)
class Windows:
    """The windows of those recordings of a side that are longer than one."""

    counts: torch.Tensor
    """int64 (recordings,): by how many windows each recording of the side is classified."""
    spectrograms: Spectrograms
    """float32 (windows, 1, n_mels, frames): those of the longer recordings, one recording after another."""

    def rows(self, order: torch.Tensor, draw: Draw, generator: torch.Generator) -> torch.Tensor:
        """For the recordings `order` rows of what all begin with: the side's spectrograms, then these windows."""
        kept = torch.where(self.counts > 1, self.counts, 0)
        first = len(self.counts) + kept.cumsum(0) - kept
        drawn = draw(self.counts[order], generator)
        return torch.where((drawn >= 0) & (self.counts[order] > 1), first[order] + drawn, order)


@dataclass(frozen=True)
class Side:
    """One side of a prepared data set, in memory or on the disk."""

    frame: pd.DataFrame
    spectrograms: Spectrograms
    """float32, shape (recordings, 1, n_mels, frames); in training also what frozen stages make of them."""
    labels: torch.Tensor
    """int64, shape (recordings,); where these may hold any number of species float32, shape (recordings, species): 1
    present, 0 absent, NaN where it is not known."""
    windows: Windows | None = None
    """Where a training may draw from them and a recording is longer than one."""
    settings: AnySettings | None = None
    """Of the frontend that made the spectrograms, where that is known."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        generator: torch.Generator | None = None,
        chances: torch.Tensor | None = None,
        draw: Draw | None = None,
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches in the order of the table, or shuffled by `generator`; the last may be smaller.

        With `chances`, one a recording, as many recordings as there are come drawn with replacement instead. With
        `draw` and `windows`, longer recordings come as the windows that it draws, for a whole epoch at once.
        """
        if generator is None:
            order = torch.arange(len(self))
        elif chances is None:
            order = torch.randperm(len(self), generator=generator)
        else:
            order = torch.multinomial(chances, len(self), replacement=True, generator=generator)
        batches = order.to(self.labels.device, non_blocking=True).split(batch_size)
        source, rows = self.spectrograms, batches
        if draw is not None and generator is not None and self.windows is not None:
            source = JoinedRows((self.spectrograms, self.windows.spectrograms))
            rows = self.windows.rows(order, draw, generator).split(batch_size)
        if is_here(source):
            for chosen, places in zip(batches, rows, strict=True):
                yield source[places], self.labels[chosen]
            return
        with closing(_ahead(source, rows)) as coming:
            for chosen, batch in zip(batches, coming, strict=True):
                yield batch, self.labels[chosen]

    def near(self, device: torch.device) -> Side:
        """The side in the memory of a GPU, if it takes no more than half of what is free there."""
        sources = [self.spectrograms] if self.windows is None else [self.spectrograms, self.windows.spectrograms]
        parts = [part for source in sources for part in parts_of(source)]
        tensors = [part for part in parts if torch.is_tensor(part)]
        if device.type != "cuda" or len(tensors) < len(parts):
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if sum(part.nbytes for part in tensors) > free / (2 * len(parts_of(self.spectrograms))):
            return self
        there = [moved(source, device) for source in sources]
        windows = None if self.windows is None else replace(self.windows, spectrograms=there[1])
        return replace(self, spectrograms=there[0], labels=self.labels.to(device), windows=windows)


def joined(*sides: Side) -> Side:
    """The recordings of several sides as one, whose spectrograms stay where they are."""
    windows = None
    if longer := [side.windows.spectrograms for side in sides if side.windows is not None]:
        counts = [
            torch.ones(len(side), dtype=torch.int64) if side.windows is None else side.windows.counts for side in sides
        ]
        windows = Windows(torch.cat(counts), JoinedRows(tuple(longer)))
    return Side(
        pd.concat([side.frame for side in sides], ignore_index=True),
        JoinedRows(tuple(side.spectrograms for side in sides)),
        torch.cat([side.labels for side in sides]),
        windows,
        sides[0].settings,
    )


def _ahead(spectrograms: Spectrograms, batches: Sequence[torch.Tensor]) -> Generator[torch.Tensor]:
    """Each batch got together while those before it are learned from, where a GPU can fetch it by itself."""

    def gather(chosen: torch.Tensor) -> torch.Tensor:
        batch = spectrograms[chosen]
        return batch.pin_memory() if torch.cuda.is_available() else batch

    with ThreadPoolExecutor(READERS) as readers:
        coming: deque[Future[torch.Tensor]] = deque()
        for chosen in batches:
            coming.append(readers.submit(gather, chosen))
            if len(coming) > READERS:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()


def labels_of(data: PreparedData, frame: pd.DataFrame) -> np.ndarray:
    """The labels of rows of a side, int64 (rows,) or float32 (rows, species), see `Side.labels`."""
    if data.task == LABELS:
        return decode(frame["targets"], len(data.classes))
    return frame["label"].to_numpy(dtype=np.int64, copy=True)


def open_side(data: PreparedData, name: str, with_windows: bool = False) -> Side:
    """A side (train, val or test) whose spectrograms stay on the disk; reading them raises as `load_side`."""
    frame = data.sides[name]
    labels = torch.from_numpy(labels_of(data, frame))
    windows, longer = None, frame[frame["windows"] > 1] if with_windows else frame[:0]
    if len(longer):
        windows = Windows(torch.from_numpy(frame["windows"].to_numpy(copy=True)).long(), WindowFiles(data, longer))
    return Side(frame, SpectrogramFiles(data, frame), labels, windows, data.input)


def as_prepared(data: PreparedData, name: str) -> Side:
    """A side with its spectrograms, as people and controls see it, whatever a network gets; else as `open_side`."""
    return open_side(data.as_prepared or data, name)


def load_side(data: PreparedData, name: str, with_windows: bool = False) -> Side:
    """Read all spectrograms of a side (train, val or test) into memory, with the windows of longer recordings or not.

    Raises:
        UserError: a spectrogram is missing or damaged; names it.
    """
    side = open_side(data, name, with_windows)
    spectrograms = torch.empty(side.spectrograms.shape)
    with progress(transient=True) as bar:
        task = bar.add_task(f"Loading {name}", total=len(side), note="")
        for row in range(len(side)):
            spectrograms[row] = side.spectrograms[row]
            bar.advance(task)
    if side.windows is None or not isinstance(files := side.windows.spectrograms, WindowFiles):
        return replace(side, spectrograms=spectrograms)
    windows, start = torch.empty(files.shape), 0
    for row, count in enumerate(files.frame["windows"]):
        windows[start : start + count] = files.recording(row)
        start += count
    return replace(side, spectrograms=spectrograms, windows=replace(side.windows, spectrograms=windows))


def load_sides(
    data: PreparedData, names: Sequence[str], memory_gb: float | None = None, with_windows: Sequence[str] = ()
) -> list[Side]:
    """Some sides, all in memory or, where they would take more than `memory_gb` 10⁹ bytes of it, all on the disk.

    Without a figure half of the memory that is free may be taken, by all processes of a training together. Those of
    `with_windows` come with all windows of longer recordings. Raises as `load_side`.
    """
    sides = [open_side(data, name, name in with_windows) for name in names]
    sources = [side.spectrograms for side in sides]
    sources += [side.windows.spectrograms for side in sides if side.windows is not None]
    size = sum(4 * math.prod(source.shape) for source in sources)
    room = (
        psutil.virtual_memory().available / (2 * current().local_world_size) if memory_gb is None else memory_gb * 1e9
    )
    if size <= room:
        return [load_side(data, name, name in with_windows) for name in names]
    err.print(
        f"{size / 1e9:.1f} GB of spectrograms are read from {data.folder.root} batch by batch: {room / 1e9:.1f} GB of "
        "memory may be used for them (data.memory_gb)"
    )
    return sides


def cut_windows(data: PreparedData, side: Side) -> Iterator[torch.Tensor]:
    """By which spectrograms each cut of a side is classified: (n, 1, n_mels, frames), read one long cut after another.

    Raises:
        UserError: windows are missing or damaged; names the file.
    """
    shape = side.spectrograms.shape[1:]
    for row, (name, count) in enumerate(zip(side.frame["spectrogram"], side.frame["windows"], strict=True)):
        if count == 1:
            yield side.spectrograms[row : row + 1]
        else:
            yield read_tensor(data, windows_beside(data.folder.root / name), torch.Size((count, *shape)))
