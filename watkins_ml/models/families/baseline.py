"""The compact baseline of the original study, trained from scratch."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from watkins_ml.models.family import Family, ModelSection

WIDTHS = (16, 32, 64, 128)


class BaselineModel(ModelSection):
    """The compact CNN of the original study, trained from scratch."""

    name: Literal["baseline"]
    dropout: float = Field(ge=0, lt=1)
    """Dropout before the last linear layer."""


class BaselineCNN(nn.Module):
    """Four convolution blocks (16, 32, 64, 128 channels), global average pooling, one linear layer."""

    embedding_size = WIDTHS[-1]

    def __init__(self, species: int, dropout: float):
        super().__init__()
        channels = (1, *WIDTHS)
        self.features = nn.Sequential(
            *(self._block(before, after) for before, after in zip(channels, WIDTHS, strict=False))
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(WIDTHS[-1], species)

    @staticmethod
    def _block(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.MaxPool2d(2),
            nn.ReLU(inplace=True),  # the same as before the pooling, on a quarter of the numbers
        )

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to pooled maps (batch, 128)."""
        channels_last = spectrograms.squeeze(1).unsqueeze(-1).movedim(-1, 1)  # with one channel torch cannot tell
        return self.features(channels_last).mean(dim=(2, 3))

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """What `embed` gives to logits (batch, species)."""
        return self.classifier(self.dropout(embeddings))

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to logits (batch, species)."""
        return self.head(self.embed(spectrograms))

    @property
    def explained_layer(self) -> nn.Module:
        return self.features[-1]

    @property
    def stages(self) -> list[nn.Module]:
        return [*self.features, self.classifier]


def build(config: BaselineModel, species: int, pretrained: bool) -> BaselineCNN:
    return BaselineCNN(species, config.dropout)


FAMILY = Family("baseline", "Baseline", "watkins-baseline", BaselineModel, build)
