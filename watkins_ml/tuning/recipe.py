"""The validated description of a study: a recipe whose section `study` says what to search, and how."""

from __future__ import annotations

import difflib
import hashlib
import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import Field, ValidationError

from watkins_ml.config import EXPECTED, LARGEST_SEED, ExperimentConfig, Section, joined, validate
from watkins_ml.config.recipe_files import naming, read_recipe, set_value
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import check_name
from watkins_ml.core.plain_yaml import shown
from watkins_ml.transforms.keys import key_values

PLACES = ("data.dir", "data.feature_cache_gb", "data.memory_gb", "train.device", "tracking.system_metrics")
"""Keys of the machine that a study runs on; they may differ between machines."""
PARTS = ("low", "high", "log", "step", "choices")
"""Keys that describe the values of one searched key."""
LARGEST = 1e15
"""Largest bound; beyond it integers are not exact as floats."""

MOST_STEPS = 10**9


class StudySettings(Section):
    """The section `study`, without its search space."""

    trials: int = Field(ge=1, le=1_000_000)
    """Points to try in all; a study that has them is finished, and a higher number continues it."""
    sampler: Literal["tpe", "random"] = "tpe"
    """TPE (Bergstra et al. 2011), multivariate and with constant liar for parallel workers; or plain random search."""
    pruner: Literal["median", "hyperband", "none"] = "median"
    """Stops a trial whose validation macro F1 falls behind the others' at the same epoch."""
    startup_trials: int = Field(default=5, ge=1, le=1_000_000)
    """So many trials are drawn at random first, and the median rule waits for as many complete ones."""
    warmup_epochs: int = Field(default=2, ge=0, le=1_000_000)
    """Epochs before the median rule applies."""
    seed: int = Field(default=0, ge=0, le=LARGEST_SEED)
    heartbeat_seconds: int = Field(default=60, ge=1, le=86_400)
    """A worker on another machine whose heartbeat is missing for three times as long counts as dead."""


@dataclass(frozen=True)
class StudyRecipe:
    """One study: the experiment that its trials vary, the search space, and the settings of the search."""

    name: str
    config: ExperimentConfig
    settings: StudySettings
    space: dict[str, BaseDistribution]
    """What to search, by dotted key."""

    @property
    def own_point(self) -> dict[str, Any]:
        """The recipe's own values of what is searched, as the sampler would draw them: the first trial."""
        flat = _values(self.config)
        return {key: _as_sampled(distribution, flat[key]) for key, distribution in self.space.items()}

    def at(self, point: dict[str, Any]) -> ExperimentConfig:
        """The experiment at one point of the space."""
        return _replaced(self.config, {key: tidy(self.space[key], value) for key, value in point.items()}, self.name)

    def identity(self) -> dict[str, Any]:
        """Everything that the study's results depend on, by dotted key; equal on every machine that works on it."""
        flat = {key: value for key, value in self.config.flat().items() if key not in PLACES}
        weights = Path(str(flat.get("model.weights", "")))
        if weights.is_file():  # the same file may lie elsewhere on another machine
            with open(weights, "rb") as file:
                flat["model.weights"] = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:16]
        settings = self.settings.model_dump(exclude={"trials"})
        return flat | {f"study.{key}": value for key, value in settings.items()} | self.search_params()

    def search_params(self) -> dict[str, str]:
        """The search space as parameters to show."""
        return {f"study.search.{key}": _shown(distribution) for key, distribution in self.space.items()}


def tidy(distribution: BaseDistribution, value: Any) -> Any:
    """A drawn value in decimal notation: Optuna's third step of 0.1 is 0.30000000000000004."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return value
    low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
    return float(low + step * round((value - distribution.low) / distribution.step))


def _as_sampled(distribution: BaseDistribution, value: Any) -> Any:
    """The inverse of `tidy`, so that the sampler's draws of the recipe's own value are recognised as repeats."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return value
    steps = round((value - distribution.low) / distribution.step)
    return min(distribution.low + distribution.step * steps, distribution.high)


