"""The names of metrics; a metric has one name from the training loop to the tracking server.

`train_*` and `val_*` have a value an epoch: columns of `history.csv`, curves in MLflow. What the kept network scores
has one value a run: `best_val_*`, `test_*` and, of simple predictors on test and on validation, `control_*` and
`best_val_control_*`; in `reports/metrics.json`, MLflow, the facts of a model and the tags of its registered versions.
On MLflow the word before the first `_` is a section of its page: `val/macro_f1`, `best/val_macro_f1` (`on_server`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeVar

TRAIN, VAL = "train_", "val_"
BEST_VAL, TEST, CONTROL = "best_val_", "test_", "control_"
DETECTION: Final = "detection_"
"""Of detections in continuous recordings."""
DETECTION_AP: Final = "detection_macro_average_precision"
DETECTION_ON: Final = "detection_scored_on"
"""Tag of a registered version: on which annotations, and how, its detections were scored."""
FOLD, TRIAL = "fold_", "trial_"
"""In the record of a whole cross-validation or study: a metric of one part."""

ACCURACY, MACRO_F1, CALIBRATED_LOSS = "accuracy", "macro_f1", "calibrated_loss"
MACRO_AP = "macro_ap"
"""Mean average precision over species, where a recording may hold any number of them."""
COVERAGE_AT_THRESHOLD, PRECISION_AT_THRESHOLD = "coverage_at_threshold", "precision_at_threshold"

VAL_MACRO_F1: Final = "val_macro_f1"
VAL_LOSS: Final = "val_loss"
Monitor = Literal["val_macro_f1", "val_accuracy", "val_loss", "val_calibrated_loss"]
"""The columns of `history.csv` by which a network can be chosen."""
TRAIN_LOSS, TRAIN_ACCURACY = TRAIN + "loss", TRAIN + ACCURACY
VAL_ACCURACY, VAL_CALIBRATED_LOSS = VAL + ACCURACY, VAL + CALIBRATED_LOSS
BEST_VAL_MACRO_F1, TEST_ACCURACY, TEST_MACRO_F1 = BEST_VAL + MACRO_F1, TEST + ACCURACY, TEST + MACRO_F1
BEST_VAL_CONTROL_MACRO_F1 = BEST_VAL + CONTROL + "spectrum_" + MACRO_F1
"""Of the control with audio, on the validation side of the network beside it."""
BEST_EPOCH, TEMPERATURE = "best_epoch", "temperature"
THRESHOLD_90 = "threshold_90"
"""The confidence from which on 90 % of the answers were right on validation."""

SECTIONS = ("train", "val", "best", "test", "control", "detection", "fold", "trial")
"""Of the page of a run on MLflow, each named by the first word of its metrics."""
OTHER_SECTIONS = {
    "learning_rate": "train",
    TEMPERATURE: "best",
    THRESHOLD_90: "best",
    "epoch_seconds": "time",
    "samples_per_second": "time",
}

Value = TypeVar("Value")


def on_server(name: str) -> str:
    """The name that MLflow has for a metric: its section before a `/`, by which MLflow's pages fold.

    Runs of earlier versions have no sections: `val_macro_f1` there is `val/macro_f1` now.
    """
    section, _, rest = name.partition("_")
    if section in SECTIONS and rest:
        return f"{section}/{rest}"
    return f"{OTHER_SECTIONS[name]}/{name}" if name in OTHER_SECTIONS else name


def control(name: str, quantity: str) -> str:
    """Of a simple predictor, on the test side; with `BEST_VAL` before it, on validation."""
    return f"{CONTROL}{name}_{quantity}"


def current(name: str) -> str:
    """Today's name for a metric of a kept network (not of an epoch).

    Earlier versions wrote `best_val_*` as `val_*` into `reports/metrics.json`, `reports/folds.csv`, the facts of a
    model and the tags of a registered version.
    """
    return f"best_{name}" if name.startswith(VAL) else name


def renamed(values: Mapping[str, Value]) -> dict[str, Value]:
    """Values with each name as `current` gives it."""
    return {current(name): value for name, value in values.items()}
