"""The table of models: a configuration and a number of species in, a network out."""

from __future__ import annotations

from torch import nn

from watkins_ml.config import BaselineModel, EfficientNetModel
from watkins_ml.models.baseline import BaselineCNN


def _efficientnet(config: EfficientNetModel, species: int, pretrained: bool) -> nn.Module:
    from watkins_ml.models.efficientnet import build_efficientnet  # torchvision costs a baseline 2 s and 160 MiB

    return build_efficientnet(config, species, pretrained)


BUILDERS = {"baseline": BaselineCNN.from_config, "efficientnet_b0": _efficientnet}


def build_model(config: BaselineModel | EfficientNetModel, species: int, pretrained: bool = True) -> nn.Module:
    """Build an untrained (or ImageNet-pretrained) network.

    Args:
        species: number of classes.
        pretrained: False skips the weights of `config`, for a network whose own state is loaded next.

    Returns:
        a network from spectrograms (batch, 1, n_mels, frames) to logits (batch, species), also in two steps: `embed`
        and `head`.
    """
    return BUILDERS[config.name](config, species, pretrained)