def load_study(
    recipe: Path, overrides: list[str] | tuple[str, ...] = (), name: str | None = None, trials: int | None = None
) -> StudyRecipe:
    """Read a study's recipe; `name` (default: the file's) and `trials` replace its own.

    Raises:
        UsageError: anything that `load_config` refuses, or a search space that is empty, contradicts itself or the
            recipe's own values; the message names the dotted key.
    """
    tree, source = read_recipe(recipe, overrides), str(recipe)
    study = tree.pop("study", None)
    if not isinstance(study, dict):
        raise UsageError(f"{source}: no section study; see experiments/tune-efficientnet.yaml")
    study = dict(study)
    own_name, search = study.pop("name", None), study.pop("search", None)
    own_name = own_name if own_name is None or isinstance(own_name, str) else shown(own_name)
    name = name or own_name or Path(recipe).stem
    check_name(f"study name {shown(name)}", name, "; see --name")
    config = validate(tree, source)
    if config.train.refit:
        why = "a study compares networks by validation recordings; train the point that it finds with it"
        raise UsageError(f"{source}: train.refit must be false, since {why}")
    settings = _settings(study | ({} if trials is None else {"trials": trials}), source)
    return StudyRecipe(name, config, settings, _space(config, search, source))


def _settings(study: dict[str, Any], source: str) -> StudySettings:
    try:
        return StudySettings.model_validate({str(key): value for key, value in study.items()})
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = ".".join(map(str, detail["loc"]))
            if detail["type"] == "extra_forbidden":
                known = {name: f"study.{name}" for name in (*StudySettings.model_fields, "search", "name")}
                problems.append(f"unknown key study.{key}{_hint(key, known)}")
            elif detail["type"] == "missing":
                problems.append(f"missing key study.{key}")
            else:
                wanted = EXPECTED.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")
                problems.append(f"study.{key} must be {wanted}, not {shown(detail['input'])}")
        raise UsageError(f"{source}: {joined(problems)}") from None


def _hint(name: str, known: dict[str, str]) -> str:
    """The right key of the nearest name in `known`, as the end of a sentence."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {known[nearest[0]]}?" if nearest else ""


def _space(config: ExperimentConfig, search: Any, source: str) -> dict[str, BaseDistribution]:
    if not isinstance(search, dict) or not search:
        raise UsageError(
            f"{source}: study.search is empty; name at least one key, for example "
            "optim.lr: {low: 0.0001, high: 0.01, log: true}"
        )
    own = _values(config)
    space: dict[str, BaseDistribution] = {}
    for key, description in _dotted(search, own).items():
        where = f"{source}: study.search.{key}"
        if key not in own:
            hint = _hint(key.rpartition(".")[2], {known.rpartition(".")[2]: known for known in own})
            raise UsageError(f"{where}: no such key in an experiment with {config.model.name}{hint}")
        if key == "model.name":
            raise UsageError(f"{where}: a study searches one model; write a recipe for each")
        if key in (*PLACES, "train.refit") or key.startswith("tracking."):
            raise UsageError(f"{where}: does not change a trial's score; leave it out")
        space[key] = _distribution(description, own[key], where)
        _check_values(config, key, space[key], own[key], where)
    if len({key in config.flat() for key in space if key.startswith("augment.")}) > 1:
        raise UsageError(
            f"{source}: study.search names transforms by number and by key; a key may remove a transform and so change "
            "the numbers, so take one way"
        )
    if all(distribution.single() for distribution in space.values()):
        raise UsageError(f"{source}: study.search allows a single point only; widen a range or add a choice")
    return space


def _values(config: ExperimentConfig) -> dict[str, Any]:
    """All that can be searched, by dotted key: also the keys of `augment` from before it was a list."""
    return config.flat() | key_values(config.model_dump()["augment"])


def _dotted(search: dict[Any, Any], own: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Descriptions by dotted key, also of nested sections: `-o study.search.optim.lr.high=0.1` makes those."""
    dotted: dict[str, Any] = {}
    for name, node in search.items():
        key = f"{prefix}{name}"
        described = key in own or not isinstance(node, dict) or any(part in PARTS for part in node)
        for found, description in ({key: node} if described else _dotted(node, own, f"{key}.")).items():
            both = isinstance(description, dict) and isinstance(dotted.get(found), dict)
            dotted[found] = dotted[found] | description if both else description
    return dotted


