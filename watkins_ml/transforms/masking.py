"""Masks of random width, as the policies of SpecAugment have them (Park et al. 2019, arXiv:1904.08779)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


class Mask(SpectrogramTransform):
    """What masks of both axes share; a mask is 0, the mean of every spectrogram."""

    axis: ClassVar[int]
    width: int
    """The largest width of a mask; the widths are uniform from 0 to it."""
    count: int = Field(default=2, ge=1, le=100)
    """Masks in each spectrogram."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        from torchaudio.functional import mask_along_axis_iid

        spectrograms = batch.spectrograms
        width = min(self.width, spectrograms.shape[self.axis])
        for _ in range(self.count):
            spectrograms = mask_along_axis_iid(spectrograms, width, 0.0, self.axis)
        return batch._replace(spectrograms=spectrograms)
