"""Prepared spectrograms back into memory, ready to train on or to look at."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import psutil
import torch

from watkins_ml.core.console import err, progress
from watkins_ml.core.distributed import current
from watkins_ml.core.errors import ResourceError
from watkins_ml.core.tensor_files import why
from watkins_ml.dataset.layout import PreparedData, windows_beside

READERS = 4
"""Threads that read batches from the disk, each one batch."""


@dataclass(frozen=True)
class SpectrogramFiles(Sequence):
    """The spectrograms of a table of recordings, each read from the disk when it is asked for."""

    data: PreparedData
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.data.input.shape))

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """One of shape (1, n_mels, frames), or several, (rows, 1, n_mels, frames); raises as `load_side`."""
        names, shape = self.frame["spectrogram"], self.shape[1:]
        if isinstance(rows, int):
            return _read(self.data, self.data.folder.root / names.iloc[rows], shape)
        several = names.iloc[rows.numpy() if torch.is_tensor(rows) else rows]
        found = torch.empty(len(several), *shape)
        for row, name in enumerate(several):
            found[row] = _read(self.data, self.data.folder.root / name, shape)
        return found


@dataclass(frozen=True)
class JoinedRows(Sequence):
    """The rows of several sources one after the other; nothing is copied before it is asked for."""

    parts: tuple[Spectrograms, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.parts[0].shape[1:]))

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """As `SpectrogramFiles` gives them."""
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        wanted = torch.arange(len(self))[rows.cpu() if torch.is_tensor(rows) else rows]
        found, start = torch.empty(len(wanted), *self.shape[1:]), 0
        for part in self.parts:
            of_part = (wanted >= start) & (wanted < start + len(part))
            found[of_part] = part[wanted[of_part] - start]
            start += len(part)
        return found


Spectrograms = torch.Tensor | SpectrogramFiles | JoinedRows


@dataclass(frozen=True)
class Side:
    """One side of a prepared data set, in memory or on the disk."""

    frame: pd.DataFrame
    spectrograms: Spectrograms
    """float32, shape (recordings, 1, n_mels, frames); in training also what frozen stages make of them."""
    labels: torch.Tensor
    """int64, shape (recordings,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, chances: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches in the order of the table, or shuffled by `generator`; the last may be smaller.

        With `chances`, one a recording, as many recordings as there are come drawn with replacement instead.
        """
        if generator is None:
            order = torch.arange(len(self))
        elif chances is None:
            order = torch.randperm(len(self), generator=generator)
        else:
            order = torch.multinomial(chances, len(self), replacement=True, generator=generator)
        batches = order.to(self.labels.device, non_blocking=True).split(batch_size)
        if torch.is_tensor(self.spectrograms) and (self.spectrograms.is_cuda or not torch.cuda.is_available()):
            for chosen in batches:
                yield self.spectrograms[chosen], self.labels[chosen]
            return
        with closing(_ahead(self.spectrograms, batches)) as coming:
            for chosen, batch in zip(batches, coming, strict=True):
                yield batch, self.labels[chosen]

    def near(self, device: torch.device) -> Side:
        """The side in the memory of a GPU, if it takes no more than half of what is free there."""
        parts = self.spectrograms.parts if isinstance(self.spectrograms, JoinedRows) else (self.spectrograms,)
        tensors = [part for part in parts if torch.is_tensor(part)]
        if device.type != "cuda" or len(tensors) < len(parts):
            return self
        free, _ = torch.cuda.mem_get_info(device)
        if sum(part.nbytes for part in tensors) > free / (2 * len(parts)):
            return self
        moved = [part.to(device) for part in tensors]
        return replace(self, spectrograms=torch.cat(moved) if moved[1:] else moved[0], labels=self.labels.to(device))


def joined(*sides: Side) -> Side:
    """The recordings of several sides as one, whose spectrograms stay where they are."""
    return Side(
        pd.concat([side.frame for side in sides], ignore_index=True),
        JoinedRows(tuple(side.spectrograms for side in sides)),
        torch.cat([side.labels for side in sides]),
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


def open_side(data: PreparedData, name: str) -> Side:
    """A side (train, val or test) whose spectrograms stay on the disk; reading them raises as `load_side`."""
    frame = data.sides[name]
    labels = torch.from_numpy(frame["label"].to_numpy(copy=True)).long()
    return Side(frame, SpectrogramFiles(data, frame), labels)


def as_prepared(data: PreparedData, name: str) -> Side:
    """A side with its spectrograms, as people and controls see it, whatever a network gets; else as `open_side`."""
    return open_side(data.as_prepared or data, name)


def load_side(data: PreparedData, name: str) -> Side:
    """Read all spectrograms of a side (train, val or test) into memory.

    Raises:
        UserError: a spectrogram is missing or damaged; names it.
    """
    side = open_side(data, name)
    spectrograms = torch.empty(side.spectrograms.shape)
    with progress(transient=True) as bar:
        task = bar.add_task(f"Loading {name}", total=len(side), note="")
        for row in range(len(side)):
            spectrograms[row] = side.spectrograms[row]
            bar.advance(task)
    return replace(side, spectrograms=spectrograms)


def load_sides(data: PreparedData, names: Sequence[str], memory_gb: float | None = None) -> list[Side]:
    """Some sides, all in memory or, where they would take more than `memory_gb` 10⁹ bytes of it, all on the disk.

    Without a figure half of the memory that is free may be taken, by all processes of a training together. Raises as
    `load_side`.
    """
    sides = [open_side(data, name) for name in names]
    size = sum(4 * math.prod(side.spectrograms.shape) for side in sides)
    room = (
        psutil.virtual_memory().available / (2 * current().local_world_size) if memory_gb is None else memory_gb * 1e9
    )
    if size <= room:
        return [load_side(data, name) for name in names]
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
            yield _read(data, windows_beside(data.folder.root / name), torch.Size((count, *shape)))


def _read(data: PreparedData, path: Path, shape: torch.Size) -> torch.Tensor:
    """A tensor file of `data`; what is wrong with it is reported only where the folder is still what it was."""
    try:
        return _load(path, shape)
    finally:
        data.check()


def _load(path: Path, shape: torch.Size) -> torch.Tensor:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        what = "is a link or no file, which `watkins prepare` does not make; delete it and run that"
        raise ResourceError(f"{path}: {what}")
    if not path.exists():
        raise ResourceError(f"{path}: missing; run `watkins prepare` again")
    try:
        spectrogram = torch.load(path, weights_only=True)
        if spectrogram.shape != shape:
            raise ValueError(f"shape {tuple(spectrogram.shape)} instead of {tuple(shape)}")
    except OSError as error:  # too many open files, no permission, a disk that fails
        raise ResourceError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise
    except Exception as error:  # torch.load meets broken bytes with almost any kind of error
        raise ResourceError(f"{path}: damaged ({why(error)}); delete it and run `watkins prepare` again") from None
    return spectrogram
