"""Which epoch's network is kept: the rule by which a training keeps, stops and lowers its rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from watkins_ml.core.metric_names import VAL_ACCURACY, VAL_CALIBRATED_LOSS, VAL_LOSS, VAL_MACRO_F1

if TYPE_CHECKING:
    import pandas as pd

TITLES = {
    VAL_MACRO_F1: "validation macro F1",
    VAL_ACCURACY: "validation accuracy",
    VAL_LOSS: "validation loss",
    VAL_CALIBRATED_LOSS: "calibrated validation loss",
}
LOSSES = (VAL_LOSS, VAL_CALIBRATED_LOSS)
DECIMALS = 9
"""Macro F1 is a mean of fractions; values that agree to so many decimals are equal but for rounding."""


def rank(epoch: Mapping[str, float], monitor: str) -> tuple[float, float]:
    """What a row of `history.csv` is ordered by: the lower, the better.

    By a loss the lower one is better; by macro F1 or accuracy the higher one, and of equals the one of the lower
    calibrated loss. What is not a number, or missing, comes last.
    """
    if monitor in LOSSES:
        return _or_last(epoch.get(monitor, math.nan)), 0.0
    return _or_last(-round(epoch[monitor], DECIMALS)), _or_last(epoch.get(VAL_CALIBRATED_LOSS, math.nan))


def best_epoch(history: pd.DataFrame, monitor: str) -> int:
    """The epoch whose network is kept, from a `history.csv` with at least one row: of equals the first."""
    return int(min(history.to_dict("records"), key=lambda epoch: rank(epoch, monitor))["epoch"])


def kept(epoch: int, epochs: int, monitor: str, refit: bool = False) -> str:
    """Which of how many epochs was kept, and by what: `epoch 3 of 12, by validation macro F1`.

    With `refit` also that another network is the one that is tested (`train.refit`).
    """
    then = "; tested: trained for as many on training and validation recordings" if refit else ""
    return f"epoch {epoch} of {epochs}, by {TITLES.get(monitor, monitor)}{then}"


def is_tie(one: Mapping[str, float], other: Mapping[str, float], monitor: str) -> bool:
    """Whether only the calibrated loss tells two epochs apart."""
    (first, its_loss), (second, other_loss) = rank(one, monitor), rank(other, monitor)
    return first == second and its_loss != other_loss


def _or_last(value: float) -> float:
    return math.inf if math.isnan(value) else value
