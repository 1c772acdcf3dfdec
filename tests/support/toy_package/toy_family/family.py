"""A family of another package: one linear layer on the means of bands."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from watkins_ml.models.family import Family, ModelSection

from .pooling import band_means


class ToyModel(ModelSection):
    """Means of bands under a logistic regression."""

    name: Literal["toy"]
    scale: float = Field(default=1.0, gt=0)
    """What the means are multiplied by."""


class ToyNetwork(nn.Module):
    embedding_size = 16
    explained_layer = None

    def __init__(self, species: int, scale: float):
        super().__init__()
        self.scale = scale
        self.classifier = nn.Linear(self.embedding_size, species)

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        return self.scale * band_means(spectrograms)

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        return self.classifier(embeddings)

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(spectrograms))


def build(config: ToyModel, species: int, pretrained: bool) -> ToyNetwork:
    return ToyNetwork(species, config.scale)


FAMILY = Family("toy", "Toy", "watkins-toy", ToyModel, build)
