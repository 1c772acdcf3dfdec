"""What every frontend does with audio files, whatever tensor it makes of a waveform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from watkins_ml.audio.decode import Recording, read_recording
from watkins_ml.audio.settings import MOST_WINDOWS


class FileFrontend(ABC):
    """From waveform to a float32 tensor of `settings.shape`, and so from files to tensors."""

    settings: Any
    """`encoder_settings.Settings`; of each frontend its own."""

    @abstractmethod
    def __call__(self, waveform: np.ndarray, native_rate: int) -> torch.Tensor:
        """Tensor of the first `settings.seconds` of `waveform`, shape (samples,), at `native_rate` Hz."""

    def file(self, path: Path | BinaryIO) -> torch.Tensor:
        """Tensor of the centre of an audio file; raises AudioError as `read_recording` does."""
        return self.recording(self.read(path))

    def file_windows(self, path: Path | BinaryIO) -> torch.Tensor:
        """By which tensors a file is classified, see `windows`; raises AudioError as `read_recording` does."""
        return self.windows(self.read(path, MOST_WINDOWS))

    def read(self, path: Path | BinaryIO, most_windows: int = 1) -> Recording:
        """Decode the part of a file that its tensor (and its windows) need, checking all of it."""
        return read_recording(path, self.settings.seconds, most_windows, slack_s=self.settings.slack_s)

    def recording(self, recording: Recording) -> torch.Tensor:
        return self(recording.waveform, recording.sample_rate)

    def windows(self, recording: Recording) -> torch.Tensor:
        """Tensors of a recording from beginning to end, (n, *settings.shape); of a short one just one."""
        excerpts = recording.windows or (recording.waveform,)
        return torch.stack([self(excerpt, recording.sample_rate) for excerpt in excerpts])

    def centre_and_windows(self, recording: Recording) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As `recording` and `windows` (None where there is only one) give them, and none is computed twice."""
        if not recording.windows:
            return self.recording(recording), None
        windows = self.windows(recording)
        central = [tensor for part, tensor in zip(recording.windows, windows, strict=True)
                   if part is recording.waveform]  # fmt: skip
        return (central[0].clone() if central else self.recording(recording)), windows
