"""The model registry: versions, what they scored, and who is champion."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from watkins_ml.errors import UsageError, UserError

CHAMPION = "champion"
SCORE = "val_macro_f1"
ABSENT = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""How MLflow says that a model, a version or an alias is not there; any other error is a fault of the server."""


@dataclass(frozen=True)
class Promotion:
    """What became of a new version's claim to the champion alias, and why."""

    promoted: bool
    reason: str


def champion(client: MlflowClient, name: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise  # a server that fails for a moment must not cost the champion its alias
        return None


def promote_if_better(client: MlflowClient, version: ModelVersion) -> Promotion:
    """Make `version` champion if its validation macro F1 beats the champion's on the same data and split."""
    holder = champion(client, version.name)
    if holder is not None and holder.version == version.version:
        return Promotion(True, f"{version.name} version {version.version} is champion")
    if holder is not None:
        for tag, what in (("data_digest", "data digest"), ("split_protocol", "split protocol")):
            if holder.tags.get(tag) != version.tags.get(tag):
                return Promotion(
                    False,
                    f"{version.name} version {version.version} was trained on another {what} than champion version "
                    f"{holder.version}, so they do not compare; the alias stays. "
                    f"To move it: watkins promote {version.name}/{version.version}",
                )
        if _score(version) <= _score(holder):
            return Promotion(
                False,
                f"champion of {version.name} stays version {holder.version} "
                f"(validation macro F1 {_score(holder):.4f}, version {version.version} has {_score(version):.4f})",
            )
    client.set_registered_model_alias(version.name, CHAMPION, version.version)
    before = f", before: {_score(holder):.4f}" if holder is not None else ""
    return Promotion(
        True,
        f"{version.name} version {version.version} is the new champion "
        f"(validation macro F1 {_score(version):.4f}{before})",
    )


def _score(version: ModelVersion) -> float:
    score = float(version.tags.get(SCORE, "-inf"))
    return -math.inf if math.isnan(score) else score


def promote(client: MlflowClient, model_version: str) -> ModelVersion:
    """Give the champion alias to `NAME/VERSION` (or `models:/NAME/VERSION`), whatever it scored.

    Raises:
        UsageError: the text has another form.
        UserError: there is no such version.
    """
    name, slash, number = model_version.removeprefix("models:/").rpartition("/")
    if not slash or not number.isdigit():
        raise UsageError(f"'{model_version}': write NAME/VERSION, for example watkins-efficientnet/3")
    try:
        version = client.get_model_version(name, number)
        client.set_registered_model_alias(name, CHAMPION, number)
    except MlflowException as error:
        if error.error_code not in ABSENT:
            raise
        raise UserError(f"{model_version}: no such model version; `watkins models` lists them") from None
    return version


def list_versions(client: MlflowClient) -> list[ModelVersion]:
    """All versions of all registered models, by name, newest first, with their aliases."""
    versions: list[ModelVersion] = []
    for model in sorted(client.search_registered_models(), key=lambda model: model.name):
        found = client.search_model_versions(f"name='{model.name}'")
        versions += [
            client.get_model_version(model.name, each.version)
            for each in sorted(found, key=lambda each: -int(each.version))
        ]
    return versions
