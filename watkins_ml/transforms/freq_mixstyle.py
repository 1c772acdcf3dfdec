"""Freq-MixStyle."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from watkins_ml.transforms.recorder import chosen, others
from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


class FreqMixStyle(SpectrogramTransform):
    """Give each band a mean and deviation between its own and those of another recording of the batch.

    These say much about the recorder and the place, and little about the call. Kim et al. 2022, arXiv:2206.12513, after
    Zhou et al. 2021, arXiv:2104.02008. Labels stay.
    """

    name: Literal["freq_mixstyle"]
    alpha: float = Field(default=0.3, gt=0, le=1000)
    """Of the beta distribution that the proportion of each recording is drawn from."""
    probability: float = Field(default=0.5, gt=0, le=1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        import torch

        spectrograms = batch.spectrograms
        shares = torch.distributions.Beta(self.alpha, self.alpha).sample((len(spectrograms), 1, 1, 1))
        mean = spectrograms.mean(dim=-1, keepdim=True)
        deviation = spectrograms.std(dim=-1, keepdim=True) + 1e-3
        statistics = torch.cat([mean, deviation], dim=-1)
        mixed = torch.lerp(others(statistics, generator), statistics, shares.to(spectrograms.device))
        changed = (spectrograms - mean) / deviation * mixed[..., 1:] + mixed[..., :1]
        return batch._replace(spectrograms=chosen(changed, spectrograms, self.probability, generator))
