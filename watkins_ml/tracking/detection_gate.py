"""Whether a version detects better than the champion, by what `watkins evaluate --recordings` left in their tags."""

from __future__ import annotations

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import DETECTION_AP, DETECTION_ON
from watkins_ml.tracking import registry


def check_better(client: MlflowClient, model_version: str) -> None:
    """Nothing where `NAME/VERSION` has the higher average precision of detections, or there is no other champion.

    Raises:
        UserError: it has not, or one of the two has no score on the same recordings; what to do.
    """
    name, number = registry.name_and_number(model_version)
    try:
        version = client.get_model_version(name, number)
    except MlflowException as error:
        if error.error_code not in registry.ABSENT:
            raise
        raise UserError(f"{model_version}: no such model version; `watkins models` lists them") from None
    holder = registry.champion(client, name)
    score = _score(version)
    if holder is None or holder.version == version.version:
        return
    best = _score(holder)
    if version.tags[DETECTION_ON] != holder.tags[DETECTION_ON]:
        raise UserError(
            f"{model_version}: its detections were scored on other recordings, or otherwise, than those of champion "
            f"version {holder.version}; evaluate both on the same (watkins evaluate --recordings)"
        )
    if not score > best:
        raise UserError(
            f"{model_version}: its average precision of detections {score:.4f} is not above {best:.4f}, that of "
            f"champion version {holder.version}; the alias stays"
        )


def _score(version: ModelVersion) -> float:
    try:
        _, score = version.tags[DETECTION_ON], float(version.tags[DETECTION_AP])
        return score
    except (KeyError, ValueError):
        raise UserError(
            f"{version.name}/{version.version}: has no detection score; watkins evaluate "
            f"models:/{version.name}/{version.version} --recordings … gives it one"
        ) from None
