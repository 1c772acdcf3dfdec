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


def print_models(versions: list[ModelVersion], uri: str) -> None:
    if not versions:
        out.print(f"No registered models on {uri}; `watkins train` registers one")
        return
    scores = "val macro F1", "control's"
    about = "split", "data digest", "run", "detection AP", "thresholds"
    table = table_of("model", "version", "alias", *scores, *about, title=uri)
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
            number_text(_number_of(version.tags[DETECTION_AP])) if DETECTION_AP in version.tags else "",
            _kept_thresholds(version.tags.get(THRESHOLDS_TAG)),
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


def _kept_thresholds(text: str | None) -> str:
    """What thresholds of a version were chosen for; empty where there are none."""
    if text is None:
        return ""
    try:
        return str(json.loads(text)["chosen_for"])
    except (ValueError, TypeError, KeyError):
        return "damaged"
