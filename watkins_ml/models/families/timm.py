"""Any backbone of the timm library (Wightman 2019, PyTorch Image Models) on one-channel spectrograms.

timm is an optional extra, imported only when such a network is built.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import nn

from watkins_ml.core.errors import UserError, first_line
from watkins_ml.core.text import shown
from watkins_ml.models.family import Family, ModelSection
from watkins_ml.models.weights import load_weights


class TimmModel(ModelSection):
    """A backbone of the timm library (`pip install 'watkins-ml[timm]'`), from scratch or from pretrained weights."""

    name: Literal["timm"]
    backbone: str = Field(min_length=1, max_length=200)
    """timm's name of the architecture, for example `resnet18` or `convnext_atto.d2_in1k`."""
    weights: str
    """`pretrained` (timm's own download), `none`, or a local weights file."""
    freeze_depth: int = Field(ge=0, le=1000)
    """How many of timm's leading stage groups are frozen (the stem is the first): 0 trains everything."""
    dropout: float = Field(ge=0, lt=1)
    """Dropout before the last linear layer."""


class TimmNetwork(nn.Module):
    """A timm backbone with its own pooling, then dropout and one linear layer."""

    backbone: Any
    """Of timm, whose modules have methods that `nn.Module` does not promise."""

    def __init__(self, backbone: Any, name: str, species: int, dropout: float, frozen: list[list[str]]):
        """`frozen` has the names of the modules of each frozen stage group."""
        super().__init__()
        self.backbone, self.name = backbone, name
        self.embedding_size: int = getattr(backbone, "head_hidden_size", backbone.num_features)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(self.embedding_size, species)
        self._frozen = [backbone.get_submodule(module) for group in frozen for module in group]
        trained = {id(parameter) for parameter in backbone.parameters()}
        for module in self._frozen:
            module.requires_grad_(False)
            trained -= {id(parameter) for parameter in module.parameters()}
        self.frozen_stages = 0 if trained else len(frozen)  # only the outputs of a whole backbone can be cached

    def train(self, mode: bool = True) -> TimmNetwork:
        """Frozen modules stay in eval mode: a trained BatchNorm would go on to move its statistics."""
        super().train(mode)
        for module in [self.backbone] if self.frozen_stages else self._frozen:
            module.eval()
        return self

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to the backbone's pooled features (batch, embedding_size)."""
        try:
            features = self.backbone.forward_features(spectrograms)
        except AssertionError as error:  # by which timm's transformers refuse images of other sizes
            size = "{} × {}".format(*spectrograms.shape[2:])
            raise UserError(
                f"model.backbone {self.name}: does not take spectrograms of {size} ({first_line(error)}); choose a "
                "backbone of convolutions"
            ) from None
        return self.backbone.forward_head(features, pre_logits=True)

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """What `embed` gives to logits (batch, species)."""
        return self.classifier(self.dropout(embeddings))

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to logits (batch, species)."""
        return self.head(self.embed(spectrograms))

    def prefix(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """Of a frozen backbone: (batch, 1, n_mels, frames) to float32 embeddings (batch, embedding_size)."""
        return self.embed(spectrograms).float()

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features)

    def frozen_tensors(self) -> dict[str, torch.Tensor]:
        """The part of the state dict that no training changes, where it is the whole backbone."""
        state = self.backbone.state_dict() if self.frozen_stages else {}
        return {f"backbone.{name}": tensor for name, tensor in state.items()}

    @property
    def explained_layer(self) -> nn.Module | None:
        """The last stage; None for transformers, whose tokens are no maps."""
        is_map = not hasattr(self.backbone, "num_prefix_tokens") and self._format == "NCHW"
        return self.backbone.get_submodule(self.backbone.feature_info[-1]["module"]) if is_map else None

    @property
    def _format(self) -> str:
        return str(getattr(self.backbone, "output_fmt", "NCHW"))


def build(config: TimmModel, species: int, pretrained: bool) -> TimmNetwork:
    """Raises a UserError: timm is missing or knows no such backbone, or the weights do not fit."""
    try:
        import timm
    except ImportError:
        raise UserError("model.name timm: the timm library is missing; pip install 'watkins-ml[timm]'") from None
    if not timm.is_model(config.backbone.split(".")[0]):
        nearest = difflib.get_close_matches(config.backbone, timm.list_models(), n=3)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else ""
        raise UserError(f"model.backbone {shown(config.backbone)}: timm {timm.__version__} knows no such name{hint}")
    backbone = _backbone(config, pretrained and config.weights != "none")
    groups = timm.models.group_modules(backbone, backbone.group_matcher(coarse=True))
    if config.freeze_depth > len(groups):
        raise UserError(
            f"model.freeze_depth {config.freeze_depth}: {config.backbone} has {len(groups)} stage groups; give 0 to "
            f"{len(groups)}"
        )
    frozen = [groups[number] for number in sorted(groups)[: config.freeze_depth]]
    return TimmNetwork(backbone, config.backbone, species, config.dropout, frozen)


def _backbone(config: TimmModel, with_weights: bool) -> Any:
    import timm

    options: dict[str, Any] = {"in_chans": 1, "num_classes": 0, "pretrained": with_weights}
    given: dict[str, torch.Tensor] | None = None
    if with_weights and config.weights != "pretrained":  # timm itself would unpickle a file
        given = load_weights(Path(config.weights), "pretrained")
        options["pretrained_cfg_overlay"] = {"state_dict": given}
    try:
        try:
            backbone = timm.create_model(config.backbone, **options, dynamic_img_size=True)
        except TypeError:  # only transformers have to be told that sizes differ
            backbone = timm.create_model(config.backbone, **options)
        own = {name for name in backbone.state_dict() if not name.endswith("num_batches_tracked")}
        if given is not None and (missing := sorted(own - set(given))):  # which timm leaves at random
            raise ValueError(f"{len(missing)} tensors are missing, for example {missing[0]}")
        return backbone
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"model.weights {config.weights}: cannot be had for {config.backbone} ({first_line(error)}); give another "
            "local file, or train from scratch with -o model.weights=none"
        ) from None


FAMILY = Family("timm", "timm backbone", "watkins-timm", TimmModel, build)
