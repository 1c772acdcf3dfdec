"""Random bandwidth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from watkins_ml.transforms.recorder import chosen, standardised, uniform
from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


EDGE = 2.0
"""Mel bands over which the sound fades out."""


class Bandwidth(SpectrogramTransform):
    """Take away what is above a random frequency, as a recorder of a lower rate would have.

    In an archive each species has its recorders and so its highest frequency; with this an empty band says nothing.
    """

    name: Literal["bandwidth"]
    lowest: float = Field(default=0.3, gt=0, lt=1)
    """The lowest such frequency, as a share of the mel bands."""
    probability: float = Field(default=0.5, gt=0, le=1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        import torch

        spectrograms = batch.spectrograms
        bands = torch.arange(spectrograms.shape[-2], device=spectrograms.device)[:, None]
        cut = uniform(len(spectrograms), self.lowest, 1.0, generator, spectrograms.device) * len(bands)
        present = ((cut - bands) / EDGE).clamp(0, 1)
        changed = torch.lerp(spectrograms.amin(dim=(-2, -1), keepdim=True), spectrograms, present)
        return batch._replace(spectrograms=chosen(standardised(changed), spectrograms, self.probability, generator))
