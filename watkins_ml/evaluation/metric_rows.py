"""The metrics that comparisons show, in groups, with their titles."""

from __future__ import annotations

from typing import Any, NamedTuple

from watkins_ml.core import metric_names
from watkins_ml.evaluation.controls import CONTROLS, WITH_AUDIO
from watkins_ml.evaluation.intervals import QUANTITIES


class Row(NamedTuple):
    """One metric of the table; `best` is max, min or None where no value is better than another."""

    key: str
    title: str
    best: Any = None
    percent: bool = True


_QUANTITIES = [
    Row("accuracy", "accuracy", max),
    Row("macro_f1", "macro F1", max),
    Row(metric_names.MACRO_AP, "mean average precision", max),
    Row("micro_f1", "micro F1", max),
    Row("macro_precision", "macro precision", max),
    Row("macro_recall", "macro recall", max),
    Row("weighted_f1", "weighted F1", max),
    Row("weighted_precision", "weighted precision", max),
    Row("weighted_recall", "weighted recall", max),
    Row("nll", "mean negative log-likelihood", min, percent=False),
    Row("ece", "expected calibration error", min, percent=False),
    Row("ece_uncalibrated", "expected calibration error before temperature scaling", min, percent=False),
    Row("coverage_at_90", "cuts answered at 90 % precision", max),
    Row("aurc", "area under the risk–coverage curve", min, percent=False),
]
GROUPS = {
    "Test split": [
        *(row._replace(key=metric_names.TEST + row.key) for row in _QUANTITIES),
        Row(
            metric_names.TEST + metric_names.COVERAGE_AT_THRESHOLD,
            "cuts answered from the confidence that gave 90 % precision on validation",
        ),
        Row(metric_names.TEST + metric_names.PRECISION_AT_THRESHOLD, "precision of these answers"),
    ],
    "Controls, without any audio": [
        Row(metric_names.control(key, quantity), f"{title}: {name}")
        for key, title in CONTROLS.items()
        for quantity, name in QUANTITIES.items()
    ],
    "Control with audio": [
        Row(scope + metric_names.control(key, quantity), f"{title}: {name}{side}")
        for key, title in WITH_AUDIO.items()
        for scope, side in (("", ""), (metric_names.BEST_VAL, " on validation"))
        for quantity, name in QUANTITIES.items()
    ],
    "Validation split": [row._replace(key=metric_names.BEST_VAL + row.key) for row in _QUANTITIES],
}
