"""Prepared spectrograms back into memory, ready to train on or to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from watkins_ml.console import progress
from watkins_ml.dataset.layout import PreparedData, windows_beside
from watkins_ml.errors import UserError


@dataclass(frozen=True)
class Split:
    """One side of a prepared data set, whole in memory."""

    frame: pd.DataFrame
    spectrograms: torch.Tensor
    """float32, shape (recordings, 1, n_mels, frames); in training also what frozen stages make of them."""
    labels: torch.Tensor
    """int64, shape (recordings,)."""

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self, batch_size: int, generator: torch.Generator | None = None, chances: torch.Tensor | None = None
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Batches in the order of the table, or shuffled by `generator`; the last may be smaller.

        With `chances`, one a species, as many recordings as there are come drawn with replacement instead.
        """
        if generator is None:
            order = torch.arange(len(self))
        elif chances is None:
            order = torch.randperm(len(self), generator=generator)
        else:
            order = torch.multinomial(chances[self.labels], len(self), replacement=True, generator=generator)
        for chosen in order.split(batch_size):
            yield self.spectrograms[chosen], self.labels[chosen]


@dataclass(frozen=True)
class SpectrogramFiles(Sequence):
    """The spectrograms of a table of recordings, each read from the disk when it is asked for."""

    data: PreparedData
    frame: pd.DataFrame

    def __len__(self) -> int:
        return len(self.frame)

    def __getitem__(self, row: int) -> torch.Tensor:
        """Shape (1, n_mels, frames); raises as `load_split`."""
        settings = self.data.frontend
        path = self.data.folder.root / self.frame["spectrogram"].iloc[row]
        return _read(path, torch.Size((1, settings.n_mels, settings.frames)))


def load_split(data: PreparedData, side: str) -> Split:
    """Read all spectrograms of a side.

    Raises:
        UserError: a spectrogram is missing or damaged; names it.
    """
    frame = data.sides[side]
    settings = data.frontend
    spectrograms = torch.empty(len(frame), 1, settings.n_mels, settings.frames)
    with progress(transient=True) as bar:
        task = bar.add_task(f"Loading {side}", total=len(frame), note="")
        for row, name in enumerate(frame["spectrogram"]):
            spectrograms[row] = _read(data.folder.root / name, spectrograms.shape[1:])
            bar.advance(task)
    return Split(frame, spectrograms, torch.from_numpy(frame["label"].to_numpy(copy=True)).long())


def cut_windows(data: PreparedData, split: Split) -> Iterator[torch.Tensor]:
    """What each cut of a split is judged by: (n, 1, n_mels, frames), those of long cuts read one cut after another.

    Raises:
        UserError: windows are missing or damaged; names the file.
    """
    shape = split.spectrograms.shape[1:]
    for row, (name, count) in enumerate(zip(split.frame["spectrogram"], split.frame["windows"], strict=True)):
        if count == 1:
            yield split.spectrograms[row : row + 1]
        else:
            yield _read(windows_beside(data.folder.root / name), torch.Size((count, *shape)))


def _read(path: Path, shape: torch.Size) -> torch.Tensor:
    if not path.exists():
        raise UserError(f"{path}: missing; run `watkins prepare` again")
    try:
        spectrogram = torch.load(path, weights_only=True)
        if spectrogram.shape != shape:
            raise ValueError(f"shape {tuple(spectrogram.shape)} instead of {tuple(shape)}")
    except Exception as error:  # torch.load meets broken bytes with almost any kind of error
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: damaged ({reason}); delete it and run `watkins prepare` again") from None
    return spectrogram
