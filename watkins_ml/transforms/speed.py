"""Playback speed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from watkins_ml.transforms.mel_scale import frequencies, frontend_of, places
from watkins_ml.transforms.recorder import chosen, not_below, standardised, uniform
from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


class Speed(SpectrogramTransform):
    """Play some recordings slower or faster: pitch and tempo change together, as on a tape at another speed.

    Each frequency is multiplied by the speed, on the mel scale of the prepared data. What then lies outside the
    recorded band is filled with the spectrogram's lowest value. A fast recording begins anew at its end; of a slow one
    the middle remains. The logarithm of the speed is uniform. Far from 1 a species may sound like another one. Ko et
    al. 2015, Audio augmentation for speech recognition, Interspeech.
    """

    name: Literal["speed"]
    slowest: float = Field(default=0.8, ge=0.125, le=8)
    """The lowest speed; 1 is as recorded."""
    fastest: Annotated[float, not_below("slowest")] = Field(default=1.25, validate_default=True, ge=0.125, le=8)
    """The highest speed."""
    probability: float = Field(default=0.5, gt=0, le=1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        spectrograms = batch.spectrograms
        logarithms = uniform(
            len(spectrograms), math.log(self.slowest), math.log(self.fastest), generator, spectrograms.device
        )
        changed = played(spectrograms, logarithms.exp().flatten(), batch)
        return batch._replace(spectrograms=chosen(standardised(changed), spectrograms, self.probability, generator))


def played(spectrograms: torch.Tensor, speeds: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Spectrograms (batch, 1, n_mels, frames) at speeds (batch,), not standardised."""
    import torch

    bands, frames = spectrograms.shape[-2:]
    settings, speeds = frontend_of(batch), speeds[:, None]
    start = (1 - speeds).clamp(min=0) * (frames - 1) / 2
    at = (start + speeds * torch.arange(frames, device=speeds.device)) % frames
    before = at.long().clamp(max=frames - 1)
    index = (each[:, None, None, :].expand_as(spectrograms) for each in (before, (before + 1) % frames))
    earlier, later = (spectrograms.gather(-1, each) for each in index)
    in_time = torch.lerp(earlier, later, (at - before)[:, None, None, :])

    hertz = frequencies(settings, bands)[1:-1].to(speeds.device)
    band = places(hertz / speeds, settings, bands)
    below = band.long().clamp(0, bands - 1)
    index = (each[:, None, :, None].expand_as(spectrograms) for each in (below, (below + 1).clamp(max=bands - 1)))
    lower, higher = (in_time.gather(-2, each) for each in index)
    moved = torch.lerp(lower, higher, (band - below).clamp(0, 1)[:, None, :, None])
    is_recorded = ((band >= -1) & (band <= bands))[:, None, :, None]
    return torch.where(is_recorded, moved, spectrograms.amin(dim=(-2, -1), keepdim=True))
