"""EfficientNet-B0 on one-channel spectrograms, with frozen leading stages.

Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, ICML 2019.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torchvision.models import EfficientNet_B0_Weights, efficientnet_b0

from watkins_ml.config import FREEZE_STAGES, EfficientNetModel
from watkins_ml.core.errors import UserError
from watkins_ml.core.tensor_files import why


class SpectrogramEfficientNet(nn.Module):
    """torchvision's EfficientNet-B0; repeats the channel to three and replaces the last linear layer."""

    def __init__(self, species: int, dropout: float, freeze_depth: int):
        super().__init__()
        network = efficientnet_b0(weights=None)
        self.features = network.features
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(network.classifier[-1].in_features, species)
        self.freeze_depth = freeze_depth
        for stage in self.frozen_stages:
            stage.requires_grad_(False)

    @property
    def frozen_stages(self) -> nn.Sequential:
        return self.features[: self.freeze_depth]

    def train(self, mode: bool = True) -> SpectrogramEfficientNet:
        """Frozen stages stay in eval mode: a trained BatchNorm would go on to move its statistics."""
        super().train(mode)
        self.frozen_stages.eval()
        return self

    def frozen_tensors(self) -> dict[str, torch.Tensor]:
        """The part of the state dict that no training changes."""
        return {f"features.{name}": tensor for name, tensor in self.frozen_stages.state_dict().items()}

    def prefix(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """What the frozen stages make of (batch, 1, n_mels, frames), the same in every epoch: float32 (batch,
        channels, height, width), or (batch, 1280) where all are frozen, for then the pooling belongs to them."""
        x = spectrograms.expand(-1, 3, -1, -1)
        asked = spectrograms.requires_grad and torch.is_grad_enabled()  # by who explains an answer; no training does
        with torch.set_grad_enabled(asked):
            x = self.frozen_stages(x)
            pooled = self.freeze_depth == FREEZE_STAGES
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
        if self.freeze_depth == FREEZE_STAGES:
            return features
        return self.features[self.freeze_depth :](features).mean(dim=(2, 3))


def build_efficientnet(config: EfficientNetModel, species: int, pretrained: bool) -> SpectrogramEfficientNet:
    model = SpectrogramEfficientNet(species, config.dropout, config.freeze_depth)
    if pretrained and config.weights != "none":
        state = _imagenet() if config.weights == "imagenet" else _local(Path(config.weights))
        _load_features(model, state, config.weights)
    return model


def _imagenet() -> dict[str, torch.Tensor]:
    """torchvision's own download, kept in torch's hub cache."""
    try:
        return EfficientNet_B0_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"model.weights imagenet: the download failed ({error}); give a local file with "
            "-o model.weights=FILE, or train from scratch with -o model.weights=none"
        ) from None


def _local(path: Path) -> dict[str, torch.Tensor]:
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device has no end
        raise UserError(f"model.weights {path}: not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"model.weights {path}: no such file (or write imagenet or none)") from None
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        raise UserError(f"model.weights {path}: not a weights file that can be loaded safely ({why(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"model.weights {path}: expected a state dict of tensors")
    return state


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
