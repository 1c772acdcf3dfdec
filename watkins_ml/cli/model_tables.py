"""How the registry looks in the terminal."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from watkins_ml.cli.tables import leak, number_text, table_of
from watkins_ml.core import metric_names
from watkins_ml.core.console import out
from watkins_ml.core.metric_names import BEST_VAL_CONTROL_MACRO_F1, BEST_VAL_MACRO_F1, DETECTION_AP
from watkins_ml.models.bundle_files import THRESHOLDS_TAG

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


DETECTIONS = {"detection AP": DETECTION_AP, "thresholds": THRESHOLDS_TAG}
"""Columns that a registry has once `watkins evaluate --recordings` has scored one of its models, by their tag."""


def print_models(versions: list[ModelVersion], uri: str) -> None:
    if not versions:
        out.print(f"No registered models on {uri}; `watkins train` registers one")
        return
    scores = "val macro F1", "control's"
    of_detections = {title: key for title, key in DETECTIONS.items() if any(key in each.tags for each in versions)}
    table = table_of("model", "version", "alias", *scores, "split", "data digest", "run", *of_detections, title=uri)
    for version in versions:
        tags = metric_names.renamed(version.tags)
        table.add_row(
            version.name,
            str(version.version),
            ", ".join(version.aliases),
            *(number_text(_number_of(tags.get(key))) for key in (BEST_VAL_MACRO_F1, BEST_VAL_CONTROL_MACRO_F1)),
            (protocol := tags.get("split_protocol", "")) + leak(protocol),
            tags.get("data_digest", ""),
            tags.get("run", version.run_id or ""),
            *(_of_detections(key, version.tags.get(key)) for key in of_detections.values()),
        )
    out.print(table, soft_wrap=False)
    if any(BEST_VAL_CONTROL_MACRO_F1 in version.tags for version in versions):
        out.print(
            "control's: validation macro F1 of a logistic regression on the mean spectrum, which a champion beats"
        )


def _number_of(tag: str | None) -> float | None:
    """None where there is no such tag, or somebody has made it something else than a number."""
    try:
        return None if tag is None else float(tag)
    except ValueError:
        return None


def _of_detections(key: str, tag: str | None) -> str:
    """Average precision, or what thresholds were chosen for; empty where there is no such tag."""
    if tag is None:
        return ""
    if key == DETECTION_AP:
        return number_text(_number_of(tag))
    try:
        return str(json.loads(tag)["chosen_for"])
    except (ValueError, TypeError, KeyError):
        return "damaged"
