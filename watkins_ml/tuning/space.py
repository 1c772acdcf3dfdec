"""What a study searches: the section `study.search` of its recipe as Optuna's distributions."""

from __future__ import annotations

import difflib
import json
from decimal import Decimal
from math import prod
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from watkins_ml.config import ExperimentConfig, validate
from watkins_ml.config.recipe_files import naming, set_value
from watkins_ml.core.errors import UsageError
from watkins_ml.core.plain_yaml import shown
from watkins_ml.transforms.keys import key_values

PLACES = ("data.dir", "data.feature_cache_gb", "data.memory_gb", "train.device", "tracking.system_metrics",
          "tracking.log_checkpoints")  # fmt: skip
"""Keys of the machine that a study runs on; they may differ between machines."""
PARTS = ("low", "high", "log", "step", "choices")
"""Keys that describe the values of one searched key."""
LARGEST = 1e15
"""Largest bound; beyond it integers are not exact as floats."""
MOST_STEPS = 10**9
LARGEST_GRID = 10_000
"""Points."""


def read_space(config: ExperimentConfig, search: Any, source: str) -> dict[str, BaseDistribution]:
    """The distribution of each searched key; raises a UsageError that names `source` and the key."""
    if not isinstance(search, dict) or not search:
        raise UsageError(
            f"{source}: study.search is empty; name at least one key, for example "
            "optim.lr: {low: 0.0001, high: 0.01, log: true}"
        )
    own = values_of(config)
    space: dict[str, BaseDistribution] = {}
    for key, description in _dotted(search, own).items():
        where = f"{source}: study.search.{key}"
        if key not in own:
            hint = hint_of(key.rpartition(".")[2], {known.rpartition(".")[2]: known for known in own})
            raise UsageError(f"{where}: no such key in an experiment with {config.model.name}{hint}")
        if key == "model.name":
            raise UsageError(f"{where}: a study searches one model; write a recipe for each")
        if key in (*PLACES, "train.refit") or key.startswith("tracking."):
            raise UsageError(f"{where}: does not change a trial's score; leave it out")
        space[key] = _distribution(description, own[key], where)
        _check_values(config, key, space[key], where)
    if len({key in config.flat() for key in space if key.startswith("augment.")}) > 1:
        raise UsageError(
            f"{source}: study.search names transforms by number and by key; a key may remove a transform and so change "
            "the numbers, so take one way"
        )
    if all(distribution.single() for distribution in space.values()):
        raise UsageError(f"{source}: study.search allows a single point only; widen a range or add a choice")
    return space


def values_of(config: ExperimentConfig) -> dict[str, Any]:
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


def _check_values(config: ExperimentConfig, key: str, distribution: BaseDistribution, where: str) -> None:
    """Every value must be one that a recipe may have."""
    if isinstance(distribution, CategoricalDistribution):
        values: tuple[Any, ...] = distribution.choices
    else:
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        values = (distribution.low, distribution.high)
    for value in values:
        replaced(config, {key: value}, where)


def replaced(config: ExperimentConfig, point: dict[str, Any], source: str) -> ExperimentConfig:
    tree = config.model_dump()
    for key, value in point.items():
        with naming(source):
            set_value(tree, key.split("."), value)
    return validate(tree, source)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a recipe's own value can be drawn."""
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if not distribution.low <= value <= distribution.high or distribution.step is None:
        return bool(distribution.low <= value <= distribution.high)
    steps = (value - distribution.low) / distribution.step
    return bool(abs(steps - round(steps)) < 1e-8)


def tidy(distribution: BaseDistribution, value: Any) -> Any:
    """A drawn value in decimal notation: Optuna's third step of 0.1 is 0.30000000000000004."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return value
    low, step = Decimal(str(distribution.low)), Decimal(str(distribution.step))
    return float(low + step * round((value - distribution.low) / distribution.step))


def as_sampled(distribution: BaseDistribution, value: Any) -> Any:
    """The inverse of `tidy`, so that the sampler's draws of the recipe's own value are recognised as repeats."""
    if not isinstance(distribution, FloatDistribution) or distribution.step is None:
        return value
    steps = round((value - distribution.low) / distribution.step)
    return min(distribution.low + distribution.step * steps, distribution.high)


def grid_size(space: dict[str, BaseDistribution], trials: Any, source: str) -> int:
    """How many points a grid has; raises a UsageError where it is none, is too large, or is not `trials`."""
    if endless := [key for key, each in space.items() if isinstance(each, FloatDistribution) and each.step is None]:
        raise UsageError(f"{source}: study.search.{endless[0]}: a grid needs choices or a step")
    size = prod(_count(distribution) for distribution in space.values())
    if size > LARGEST_GRID:
        raise UsageError(f"{source}: this grid has {size:,} points, more than {LARGEST_GRID:,}; take fewer values")
    if trials not in (None, size):
        raise UsageError(f"{source}: this grid has {size} points, not {shown(trials)}; leave study.trials out")
    return size


def _count(distribution: BaseDistribution) -> int:
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution) and distribution.step is not None
    return round((distribution.high - distribution.low) / distribution.step) + 1


def steps_of(distribution: BaseDistribution) -> list[Any]:
    """All values of a distribution that has choices or a step."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution) and distribution.step is not None
    values = (distribution.low + number * distribution.step for number in range(_count(distribution)))
    return [min(value, distribution.high) for value in values]


def shown_range(distribution: BaseDistribution) -> str:
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


def hint_of(name: str, known: dict[str, str]) -> str:
    """The right key of the nearest name in `known`, as the end of a sentence."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {known[nearest[0]]}?" if nearest else ""
