"""The one validated description of an experiment, read from a recipe."""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field, ValidationError, create_model

from watkins_ml.config.recipe_files import apply_override, naming, read_recipe
from watkins_ml.config.sections import DataConfig, OptimConfig, TrackingConfig, TrainConfig
from watkins_ml.core.errors import UsageError
from watkins_ml.core.metric_names import VAL_LOSS
from watkins_ml.core.plain_yaml import shown
from watkins_ml.core.section import Section
from watkins_ml.models.family import ModelSection
from watkins_ml.models.registry import family, family_names, misplaced_transforms
from watkins_ml.transforms import keys
from watkins_ml.transforms.registry import all_transforms, transform_type

MOST_PROBLEMS = 10
MOST_TRANSFORMS = 100
if TYPE_CHECKING:
    from watkins_ml.transforms.transform import Transform as AnyTransform
else:
    AnyTransform = transform_type()


class ExperimentConfig(Section):
    """One experiment: everything that decides a run's history, and where it is tracked."""

    model: ModelSection
    """Of the family that `model.name` names, see `models.registry`."""
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    augment: list[AnyTransform] = Field(max_length=MOST_TRANSFORMS)
    """Transforms of training data, in the order of application."""
    tracking: TrackingConfig

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers get the settings, since the class of a family is made when it is first asked for."""
        return validate, (self.model_dump(), "the configuration")

    def flat(self) -> dict[str, Any]:
        """The configuration as dotted keys, the form in which MLflow holds it."""
        return flatten(self.model_dump())

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping to one level of dotted keys; those of a list have its indices, and an empty list is a value."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, list) and value:
            value = {str(index): entry for index, entry in enumerate(value)}
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


EARLIER: dict[str, Any] = {
    "train.monitor": VAL_LOSS,
    "optim.schedule": "plateau",
    "optim.warmup_epochs": 0,
    "optim.clip_norm": None,
    "optim.layer_decay": 1.0,
    "train.ema_decay": 0.0,
    "train.refit": False,
}
"""Keys that runs and studies of earlier versions do not have, with what these versions did."""


def load_config(recipe: Path, overrides: list[str] | tuple[str, ...] = ()) -> ExperimentConfig:
    """Read a recipe, apply `key.path=value` overrides, validate.

    A recipe may start with `base: other.yaml` (relative to itself) and give only what differs.

    Raises:
        UsageError: the file is missing or not YAML, a key is unknown or missing, a value has the
            wrong type or is out of range; the message names the dotted key.
    """
    tree = read_recipe(recipe, overrides)
    if "study" in tree:
        raise UsageError(f"{recipe}: describes a study; `watkins tune` runs it, `watkins train` its base recipe")
    return validate(tree, source=str(recipe))


def load_stored(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> ExperimentConfig:
    """`load_config` for the `config.yaml` of a run directory, whichever version wrote it."""
    tree = with_earlier(read_recipe(path))
    for override in overrides:
        apply_override(tree, override)
    return validate(tree, source=str(path))


def with_earlier(tree: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run, as a nested mapping, with the keys of EARLIER, and `augment` as a list."""
    for key, value in EARLIER.items():
        section, _, name = key.partition(".")
        if isinstance(tree.get(section), dict):  # else it is damaged, as `validate` will say
            tree = tree | {section: {name: value} | tree[section]}
    return tree | {"augment": keys.as_list(tree["augment"])} if "augment" in tree else tree


def with_earlier_flat(flat: dict[str, Any]) -> dict[str, Any]:
    """The same for a flat configuration, as the identity of a study has it."""
    return flatten(keys.renamed(EARLIER | flat))


def validate(tree: dict[str, Any], source: str) -> ExperimentConfig:
    """Turn a nested mapping into a configuration; `source` is what an error message names."""
    with naming(source):
        tree = tree | {"augment": keys.as_list(tree["augment"])} if "augment" in tree else tree
    model = tree.get("model")
    name = model.get("name") if isinstance(model, dict) else None
    problems = []
    try:
        kind = configuration_of(name) if isinstance(name, str) else ExperimentConfig
    except UsageError as error:
        problems, kind = [f"model.name {error}"], ExperimentConfig
    try:
        config = kind.model_validate(tree)
    except ValidationError as error:
        found = [detail for detail in error.errors() if kind is not ExperimentConfig or detail["loc"][0] != "model"]
        if kind is ExperimentConfig and not problems:
            problems = [_without_family(tree)]
        problems += [_explain(detail, kind) for detail in found]
    else:
        problems += misplaced_transforms(config.model.name, [each.name for each in config.augment])
    if problems:
        raise UsageError(f"{source}: {joined(problems)}")
    return config


@cache
def configuration_of(name: str) -> type[ExperimentConfig]:
    """The configuration of an experiment with a model of this family; raises a UsageError as `registry.family`."""
    return create_model(f"ExperimentConfig[{name}]", __base__=ExperimentConfig, model=(family(name).config, ...))


def _without_family(tree: dict[str, Any]) -> str:
    """What is wrong with a section `model` that does not say which family it is of."""
    if "model" not in tree:
        return "missing key model"
    if not isinstance(tree["model"], dict):
        return f"model must be a section with keys of its own, not {shown(tree['model'])}"
    if "name" not in tree["model"]:
        return "missing key model.name"
    return f"model.name must be one of {', '.join(family_names())}, not {shown(tree['model']['name'])}"


def joined(problems: list[str]) -> str:
    """Problems of a recipe in one sentence, the first MOST_PROBLEMS of them."""
    return "; ".join(problems[:MOST_PROBLEMS] + ["and more"] * (len(problems) > MOST_PROBLEMS))


EXPECTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "too_long": f"a list of at most {MOST_TRANSFORMS}",
    "too_short": "a list of one at least",
    "model_type": "a section with keys of its own",
    "model_attributes_type": "a section with keys of its own",
}
"""What pydantic's kinds of error ask for, in the words of people who write recipes."""


def _explain(detail: Any, kind: type[ExperimentConfig]) -> str:
    """One pydantic error as a phrase with the dotted key and what would be right."""
    location = [str(part) for part in detail["loc"]]
    chosen = location.pop(2) if location[0] == "augment" and len(location) > 2 else ""  # pydantic adds the union's tag
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(location[-1], _known_keys(location[:-1], kind, chosen), n=1, cutoff=0.5)
        hint = f"; did you mean {'.'.join([*location[:-1], nearest[0]])}?" if nearest else ""
        return f"unknown key {key}{hint}"
    if detail["type"] == "union_tag_not_found":
        return f"missing key {key}.name"
    if detail["type"] == "missing":
        return f"missing key {key}"
    if detail["type"] == "union_tag_invalid":
        name = detail["input"]["name"]
        hint = "".join(
            f"; did you mean {near}?" for near in difflib.get_close_matches(str(name), all_transforms(), n=1)
        )
        return f"{key}.name must be one of {', '.join(all_transforms())}, not {shown(name)}{hint}"
    if detail["type"] == "value_error":  # a sentence of the section's own validator
        return f"{key}: {detail['ctx']['error']}"
    expected = EXPECTED.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")
    return f"{key} must be {expected}, not {shown(detail['input'])}"


def _known_keys(location: list[str], kind: type[ExperimentConfig], transform: str) -> list[str]:
    if not location:
        return list(kind.model_fields)
    if transform:
        return list(all_transforms()[transform].model_fields)
    section = kind.model_fields.get(location[0])
    return list(getattr(section.annotation, "model_fields", {})) if section else []
