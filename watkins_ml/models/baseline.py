"""The compact baseline of the original study, trained from scratch."""

from __future__ import annotations

import torch
from torch import nn

from watkins_ml.config import BaselineModel

WIDTHS = (16, 32, 64, 128)


class BaselineCNN(nn.Module):
    """Four convolution blocks (16, 32, 64, 128 channels), global average pooling, one linear layer."""

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

    @classmethod
    def from_config(cls, config: BaselineModel, species: int, pretrained: bool) -> BaselineCNN:
        return cls(species, config.dropout)
