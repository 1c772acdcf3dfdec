"""Descriptions on the pages of MLflow: of an experiment, a registered model and its versions, in Markdown."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import (
    BEST_VAL_MACRO_F1,
    MACRO_F1,
    TEST_ACCURACY,
    TEST_MACRO_F1,
    control,
)
from watkins_ml.dataset.split import leak_stamp
from watkins_ml.models.registry import family
from watkins_ml.tracking.records import RunFacts
from watkins_ml.tracking.rundir import RunDirectory

EXPERIMENT_NOTE = (
    "Runs of watkins_ml, which names the species of marine mammals in recordings. Sections of metrics: **train** and "
    "**val** have a value an epoch; **best** is validation at the epoch whose network is kept; **test** is asked once, "
    "with 95 % intervals over tapes (`_low`, `_high`); **control** is what simple predictors score on test."
)
CHAMPION_NOTE = (
    "The alias `champion` is held by the version with the best macro F1 on validation, of those trained on the same "
    "data and split and above the control with audio."
)


def describe(client: MlflowClient, version: ModelVersion, run: RunDirectory) -> None:
    """Write what a version is, and of a registered model that has no description yet what it holds."""
    if not version.description:  # whoever wrote another one keeps it
        client.update_model_version(version.name, version.version, version_text(version, run))
    if not client.get_registered_model(version.name).description:
        client.update_registered_model(version.name, CHAMPION_NOTE)


def version_text(version: ModelVersion, run: RunDirectory) -> str:
    """What the model is, on which data it was trained, how well it does, its licence and how to use it."""
    facts = run.facts
    try:
        metrics = run.read_metrics()
    except UserError:  # of an earlier version, or taken away
        metrics = {}
    name = f"models:/{version.name}/{version.version}"
    parts = [
        _what(facts, run.name),
        " ".join(leak_stamp(facts.split_protocol or "").values()),
        _scores(metrics),
        f"Licence of what the model has from elsewhere: {facts.licence}." if facts.licence else "",
        f'In Python `mlflow.pyfunc.load_model("{name}")`; in a terminal `watkins predict {name} RECORDING`.',
    ]
    return "\n\n".join(part for part in parts if part)


def _what(facts: RunFacts, run: str) -> str:
    title = facts.family or "Model"
    try:
        title = family(title).title
    except UserError:  # of a package that is not here
        pass
    sides = ", ".join(f"{count:,} {side}" for side in ("train", "val", "test") if (count := getattr(facts, side)))
    data = f"data `{facts.data_digest}`, {facts.species} species, split by {facts.split_protocol}: {sides} recordings"
    return f"**{title}**, by `{facts.command}` in the run `{run}`, on {data}."


def _scores(metrics: dict[str, float]) -> str:
    rows = {
        "macro F1 on test": TEST_MACRO_F1,
        "accuracy on test": TEST_ACCURACY,
        "macro F1 of the control with audio on test": control("spectrum", MACRO_F1),
        "macro F1 on validation": BEST_VAL_MACRO_F1,
    }
    shown = [f"| {title} | {_score(metrics, key)} |" for title, key in rows.items() if key in metrics]
    return "\n".join(["| | |", "|---|---|", *shown]) if shown else ""


def _score(metrics: dict[str, float], key: str) -> str:
    low, high = (metrics.get(key + end) for end in ("_low", "_high"))
    interval = "" if low is None or high is None else f" ({low:.1%} to {high:.1%})"
    return f"{metrics[key]:.1%}{interval}"
