"""The one validated description of an experiment, read from a recipe."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError

from watkins_ml.config.recipe_files import apply_override, naming, read_recipe
from watkins_ml.core.errors import UsageError
from watkins_ml.core.metric_names import VAL_LOSS, VAL_MACRO_F1, Monitor
from watkins_ml.core.plain_yaml import shown
from watkins_ml.core.section import Section
from watkins_ml.core.server_names import EXPERIMENT, MODEL, is_experiment, is_model
from watkins_ml.models.family import ModelSection
from watkins_ml.models.registry import family, family_names, misplaced_transforms
from watkins_ml.transforms import keys
from watkins_ml.transforms.registry import all_transforms, transform_type

LARGEST_SEED = 2**63 - 1
"""Of PyTorch's generators."""
MOST_PROBLEMS = 10
MOST_TRANSFORMS = 100
if TYPE_CHECKING:
    from watkins_ml.transforms.transform import Transform as AnyTransform
else:
    AnyTransform = transform_type()


class DataConfig(Section):
    dir: str
    """The folder that `watkins prepare` wrote."""
    batch_size: int = Field(ge=1, le=1_000_000)
    feature_cache_gb: float = Field(default=10, ge=0, le=1_000_000)
    """What the kept outputs of frozen stages (`features/` in `dir`) may take on disk; 0 keeps none."""
    memory_gb: float | None = Field(default=None, ge=0, le=1_000_000)
    """What the spectrograms may take in memory; where they need more, each batch is read from the disk. Null is half
    of what is free."""


class OptimConfig(Section):
    lr: float = Field(gt=0, le=1000)
    """AdamW's learning rate."""
    weight_decay: float = Field(ge=0, le=1000)
    schedule: Literal["plateau", "cosine"] = "plateau"
    """How the learning rate falls: after epochs without a better one, or along half a cosine to the last epoch
    (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    plateau_factor: float = Field(gt=0, lt=1)
    """ReduceLROnPlateau multiplies the learning rate by this ..."""
    plateau_patience: int = Field(ge=0, le=1_000_000)
    """... after this many epochs that were not the best so far (see `train.monitor`)."""
    warmup_epochs: int = Field(default=0, ge=0, le=1_000_000)
    """Epochs in which the learning rate rises to `lr`, before the cosine."""
    clip_norm: float | None = Field(default=None, gt=0, le=1_000_000)
    """The largest norm of all gradients of a step together; longer ones are scaled down to it. Null: no limit."""
    layer_decay: float = Field(default=1, gt=0, le=1)
    """Each stage of the network learns at the rate of the next one times this; the head at `lr`. Below 1, pretrained
    stages change less the nearer they are to the input (Howard and Ruder 2018, arXiv:1801.06146)."""

    @field_validator("warmup_epochs")
    @classmethod
    def _only_before_a_cosine(cls, epochs: int, others: ValidationInfo) -> int:
        if epochs and others.data.get("schedule") == "plateau":
            raise PydanticCustomError("warmup", "0, or optim.schedule cosine")
        return epochs


class TrainConfig(Section):
    epochs: int = Field(ge=1, le=1_000_000)
    seed: int = Field(ge=0, le=LARGEST_SEED)
    amp: Literal["auto", "none", "bf16", "fp16"]
    """Mixed precision; `auto` is bf16 (or fp16 on older cards) on a GPU and none on a CPU."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    compile: bool = False
    """Let `torch.compile` fuse the layers of a training step: minutes at the start for faster epochs after it."""
    early_stopping_patience: int = Field(ge=1, le=1_000_000)
    """Stop after this many epochs that were not the best so far (see `train.monitor`)."""
    monitor: Monitor = VAL_MACRO_F1
    """By which column of `history.csv` the best epoch is found, whose network is kept: `val_macro_f1` or
    `val_accuracy`, of equals the one of the lower calibrated loss; `val_loss`, the loss weighted by class, as in the
    original study; `val_calibrated_loss`, the loss once the temperature is fitted."""
    ema_decay: float = Field(default=0, ge=0, lt=1)
    """Above 0 the network that is validated and kept has the exponential moving average of the weights over the steps,
    each with this share of the average before it (Polyak and Juditsky 1992); 0.99 is usual for short trainings."""
    refit: bool = False
    """Once the best epoch is known, train a second network for as many epochs, at the same learning rates, on training
    and validation recordings together; it is the one that is tested and registered. For few tapes a species, of which
    validation takes one away."""
    class_weights: Literal["balanced", "sampled", "tapes", "none"]
    """What rare species get: `balanced` weighs the loss by the inverse of their recordings. `sampled` draws every
    species equally often instead, `tapes` also every tape of a species, and the loss weighs all alike."""
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    """Share of the target that is spread over all species (Szegedy et al. 2016); 0 is none."""


def _name(is_name: Callable[[str], bool], wanted: str) -> Callable[[str | None], str | None]:
    """A validator of names, see `server_names`."""

    def check(value: str | None) -> str | None:
        if value is not None and not is_name(value):
            raise PydanticCustomError("name", "{wanted}", {"wanted": wanted})
        return value

    return check


class TrackingConfig(Section):
    experiment: Annotated[str, AfterValidator(_name(is_experiment, EXPERIMENT))]
    register_as: Annotated[str | None, AfterValidator(_name(is_model, MODEL))]
    """Name of the registered model, or null to register nothing."""
    system_metrics: bool = False
    """Also record CPU, memory and GPU use with MLflow's own monitor."""
    log_checkpoints: Literal["best", "all", "none"] = "best"
    """Which checkpoints of a finished run are sent to MLflow: that of the kept epoch, also the last one with the state
    of the optimizer, or none. The trained model is sent in any case."""


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
