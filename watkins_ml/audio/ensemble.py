"""The frontend of an ensemble: what the frontends of its members make of one waveform, in one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from watkins_ml.audio.ensemble_settings import EnsembleSettings
from watkins_ml.audio.files import FileFrontend


class EnsembleFrontend(FileFrontend):
    """Mono waveform at any native rate to a float32 tensor of shape (1, 1, D): those of the members, flattened.

    Each member resamples the waveform for itself.
    """

    def __init__(self, settings: EnsembleSettings, frontends: Sequence[FileFrontend]):
        """`frontends` are of `settings.frontends`, in their order; raises a ValueError where they are not."""
        if [each.settings for each in frontends] != list(settings.frontends):
            raise ValueError("these are not the frontends of the members")
        self.settings: EnsembleSettings = settings
        self.frontends = list(frontends)

    def __call__(self, waveform: np.ndarray, native_rate: int) -> torch.Tensor:
        """Tensor of the first `settings.seconds` of `waveform`, shape (samples,), at `native_rate` Hz."""
        heard = waveform[: max(1, round(self.settings.seconds * native_rate))]
        parts = [frontend(heard, native_rate).flatten() for frontend in self.frontends]
        return torch.cat(parts).view(self.settings.shape)
