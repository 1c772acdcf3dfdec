"""EfficientNet-B0 on one-channel spectrograms, with frozen leading stages.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from watkins_ml.core.errors import UserError
from watkins_ml.models.family import Family, ModelSection
from watkins_ml.models.weights import load_weights

FREEZE_STAGES = 9
"""EfficientNet-B0 has nine `features` stages; a freeze depth of nine trains the head only."""


class EfficientNetModel(ModelSection):
    """EfficientNet-B0, from scratch or from ImageNet weights."""

    name: Literal["efficientnet_b0"]
    weights: str
    """`imagenet` (torchvision's own download), `none`, or a local weights file."""
    freeze_depth: int = Field(ge=0, le=FREEZE_STAGES)
    """How many leading stages are frozen: 0 trains everything, 9 the head only."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout before the last linear layer."""


class SpectrogramEfficientNet(nn.Module):
    """torchvision's EfficientNet-B0; repeats the channel to three and replaces the last linear layer."""

    def __init__(self, species: int, dropout: float, freeze_depth: int):
        super().__init__()
        from torchvision.models import efficientnet_b0  # torchvision costs other families 2 s and 160 MiB

        network = efficientnet_b0(weights=None)
        self.features = network.features
        self.dropout = nn.Dropout(dropout)
        self.embedding_size: int = network.classifier[-1].in_features
        self.classifier = nn.Linear(self.embedding_size, species)
        self.frozen_stages = freeze_depth
        for stage in self._frozen:
            stage.requires_grad_(False)

    @property
    def explained_layer(self) -> nn.Module:
        return self.features[-1]

    @property
    def stages(self) -> list[nn.Module]:
        return [*self.features, self.classifier]

    @property
    def _frozen(self) -> nn.Sequential:
        return self.features[: self.frozen_stages]

    def train(self, mode: bool = True) -> SpectrogramEfficientNet:
        """Frozen stages stay in eval mode: a trained BatchNorm would go on to move its statistics."""
        super().train(mode)
        self._frozen.eval()
        return self

    def frozen_tensors(self) -> dict[str, torch.Tensor]:
        """The part of the state dict that no training changes."""
        return {f"features.{name}": tensor for name, tensor in self._frozen.state_dict().items()}

    def prefix(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """What the frozen stages make of (batch, 1, n_mels, frames), the same in every epoch: float32 (batch,
        channels, height, width), or (batch, 1280) where all are frozen, for then the pooling belongs to them."""
        x = spectrograms.expand(-1, 3, -1, -1)
        asked = spectrograms.requires_grad and torch.is_grad_enabled()  # by who explains an answer; no training does
        with torch.set_grad_enabled(asked):
            x = self._frozen(x)
            pooled = self.frozen_stages == FREEZE_STAGES
            return (x.mean(dim=(2, 3)) if pooled else x).float()  # the type in which it can be kept on disk

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to pooled maps (batch, 1280)."""
        return self._pooled(self.prefix(spectrograms))

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """What `embed` gives to logits (batch, species)."""
        return self.classifier(self.dropout(embeddings))

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        """What `prefix` gives to logits (batch, species); the only part that trains."""
        return self.head(self._pooled(features))

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to logits (batch, species)."""
        return self.tail(self.prefix(spectrograms))

    def _pooled(self, features: torch.Tensor) -> torch.Tensor:
        if self.frozen_stages == FREEZE_STAGES:
            return features
        return self.features[self.frozen_stages :](features).mean(dim=(2, 3))


def build_efficientnet(config: EfficientNetModel, species: int, pretrained: bool) -> SpectrogramEfficientNet:
    model = SpectrogramEfficientNet(species, config.dropout, config.freeze_depth)
    if pretrained and config.weights != "none":
        state = _imagenet() if config.weights == "imagenet" else load_weights(Path(config.weights), "imagenet")
        _load_features(model, state, config.weights)
    return model


def _imagenet() -> dict[str, torch.Tensor]:
    """torchvision's own download, kept in torch's hub cache."""
    from torchvision.models import EfficientNet_B0_Weights

    try:
        return EfficientNet_B0_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights imagenet: the download failed ({error}); give a local file with "
            "-o model.weights=FILE, or train from scratch with -o model.weights=none"
        ) from None


def _load_features(model: SpectrogramEfficientNet, state: dict[str, torch.Tensor], source: str) -> None:
    """Load every `features.*` tensor or none, saying which do not fit."""
    own = {f"features.{name}": tensor for name, tensor in model.features.state_dict().items()}
    counters = {name for name in own if name.endswith("num_batches_tracked")}
    given = {name: tensor for name, tensor in state.items() if name.startswith("features.")}
    problems = [f"{name} is missing" for name in own if name not in given and name not in counters]
    problems += [f"{name} is not of EfficientNet-B0" for name in given if name not in own]
    problems += [
        f"{name} has shape {tuple(tensor.shape)}, not {tuple(own[name].shape)}"
        for name, tensor in given.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"model.weights {source} does not fit EfficientNet-B0: {'; '.join(problems[:5])}{more}")
    model.load_state_dict(given, strict=False)


FAMILY = Family("efficientnet_b0", "EfficientNet-B0", "watkins-efficientnet", EfficientNetModel, build_efficientnet)
