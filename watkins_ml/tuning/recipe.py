"""The validated description of a study: a recipe whose section `study` says what to search, and how."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from optuna.distributions import BaseDistribution
from pydantic import Field, ValidationError

from watkins_ml.config import EXPECTED, ExperimentConfig, Section, joined, validate
from watkins_ml.config.recipe_files import read_recipe
from watkins_ml.config.sections import LARGEST_SEED
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import check_name
from watkins_ml.core.plain_yaml import shown
from watkins_ml.tuning.space import (
    PLACES,
    as_sampled,
    contains,
    grid_size,
    hint_of,
    read_space,
    replaced,
    shown_range,
    steps_of,
    tidy,
    values_of,
)


class StudySettings(Section):
    """The section `study`, without its search space."""

    trials: int = Field(ge=1, le=1_000_000)
    """Points to try in all; a study that has them is finished, and a higher number continues it. A grid has its own."""
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """TPE (Bergstra et al. 2011), multivariate and with constant liar for parallel workers; plain random search; or
    every combination of choices and steps."""
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
    def own_point(self) -> dict[str, Any] | None:
        """The recipe's own values of what is searched, as the sampler would draw them: the first trial.

        None where the space leaves one of them out.
        """
        flat = values_of(self.config)
        if not all(contains(distribution, flat[key]) for key, distribution in self.space.items()):
            return None
        return {key: as_sampled(distribution, flat[key]) for key, distribution in self.space.items()}

    @property
    def first_points(self) -> list[dict[str, Any]]:
        """What is tried before the sampler draws: the recipe's own point, and the whole grid where that is searched."""
        own = [] if self.own_point is None else [self.own_point]
        if self.settings.sampler != "grid":
            return own
        grid = [dict(zip(self.space, point, strict=True)) for point in product(*map(steps_of, self.space.values()))]
        return own + [point for point in grid if point not in own]

    def at(self, point: dict[str, Any]) -> ExperimentConfig:
        """The experiment at one point of the space."""
        return replaced(self.config, {key: tidy(self.space[key], value) for key, value in point.items()}, self.name)

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
        return {f"study.search.{key}": shown_range(distribution) for key, distribution in self.space.items()}


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
    space = read_space(config, search, source)
    if study.get("sampler") == "grid":
        study["trials"] = grid_size(space, study.get("trials") if trials is None else trials, source)
    settings = _settings(study | ({} if trials is None else {"trials": trials}), source)
    return StudyRecipe(name, config, settings, space)


def _settings(study: dict[str, Any], source: str) -> StudySettings:
    try:
        return StudySettings.model_validate({str(key): value for key, value in study.items()})
    except ValidationError as error:
        problems = []
        for detail in error.errors():
            key = ".".join(map(str, detail["loc"]))
            if detail["type"] == "extra_forbidden":
                known = {name: f"study.{name}" for name in (*StudySettings.model_fields, "search", "name")}
                problems.append(f"unknown key study.{key}{hint_of(key, known)}")
            elif detail["type"] == "missing":
                problems.append(f"missing key study.{key}")
            else:
                wanted = EXPECTED.get(detail["type"]) or detail["msg"].removeprefix("Input should be ")
                problems.append(f"study.{key} must be {wanted}, not {shown(detail['input'])}")
        raise UsageError(f"{source}: {joined(problems)}") from None
