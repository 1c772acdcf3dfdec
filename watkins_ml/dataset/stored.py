"""Prepared tensors where they lie: in files, each read when it is asked for, or in several places one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from watkins_ml.core.errors import ResourceError
from watkins_ml.core.tensor_files import why
from watkins_ml.dataset.layout import PreparedData, windows_beside


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
            return read_tensor(self.data, self.data.folder.root / names.iloc[rows], shape)
        several = names.iloc[rows.numpy() if torch.is_tensor(rows) else rows]
        found = torch.empty(len(several), *shape)
        for row, name in enumerate(several):
            found[row] = read_tensor(self.data, self.data.folder.root / name, shape)
        return found


@dataclass(frozen=True)
class WindowFiles(Sequence):
    """The windows of those recordings of a table that are longer than one, one recording after another, on the disk."""

    data: PreparedData
    frame: pd.DataFrame
    """Only the longer ones."""

    @cached_property
    def _ends(self) -> np.ndarray:
        return self.frame["windows"].to_numpy().cumsum()

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), *self.data.input.shape))

    def recording(self, row: int) -> torch.Tensor:
        """All windows of one recording, (n, 1, n_mels, frames); raises a UserError that names a damaged file."""
        name, count = self.frame["spectrogram"].iloc[row], self.frame["windows"].iloc[row]
        return read_tensor(
            self.data, windows_beside(self.data.folder.root / name), torch.Size((count, *self.data.input.shape))
        )

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """As `SpectrogramFiles` gives them."""
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        wanted = np.arange(len(self))[rows.numpy() if torch.is_tensor(rows) else rows]
        found = torch.empty(len(wanted), *self.shape[1:])
        for place, window in enumerate(wanted):
            row = int(np.searchsorted(self._ends, window, side="right"))
            found[place] = self.recording(row)[int(window - self._ends[row])]
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

    @property
    def device(self) -> torch.device:
        """Where the rows come to lie; all parts in memory lie there."""
        return getattr(self.parts[0], "device", torch.device("cpu"))

    def __getitem__(self, rows: int | slice | torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """As `SpectrogramFiles` gives them."""
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        wanted = torch.arange(len(self))[rows.cpu() if torch.is_tensor(rows) else rows]
        found, start = torch.empty(len(wanted), *self.shape[1:], device=self.device), 0
        for part in self.parts:
            of_part = (wanted >= start) & (wanted < start + len(part))
            found[of_part] = part[wanted[of_part] - start]
            start += len(part)
        return found


Spectrograms = torch.Tensor | SpectrogramFiles | WindowFiles | JoinedRows


def parts_of(spectrograms: Spectrograms) -> list[Spectrograms]:
    """The sources that rows come from, none of them joined."""
    if isinstance(spectrograms, JoinedRows):
        return [each for part in spectrograms.parts for each in parts_of(part)]
    return [spectrograms]


def is_here(spectrograms: Spectrograms) -> bool:
    """Whether rows are at hand: on the GPU, or in memory where there is none."""
    return all(
        torch.is_tensor(part) and (part.is_cuda or not torch.cuda.is_available()) for part in parts_of(spectrograms)
    )


def moved(spectrograms: Spectrograms, device: torch.device) -> torch.Tensor:
    """Rows that are all in memory, in one tensor on a device."""
    parts = [part.to(device) for part in parts_of(spectrograms) if torch.is_tensor(part)]
    return torch.cat(parts) if parts[1:] else parts[0]


def read_tensor(data: PreparedData, path: Path, shape: torch.Size) -> torch.Tensor:
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
