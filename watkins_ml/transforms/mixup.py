"""Mixup."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch


class Mixup(SpectrogramTransform):
    """Mix each recording with its neighbour in the batch, and their labels in the same proportion.

    Zhang et al. 2018, arXiv:1710.09412.
    """

    name: Literal["mixup"]
    alpha: float = Field(gt=0, le=1000)
    """Of the beta distribution that the proportion is drawn from, once a batch; 0.2 is usual."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        from torchvision.transforms.v2 import MixUp  # torchvision costs a baseline 2 s and 160 MiB

        spectrograms, labels = MixUp(alpha=self.alpha, num_classes=batch.species)(batch.spectrograms, batch.labels)
        return batch._replace(spectrograms=spectrograms, labels=labels)