def _distribution(description: Any, own: Any, where: str) -> BaseDistribution:
    """`{low, high, log, step}` or `{choices}` as a distribution for a key with the value `own`."""
    given = description if isinstance(description, dict) else {}
    if set(given) == {"choices"}:
        return _choices(given["choices"], where)
    if "choices" in given:
        raise UsageError(f"{where}: give either choices or a range, not both (one may come from the base recipe)")
    if not {"low", "high"} <= set(given) <= {"low", "high", "log", "step"}:
        raise UsageError(
            f"{where}: write {{low: …, high: …}}, if wanted with log: true or step: …; or {{choices: […]}}"
        )
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise UsageError(f"{where}: {json.dumps(own)} is not a number; give {{choices: […]}}")
    _check_range(where, **given)
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    if isinstance(own, float):
        return FloatDistribution(float(low), float(high), log, None if step is None else float(step))
    if not all(isinstance(value, int) for value in (low, high, step or 1)):
        raise UsageError(f"{where}: takes whole numbers only")
    return IntDistribution(low, high, log, step or 1)


def _check_range(where: str, **given: Any) -> None:
    """Refuse bounds that are no numbers or contradict each other."""
    for part in [part for part in ("low", "high", "step") if part in given]:
        if isinstance(given[part], bool) or not isinstance(given[part], int | float):
            raise UsageError(f"{where}.{part} must be a number, not {shown(given[part])}")
        if not abs(given[part]) <= LARGEST:
            raise UsageError(f"{where}.{part} must be between -1e15 and 1e15")
    low, high, log, step = given["low"], given["high"], given.get("log", False), given.get("step")
    if not isinstance(log, bool):
        raise UsageError(f"{where}.log must be true or false, not {shown(log)}")
    if low > high:
        raise UsageError(f"{where}: low {low} is greater than high {high}")
    if log and low <= 0:
        raise UsageError(f"{where}: log needs low above 0, not {low}")
    if step is None:
        return
    if log:
        raise UsageError(f"{where}: log and step exclude each other")
    if step <= 0:
        raise UsageError(f"{where}.step must be above 0, not {step}")
    if (high - low) / step > MOST_STEPS:
        raise UsageError(f"{where}: more than {MOST_STEPS:,} steps of {step} from {low} to {high}; take a larger step")
    if (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(step)):
        raise UsageError(f"{where}: steps of {step} from low {low} do not meet high {high}; change one of them")


def _choices(choices: Any, where: str) -> CategoricalDistribution:
    if not isinstance(choices, list) or not choices:
        raise UsageError(f"{where}.choices: give a list of at least one value")
    for choice in choices:
        if choice is not None and not isinstance(choice, str | int | float):
            raise UsageError(f"{where}.choices: each must be a single value, not {shown(choice)}")
        if isinstance(choice, float) and not abs(choice) <= LARGEST:
            raise UsageError(f"{where}.choices must be between -1e15 and 1e15")
    if len(set(choices)) < len(choices):
        raise UsageError(f"{where}.choices: the same value stands there twice")
    return CategoricalDistribution(choices)


def _check_values(config: ExperimentConfig, key: str, distribution: BaseDistribution, own: Any, where: str) -> None:
    """Every value must be one that a recipe may have, and the recipe's own must be among them."""
    if isinstance(distribution, CategoricalDistribution):
        values, contained = distribution.choices, own in distribution.choices
    else:
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        values = (distribution.low, distribution.high)
        contained = distribution.low <= own <= distribution.high
        if contained and distribution.step is not None:
            steps = (own - distribution.low) / distribution.step
            contained = abs(steps - round(steps)) < 1e-8
    for value in values:
        _replaced(config, {key: value}, where)
    if not contained:
        raise UsageError(
            f"{where}: the recipe's own value {json.dumps(own)} is not in {_shown(distribution)}, "
            f"so it could not be the first trial; widen the range or change {key}"
        )


def _replaced(config: ExperimentConfig, point: dict[str, Any], source: str) -> ExperimentConfig:
    tree = config.model_dump()
    for key, value in point.items():
        with naming(source):
            set_value(tree, key.split("."), value)
    return validate(tree, source)


def _shown(distribution: BaseDistribution) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return f"one of {json.dumps(list(distribution.choices))}"
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    step = (
        None if distribution.step == (1 if isinstance(distribution, IntDistribution) else None) else distribution.step
    )
    how = ", log" if distribution.log else "" if step is None else f", step {_number(step)}"
    return f"{_number(distribution.low)} to {_number(distribution.high)}{how}"


def _number(value: float) -> str:
    """All its digits, since an identity is made of it."""
    return str(value).removesuffix(".0")
