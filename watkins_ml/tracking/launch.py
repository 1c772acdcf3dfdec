"""What a launch says of a run beside its recipe: options such as `--tag`, and the variables that MLflow's users set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from watkins_ml.core.errors import UsageError
from watkins_ml.core.server_names import EXPERIMENT, is_experiment
from watkins_ml.core.text import shown
from watkins_ml.tracking.records import Launch

EXPERIMENT_KEY = "tracking.experiment"
NOTE_TAG = "mlflow.note.content"
OWN_TAGS = ("watkins.", "mlflow.parentRunId", "mlflow.runName")
"""Beginnings of tags by which runs are found again."""
MOST_TAGS, LONGEST_KEY, LONGEST_VALUE = 100, 250, 5_000
"""Tags in all, and characters that every store of MLflow takes."""


def read_launch(
    overrides: Sequence[str] = (), tags: Sequence[str] = (), note: str | None = None, name: str | None = None
) -> Launch:
    """The launch of a command with these options; what they leave open is in MLflow's variables.

    Args:
        overrides: those of the recipe: an experiment that is named there goes before the variables.
        tags: each as `key=value`.
        note: shown at the top of the run's page.
        name: of the run on the server.

    Raises:
        UsageError: a variable or a tag that cannot be what it should be; names it.
    """
    facts: dict[str, Any] = {}
    if not any(each.partition("=")[0].strip() == EXPERIMENT_KEY for each in overrides):
        facts = {"experiment": _experiment(), "experiment_id": _variable("MLFLOW_EXPERIMENT_ID")}
    facts |= {"run_id": _variable("MLFLOW_RUN_ID"), "name": name or _variable("MLFLOW_RUN_NAME")}
    for variable, key in (("MLFLOW_RUN_ID", "run_id"), ("MLFLOW_EXPERIMENT_ID", "experiment_id")):
        if (number := facts.get(key)) is not None and not (number.isalnum() and len(number) <= 64):
            raise UsageError(
                f"{variable}={shown(number[:100])}: not an id of MLflow, which has letters and digits only"
            )
    if (given := facts["name"]) is not None and not (given.isprintable() and len(given) <= LONGEST_KEY):
        raise UsageError(f"MLFLOW_RUN_NAME: at most {LONGEST_KEY} characters, none of them a control character")
    every = _tags_of_variable() | dict(_tag(each) for each in tags) | ({} if note is None else {NOTE_TAG: note})
    if (metrics := _variable("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING")) is not None:
        facts["system_metrics"] = metrics.lower() in ("true", "1")
    return Launch(**{key: value for key, value in facts.items() if value is not None}, tags=_checked(every))


def _variable(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _experiment() -> str | None:
    name = _variable("MLFLOW_EXPERIMENT_NAME")
    if name is not None and not is_experiment(name):
        raise UsageError(f"MLFLOW_EXPERIMENT_NAME={shown(name[:100])}: must be {EXPERIMENT}")
    return name


def _tags_of_variable() -> dict[str, str]:
    text = _variable("MLFLOW_TAGS")
    try:
        found = {} if text is None else json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str | int | float) for each in found.values()):
        raise UsageError('MLFLOW_TAGS: write a JSON object of names and values, for example {"site": "Samana"}')
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--tag {shown(text[:100])}: write it as name=value")
    return key.strip(), value.strip()


def _checked(tags: dict[str, str]) -> dict[str, str]:
    if len(tags) > MOST_TAGS:
        raise UsageError(f"{len(tags)} tags: at most {MOST_TAGS}")
    for key, value in tags.items():
        if key.startswith(OWN_TAGS):
            raise UsageError(f"tag {shown(key[:100])}: belongs to the program; give it another name")
        if not key.isprintable() or not 0 < len(key) <= LONGEST_KEY or len(value) > LONGEST_VALUE:
            raise UsageError(
                f"tag {shown(key[:100])}: a name has 1 to {LONGEST_KEY} characters, a value or note at most "
                f"{LONGEST_VALUE:,}"
            )
    return tags
