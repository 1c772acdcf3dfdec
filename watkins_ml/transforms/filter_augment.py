"""FilterAugment: a random equaliser."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from watkins_ml.transforms.recorder import standardised
from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


class FilterAugment(SpectrogramTransform):
    """Amplify and weaken bands at random, in straight lines between random frequencies: another recorder or distance.

    Nam et al. 2022, arXiv:2110.03282 (the linear type). It adds to decibels, so it is for the log frontend; with
    normalisation by band it changes nothing.
    """

    name: Literal["filter_augment"]
    gain: float = Field(default=0.7, gt=0, le=10)
    """The largest gain up or down, in standard deviations of a spectrogram (ten to twenty decibels)."""
    most_bands: int = Field(default=6, ge=2, le=100)
    """A spectrogram is divided into three to so many bands, or into two where that is 2."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        import torch

        spectrograms = batch.spectrograms
        count, mels = len(spectrograms), spectrograms.shape[-2]
        bands = torch.randint(min(3, self.most_bands), self.most_bands + 1, (count, 1), generator=generator)
        points = self.most_bands + 1  # the first `bands` + 1 are used: the edges, and between them sorted random ones
        inner = torch.arange(points) < bands
        edges = torch.rand(count, points, generator=generator).masked_fill(~inner, 2.0).sort(dim=1).values
        edges[:, 0] = 0.0
        edges = torch.where(torch.arange(points) >= bands, 1.0, edges) * (mels - 1)
        gains = (2 * torch.rand(count, points, generator=generator) - 1) * self.gain
        place = torch.arange(mels, dtype=torch.float32).expand(count, -1).contiguous()
        right = torch.searchsorted(edges, place).clamp(1, points - 1)
        low, high = edges.gather(1, right - 1), edges.gather(1, right)
        share = ((place - low) / (high - low).clamp(min=1e-3)).clamp(0, 1)
        curve = torch.lerp(gains.gather(1, right - 1), gains.gather(1, right), share)
        changed = spectrograms + curve.to(spectrograms.device)[:, None, :, None]
        return batch._replace(spectrograms=standardised(changed))
