"""`model.json` of a bundle: what a model is made of, checked before any of it is used."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator

from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.metric_names import THRESHOLD_90
from watkins_ml.core.names import normal
from watkins_ml.dataset.targets import LABELS, SPECIES
from watkins_ml.models.family import ModelSection
from watkins_ml.models.registry import family

FORMATS = {SPECIES: 1, LABELS: 2}
"""By task: earlier versions of this package, which know only the first, must not take one for the other."""
MOST_SPECIES = 10_000


class _Description(BaseModel):
    """`model.json`, as `save_bundle` writes it; of a stranger's, nothing is believed that has not been checked."""

    model_config = ConfigDict(allow_inf_nan=False)

    format: int
    model: ModelSection
    """Of its family, see `_description_of`."""
    frontend: Annotated[FrontendSettings, BeforeValidator(FrontendSettings.stored_form)]
    temperature: float = Field(default=1.0, gt=0)  # bundles of earlier versions have none
    classes: list[Annotated[str, Field(min_length=1, max_length=1000)]] = Field(min_length=1, max_length=MOST_SPECIES)
    facts: dict[str, str | int | float | bool | None]
    task: Literal["species", "labels"] = "species"

    @model_validator(mode="after")
    def _check(self) -> Self:
        names = [normal(name) for name in self.classes]
        if len(set(names)) < len(names) or not all(name.strip() for name in names):
            raise ValueError("classes are names, each of another species")
        "".join([*names, *self.facts]).encode()  # half of a character could not be printed
        threshold = self.facts.get(THRESHOLD_90, 0.0)
        if isinstance(threshold, bool) or not isinstance(threshold, int | float):
            raise ValueError("threshold_90 is no number")
        return self


@cache
def _description_of(name: str) -> type[_Description]:
    own_input = family(name).own_input
    own: dict[str, Any] = {} if own_input is None else {"frontend": (own_input.settings_type, ...)}
    return create_model("_Description", __base__=_Description, model=(family(name).config, ...), **own)


def read_description(path: Path, name: object) -> tuple[_Description, FileFrontend]:
    """The description of a model, and its frontend; `name` is what errors call the model.

    Raises:
        UserError: it is of a later version.
        ValueError: anything in it is wrong.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > max(FORMATS.values()):
        raise UserError(f"{name}: model format {str(found)[:20]} needs a newer watkins_ml")
    try:
        model = content.get("model") if isinstance(content, dict) else None
        name_of_family = model.get("name") if isinstance(model, dict) else None
        kind = _description_of(name_of_family) if isinstance(name_of_family, str) else _Description
        description = kind.model_validate(content, strict=True)
        if description.format != FORMATS[description.task]:
            raise ValueError(f"model format {description.format} of the task {description.task}")
        own = family(description.model.name).own_input
        if own is not None:
            return description, own.open(description.model, description.frontend, path.parent)
        return description, Frontend(description.frontend)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}") from None
    except UsageError as error:
        raise ValueError(str(error)) from None
