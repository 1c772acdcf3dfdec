"""Precision against recall where a recording may hold any number of species: curves, the area under them, draws of it.

Targets are float: 1 present, 0 absent, NaN where it is not known; that counts for nothing.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from watkins_ml.evaluation.intervals import DRAWS, tape_draws

AT_ONCE = 64
"""Draws of tapes whose average precision is computed together."""


def precision_recall(targets: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The curve of one species (N,): recall and precision at each threshold, the highest first."""
    known = ~np.isnan(targets)
    true, values = targets[known] == 1, probabilities[known]
    levels, inverse = np.unique(-values, return_inverse=True)
    answered, hits = np.bincount(inverse).cumsum(), np.bincount(inverse, weights=true).cumsum()
    return pd.DataFrame({"threshold": -levels, "recall": hits / max(true.sum(), 1), "precision": hits / answered})


def average_precision(true: np.ndarray, values: np.ndarray) -> float:
    """Area under the precision-recall steps, as scikit-learn's `average_precision_score`; NaN without a positive."""
    if not true.any():
        return float("nan")
    return float(weighted_average_precision(true, values, np.ones((1, len(true))))[0])


def weighted_average_precision(true: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (draws,) of values (N,), each counted as often as weights (draws, N) say."""
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)  # equal values are answered together
    counted = weights[:, order]
    answered = counted.cumsum(axis=1)[:, ends]
    hits = (counted * true[order]).cumsum(axis=1)[:, ends]
    precision = np.divide(hits, answered, out=np.zeros_like(hits), where=answered > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    total = hits[:, -1]
    return np.divide((precision * gained).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)


def drawn_average_precision(
    targets: np.ndarray, probabilities: np.ndarray, tapes: pd.Series, draws: int = DRAWS // 4
) -> np.ndarray:
    """Macro average precision for draws of tapes (draws,); none where there are fewer than two tapes.

    Draws that no species is in are left out.
    """
    rows, times = tape_draws(tapes, draws)
    found = [np.empty(0)]
    for first in range(0, len(times), AT_ONCE):
        weights = times[first : first + AT_ONCE][:, rows]
        by_species = np.full((targets.shape[1], len(weights)), np.nan)
        for label in range(targets.shape[1]):
            known = ~np.isnan(targets[:, label])
            given = targets[known, label] == 1, probabilities[known, label], weights[:, known]
            if given[0].any():
                by_species[label] = weighted_average_precision(*given)
        there = np.isfinite(by_species)
        held = there.any(axis=0)
        found.append(np.nansum(by_species, axis=0)[held] / there.sum(axis=0)[held])
    return np.concatenate(found)
