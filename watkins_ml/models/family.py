"""What a family of models is, and what the rest of the program asks of its networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from watkins_ml.audio.any_settings import OwnSettings
from watkins_ml.audio.encoder_settings import EncoderSettings
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.section import Section

if TYPE_CHECKING:
    import torch
    from torch import nn

    from watkins_ml.audio.files import FileFrontend


class ModelSection(Section):
    """The section `model` of a recipe; each family adds its own keys, and says `name: Literal["..."]`."""

    name: str

    @property
    def for_labels(self) -> bool:
        """Whether its networks can learn to answer any number of species a recording."""
        return True


class Network(Protocol):
    """An `nn.Module` from spectrograms (batch, 1, n_mels, frames) to logits (batch, species), in two steps.

    A network whose leading stages are frozen is a `PrefixedNetwork` too, so that their outputs can be cached.
    """

    embedding_size: int

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, n_mels, frames) to embeddings (batch, embedding_size)."""
        ...

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Embeddings to logits (batch, species)."""
        ...

    @property
    def explained_layer(self) -> nn.Module | None:
        """The layer whose maps (batch, channels, height, width) Grad-CAM weighs; None where there are no maps."""
        ...


@runtime_checkable
class PrefixedNetwork(Protocol):
    """A network with `frozen_stages` leading stages that no training changes; 0 freezes nothing."""

    frozen_stages: int

    def prefix(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """The frozen stages' float32 outputs: (batch, channels, height, width), or (batch, channels) once pooled."""
        ...

    def tail(self, features: torch.Tensor) -> torch.Tensor:
        """What `prefix` gives to logits (batch, species); the only part that trains."""
        ...

    def frozen_tensors(self) -> dict[str, torch.Tensor]:
        """The part of the state dict that no training changes; with `frozen_stages` the key of cached outputs."""
        ...


@runtime_checkable
class StagedNetwork(Protocol):
    """A network whose stages can learn at rates of their own (`optim.layer_decay`)."""

    @property
    def stages(self) -> Sequence[nn.Module]:
        """From the input to the head; together they have all trainable parameters, each once."""
        ...


@runtime_checkable
class FittedNetwork(Protocol):
    """A network that takes from the training data, before it trains, what no gradient changes."""

    def fit_input(self, batches: Iterable[torch.Tensor], labels: torch.Tensor, tapes: Sequence[str]) -> None:
        """Batches of the training side, each recording once, in the order of `labels` and `tapes`: (batch, 1, n_mels,
        frames), or what `prefix` makes of it where the network has one."""
        ...


@dataclass(frozen=True)
class OwnInput:
    """How a family makes what its networks get from the recordings themselves, instead of the prepared spectrograms.

    Each function takes the section `model` first.
    """

    settings: Callable[[Any], OwnSettings]
    """Of the frontend; raises a UserError where what it needs is missing."""
    open: Callable[[Any, Any, Path | None], FileFrontend]
    """The frontend; of a model, whose folder is given, with the files that were saved in it."""
    files: Callable[[Any, Any], dict[str, bytes]]
    """What has to be saved with a model, by the names in `bundle_files.PARTS`."""
    requirements: Callable[[Any], list[str]]
    """Packages by name that the frontend needs, beside those that the family's modules import."""
    licence: Callable[[Any], str | None]
    """Licence of what was trained elsewhere, where one is known; it goes with every model."""
    transforms: tuple[str, ...] = ("mixup", "random_excerpt")
    """Those of training batches, by name, that make sense for its tensors."""
    settings_type: type[OwnSettings] = EncoderSettings
    """What `settings` gives."""


@dataclass(frozen=True)
class Family:
    """A kind of model: how it is configured, built, named and shown."""

    name: str
    """`model.name` in a recipe."""
    title: str
    """What reports and pages call it."""
    registered_name: str
    """Name of the registered model in its recipes."""
    config: type[ModelSection]
    """The section `model`; its field `name` is a Literal of `name`."""
    build: Callable[[Any, int, bool], nn.Module]
    """A configuration, the number of species, and whether to load pretrained weights, to a `Network`."""
    frontend: FrontendSettings | None = None
    """The only spectrograms that its networks take; None: any."""
    own_input: OwnInput | None = None
    """None: its networks take spectrograms."""
    members: Callable[[Any], list[ModelSection]] | None = None
    """Of a family whose models are made of trained ones, and not trained: the sections `model` of these."""


def frozen_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that no training of a network changes, by name in its state dict."""
    return network.frozen_tensors() if isinstance(network, PrefixedNetwork) else {}
