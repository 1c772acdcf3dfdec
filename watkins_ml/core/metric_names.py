"""The names of metrics; a metric has one name from the training loop to the tracking server.

`train_*` and `val_*` have a value an epoch: columns of `history.csv`, curves in MLflow. What the kept network scores
has one value a run: `best_val_*`, `test_*` and, of predictors without audio, `control_*`; in `reports/metrics.json`,
MLflow, the facts of a model and the tags of its registered versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, TypeVar

Monitor = Literal["val_macro_f1", "val_loss"]
"""The columns of `history.csv` by which a network can be chosen."""
VAL_MACRO_F1: Final = "val_macro_f1"
VAL_LOSS: Final = "val_loss"
VAL_CALIBRATED_LOSS: Final = "val_calibrated_loss"
TRAIN_LOSS, TRAIN_ACCURACY, VAL_ACCURACY = "train_loss", "train_accuracy", "val_accuracy"

ACCURACY, MACRO_F1, CALIBRATED_LOSS = "accuracy", "macro_f1", "calibrated_loss"
COVERAGE_AT_THRESHOLD, PRECISION_AT_THRESHOLD = "coverage_at_threshold", "precision_at_threshold"

BEST_EPOCH, TEMPERATURE = "best_epoch", "temperature"
THRESHOLD_90 = "threshold_90"
"""The confidence from which on 90 % of the answers were right on validation."""

Value = TypeVar("Value")


def train(quantity: str) -> str:
    """Of an epoch, on the training side."""
    return f"train_{quantity}"


def val(quantity: str) -> str:
    """Of an epoch, on the validation side."""
    return f"val_{quantity}"


def best_val(quantity: str) -> str:
    """Of the kept network, on the validation side; of a study, of its best trial so far."""
    return f"best_val_{quantity}"


def test(quantity: str) -> str:
    """Of the kept network, on the test side."""
    return f"test_{quantity}"


def of_kept(side: str, quantity: str) -> str:
    """Of the kept network, on a side of the data."""
    return best_val(quantity) if side == "val" else f"{side}_{quantity}"


def control(name: str, quantity: str) -> str:
    """Of a predictor without audio, on the test side."""
    return f"control_{name}_{quantity}"


def fold(metric: str) -> str:
    """A metric of one fold, in the record of the whole cross-validation."""
    return f"fold_{metric}"


def is_control(name: str) -> bool:
    """Whether it is a `control_*`."""
    return name.startswith("control_")


def is_of_validation(name: str) -> bool:
    """Whether it is a `best_val_*`."""
    return name.startswith("best_val_")


BEST_VAL_MACRO_F1 = best_val(MACRO_F1)
TRIAL_VAL_MACRO_F1 = "trial_val_macro_f1"
"""What a trial of a study scored, in the record of the study."""
TEST_ACCURACY, TEST_MACRO_F1 = test(ACCURACY), test(MACRO_F1)


def current(name: str) -> str:
    """The name of today of what an earlier version called it; for metrics of a kept network, not of an epoch.

    Earlier versions wrote its `best_val_*` as `val_*` into `reports/metrics.json`, `reports/folds.csv`, the facts of a
    model and the tags of a registered version.
    """
    return f"best_{name}" if name.startswith("val_") else name


def renamed(values: Mapping[str, Value]) -> dict[str, Value]:
    """Values with each name as `current` gives it."""
    return {current(name): value for name, value in values.items()}
