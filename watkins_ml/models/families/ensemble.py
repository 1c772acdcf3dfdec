"""An ensemble of trained models of any families: the mean of their calibrated log-probabilities.

That is the normalised geometric mean of their probabilities, the logarithmic opinion pool (Genest and Zidek, Combining
probability distributions, Statistical Science 1986). Each member is calibrated first by its own temperature, so that no
member outvotes the others by mere overconfidence. Nothing is trained: `watkins ensemble` makes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, cast

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, ValidationError, model_validator
from torch import nn
from torch.nn.functional import log_softmax

from watkins_ml.audio.encoder_settings import EncoderSettings
from watkins_ml.audio.ensemble import EnsembleFrontend
from watkins_ml.audio.ensemble_settings import MOST_MEMBERS, EnsembleSettings, MemberSettings
from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.frontend import Frontend
from watkins_ml.core.errors import UsageError
from watkins_ml.core.section import Section
from watkins_ml.models.bundle_files import MEMBERS
from watkins_ml.models.family import Family, ModelSection, Network, OwnInput
from watkins_ml.models.registry import build_model, family, licence_of


def _section(given: Any) -> Any:
    """The section `model` of a member, validated by its family."""
    if not isinstance(given, dict):
        return given
    try:
        return family(str(given.get("name"))).config.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except UsageError as error:
        raise ValueError(str(error)) from None


class MemberModel(Section):
    """One of the models that an ensemble is made of."""

    model: Annotated[SerializeAsAny[ModelSection], BeforeValidator(_section)]
    """Its section `model`."""
    frontend: MemberSettings
    temperature: float | None = Field(gt=0)
    """What its logits are divided by; null in the record of a cross-validation, where each fold has its own."""


class EnsembleModel(ModelSection):
    """Trained models together; `watkins ensemble` makes it of them."""

    name: Literal["ensemble"]
    members: list[MemberModel] = Field(min_length=2, max_length=MOST_MEMBERS)
    """The models, each with its section `model`, its frontend and its temperature."""

    @model_validator(mode="after")
    def _possible(self) -> EnsembleModel:
        for number, each in enumerate(self.members, start=1):
            of_family = family(each.model.name)
            if of_family.members is not None:
                raise ValueError(f"member {number} is an {each.model.name} itself; name the models that it is made of")
            if (of_family.own_input is not None) != isinstance(each.frontend, EncoderSettings):
                raise ValueError(f"member {number} has a frontend of another kind than its family needs")
        self.settings()
        return self

    def settings(self) -> EnsembleSettings:
        """Of the frontend."""
        return EnsembleSettings(frontends=tuple(dict.fromkeys(each.frontend for each in self.members)))


class Ensemble(nn.Module):
    """The members' networks side by side, each on its part of a tensor."""

    explained_layer = None
    temperatures: torch.Tensor
    scales: torch.Tensor

    def __init__(
        self,
        members: list[nn.Module],
        places: list[slice],
        shapes: list[tuple[int, int, int]],
        temperatures: list[float],
    ):
        """`places` and `shapes`: where in the last dimension of a tensor each member's own is, and its shape."""
        super().__init__()
        self.members = nn.ModuleList(members)
        self.places, self.shapes = places, shapes
        self.sizes = [cast(Network, member).embedding_size for member in members]
        self.embedding_size = sum(self.sizes)
        self.register_buffer("temperatures", torch.tensor(temperatures))
        self.register_buffer("scales", torch.ones(len(members)))

    def fit_input(self, batches: Iterable[torch.Tensor], labels: torch.Tensor, tapes: Sequence[str]) -> None:
        """Let the embeddings of all members be about equally long over batches (batch, 1, 1, numbers).

        Else the longest alone would say what is near to what. The factors are powers of two, which round nothing.
        """
        self.scales.fill_(1.0)
        lengths, count = torch.zeros(len(self.sizes)), 0
        with torch.inference_mode():
            for batch in batches:
                parts = self.embed(batch.to(self.scales.device)).split(self.sizes, dim=1)
                lengths += torch.stack([part.norm(dim=1).sum().cpu() for part in parts])
                count += len(batch)
        means = (lengths / max(count, 1)).clamp(min=2.0**-60)
        self.scales.copy_(2.0 ** -means.log2().round())

    def embed(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 1, numbers) to the members' embeddings one after the other, (batch, embedding_size)."""
        numbers = spectrograms.flatten(start_dim=1)
        parts = [
            cast(Network, member).embed(numbers[:, place].reshape(-1, *shape)) * scale
            for member, place, shape, scale in zip(self.members, self.places, self.shapes, self.scales, strict=True)
        ]
        return torch.cat(parts, dim=1)

    def head(self, embeddings: torch.Tensor) -> torch.Tensor:
        """What `embed` gives to the mean of the members' calibrated log-probabilities, (batch, species)."""
        parts = embeddings.split(self.sizes, dim=1)
        logits = [
            cast(Network, member).head(part / scale) / temperature
            for member, part, scale, temperature in zip(
                self.members, parts, self.scales, self.temperatures, strict=True
            )
        ]
        return torch.stack([log_softmax(each.float(), dim=1) for each in logits]).mean(dim=0)

    def forward(self, spectrograms: torch.Tensor) -> torch.Tensor:
        """(batch, 1, 1, numbers) to the mean of the members' calibrated log-probabilities, (batch, species)."""
        return self.head(self.embed(spectrograms))


def build(config: EnsembleModel, species: int, pretrained: bool) -> Ensemble:
    """The networks of the members, whose weights a bundle has; raises a UsageError for a training's."""
    if pretrained:
        _untrained(config)
    settings = config.settings()
    places = [settings.places()[settings.frontends.index(each.frontend)] for each in config.members]
    return Ensemble(
        [build_model(each.model, species, pretrained=False) for each in config.members],
        places,
        [each.frontend.shape for each in config.members],
        [each.temperature or 1.0 for each in config.members],
    )


def _untrained(config: EnsembleModel) -> NoReturn:
    raise UsageError(
        f"model.name {config.name}: is not trained but made of trained models; "
        "use `watkins ensemble MEMBER MEMBER --name NAME`"
    )


def _open(config: EnsembleModel, settings: EnsembleSettings, folder: Path | None) -> EnsembleFrontend:
    if settings != config.settings():
        raise ValueError("the frontend is not that of the members")
    frontends: list[FileFrontend] = []
    for number, each in enumerate(settings.frontends):
        section = next(member.model for member in config.members if member.frontend == each)
        own = family(section.name).own_input
        if own is not None and isinstance(each, EncoderSettings):
            frontends.append(own.open(section, each, None if folder is None else folder / MEMBERS[number]))
        elif not isinstance(each, EncoderSettings):
            frontends.append(Frontend(each))
    return EnsembleFrontend(settings, frontends)


def _requirements(config: EnsembleModel) -> list[str]:
    inputs = [(each.model, family(each.model.name).own_input) for each in config.members]
    return sorted({name for section, own in inputs if own is not None for name in own.requirements(section)})


def _licence(config: EnsembleModel) -> str | None:
    found = dict.fromkeys(licence_of(each.model) for each in config.members)
    return "; ".join(each for each in found if each is not None) or None


FAMILY = Family(
    "ensemble",
    "Ensemble",
    "watkins-ensemble",
    EnsembleModel,
    build,
    own_input=OwnInput(
        settings=_untrained,
        open=_open,
        files=lambda config, settings: {},  # whoever makes an ensemble has them from its members
        requirements=_requirements,
        licence=_licence,
        transforms=(),
        settings_type=EnsembleSettings,
    ),
    members=lambda config: [each.model for each in config.members],
)
