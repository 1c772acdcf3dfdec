"""EfficientNet-B0 on one-channel spectrograms, with frozen leading stages.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from watkins_ml.core.errors import UserError
from watkins_ml.models.family import Family
from watkins_ml.models.prototypes import HeadSection, PrototypeHead
from watkins_ml.models.weights import load_weights

FREEZE_STAGES = 9
"""EfficientNet-B0 has nine `features` stages; a freeze depth of nine trains the head only."""


class EfficientNetModel(HeadSection):
    """EfficientNet-B0, from scratch or from ImageNet weights."""

    name: Literal["efficientnet_b0"]
    weights: str
    """`imagenet` (torchvision's own download), `none`, or a local weights file."""
    freeze_depth: int = Field(ge=0, le=FREEZE_STAGES)
    """How many leading stages are frozen: 0 trains everything, as many as `stages` the head only."""
    stages: int = Field(default=FREEZE_STAGES, ge=1, le=FREEZE_STAGES)
    """How many stages there are before the head; the later ones know photographs rather than sounds."""
    pooling: Literal["mean", "mean_max"] = "mean"
    """What the head gets of each map of the last stage."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout before the last linear layer."""

    @model_validator(mode="after")
    def _possible(self) -> EfficientNetModel:
        if self.freeze_depth > self.stages:
            raise ValueError(f"freeze_depth is at most stages, {self.stages}, not {self.freeze_depth}")
        if self.head == "prototypes" and self.freeze_depth < self.stages:
            raise ValueError(f"head prototypes compares what frozen stages give; set freeze_depth to {self.stages}")
        return self


class SpectrogramEfficientNet(nn.Module):
    """torchvision's EfficientNet-B0; repeats the channel to three and replaces the last linear layer."""

    def __init__(self, config: EfficientNetModel, species: int):
        super().__init__()
        from torchvision.models import efficientnet_b0  # torchvision costs other families 2 s and 160 MiB

        self.features = efficientnet_b0(weights=None).features[: config.stages]
        self.with_maximum = config.pooling == "mean_max"
        channels = [each for each in self.features.modules() if isinstance(each, nn.BatchNorm2d)][-1].num_features
        pooled = channels * (1 + self.with_maximum)
        if config.head == "prototypes":
            self.dropout: nn.Module = nn.Identity()
            self.embedding_size = config.dimensions
            self.classifier: PrototypeHead | nn.Linear = PrototypeHead(pooled, species, config)
        else:
            self.dropout, self.embedding_size = nn.Dropout(config.dropout), pooled
            self.classifier = nn.Linear(pooled, species)
        self.frozen_stages = config.freeze_depth
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
        channels, height, width), or pooled (batch, channels) where all are frozen, for then that belongs to them."""
        x = spectrograms.expand(-1, 3, -1, -1)
        asked = spectrograms.requires_grad and torch.is_grad_enabled()  # by who explains an answer; no training does
        with torch.set_grad_enabled(asked):
            x = self._frozen(x)
            pooled = self.frozen_stages == len(self.features)
            return (self._pool(x) if pooled else x).float()  # the type in which it can be kept on disk

    def fit_input(self, batches: Iterable[torch.Tensor], labels: torch.Tensor, tapes: Sequence[str]) -> None:
        """What prototypes need of the training side's outputs of `prefix`; a linear layer needs nothing."""
        if isinstance(self.classifier, PrototypeHead):
            self.classifier.fit(batches, labels, tapes)

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to pooled maps (batch, channels), or directions (batch, dimensions)."""
        return self._embedded(self.prefix(spectrograms))

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """What `embed` gives to logits (batch, species)."""
        return self.classifier(self.dropout(embeddings))

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        """What `prefix` gives to logits (batch, species); the only part that trains."""
        return self.head(self._embedded(features))

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to logits (batch, species)."""
        return self.tail(self.prefix(spectrograms))

    def _embedded(self, features: torch.Tensor) -> torch.Tensor:
        if self.frozen_stages < len(self.features):
            features = self._pool(self.features[self.frozen_stages :](features))
        return self.classifier.units(features) if isinstance(self.classifier, PrototypeHead) else features

    def _pool(self, maps: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width) to (batch, channels), or twice as many with the maxima."""
        mean = maps.mean(dim=(2, 3))
        return torch.cat([mean, maps.amax(dim=(2, 3))], dim=1) if self.with_maximum else mean


def build_efficientnet(config: EfficientNetModel, species: int, pretrained: bool) -> SpectrogramEfficientNet:
    model = SpectrogramEfficientNet(config, species)
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
    left_out = tuple(f"features.{stage}." for stage in range(len(model.features), FREEZE_STAGES))
    given = {name: tensor for name, tensor in given.items() if not (left_out and name.startswith(left_out))}
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
