"""Answering only where the model is confident: how much is answered, and how much of that is right.

El-Yaniv & Wiener 2010, "On the Foundations of Noise-free Selective Classification"; Geifman & El-Yaniv 2017,
"Selective Classification for Deep Neural Networks". Cuts of equal confidence are answered together or not at all,
since no threshold can tell them apart.
"""

import numpy as np
import pandas as pd

from watkins_ml.core.metric_names import COVERAGE_AT_THRESHOLD, PRECISION_AT_THRESHOLD, TEST, THRESHOLD_90

PRECISION = 0.9
"""The share of right answers that a user asks for."""


def risk_coverage(labels: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """What each possible threshold gives, the strictest first.

    Args:
        labels: class indices (N,), at least one.
        probabilities: (N, C).

    Returns:
        a row per distinct confidence: threshold (cuts at least so confident are answered), coverage (the share of
        cuts answered), accuracy and risk (the shares of right and of wrong answers among them).
    """
    confidence = probabilities.max(axis=1)
    levels, inverse = np.unique(confidence, return_inverse=True)
    right = np.bincount(inverse, weights=probabilities.argmax(axis=1) == labels)[::-1].cumsum()
    answered = np.bincount(inverse)[::-1].cumsum()
    return pd.DataFrame(
        {
            "threshold": levels[::-1].astype(float),
            "coverage": answered / len(labels),
            "accuracy": right / answered,
            "risk": (answered - right) / answered,
        }
    )


def coverage_at(curve: pd.DataFrame, precision: float = PRECISION) -> float:
    """The largest share of cuts that can be answered with at least `precision` of the answers right; 0 if never."""
    return _last(curve.coverage[curve.accuracy >= precision]) or 0.0


def threshold_at(curve: pd.DataFrame, precision: float = PRECISION) -> float | None:
    """The confidence from which on at least `precision` of the answers are right; None if there is none."""
    return _last(curve.threshold[curve.accuracy >= precision])


def area_under(curve: pd.DataFrame) -> float:
    """AURC: the risk at the coverage that brings each cut in, averaged over the cuts; 0 where all are right."""
    return float((curve.risk * np.diff(curve.coverage, prepend=0)).sum())


def at_threshold(labels: np.ndarray, probabilities: np.ndarray, threshold: float | np.ndarray) -> dict[str, float]:
    """`coverage_at_threshold` and, where anything is answered at all, `precision_at_threshold`.

    `threshold` is one for all cuts, or one for each (N,).
    """
    answered = probabilities.max(axis=1) >= threshold
    found = {COVERAGE_AT_THRESHOLD: float(answered.mean())}
    if answered.any():
        right = probabilities[answered].argmax(axis=1) == labels[answered]
        found[PRECISION_AT_THRESHOLD] = float(right.mean())
    return found


def coverage_sentence(coverage: float) -> str:
    """`coverage_at` in words."""
    if coverage == 0:
        return f"At no threshold are {_percent(PRECISION)} of its answers right."
    return f"At {_percent(PRECISION)} precision it answers {_share(coverage)}."


def threshold_sentence(metrics: dict[str, float]) -> str | None:
    """What the threshold that validation gave does on test, from a run's metrics; None where they lack it."""
    if TEST + COVERAGE_AT_THRESHOLD not in metrics:
        return None
    threshold = metrics.get(THRESHOLD_90)
    who, limit = ("each fold's network", "") if threshold is None else ("it", f" of {threshold:.4g} or more,")
    sure = f"with a confidence{limit} at which {_percent(PRECISION)} of its answers on validation were right"
    coverage, precision = metrics[TEST + COVERAGE_AT_THRESHOLD], metrics.get(TEST + PRECISION_AT_THRESHOLD)
    if precision is None:
        then = "none of the test cuts is answered"
    else:
        answered, right = _share(coverage, "test cuts"), _percent(precision)
        then = f"{answered} are answered, and {right} of these answers are right"
    return f"If {who} answers only when it is sure enough ({sure}), {then}."


def _last(column: pd.Series) -> float | None:
    return float(column.iloc[-1]) if len(column) else None


def _share(value: float, what: str = "cuts") -> str:
    return f"all {what}" if value == 1 else f"{_percent(value)} of the {what}"


def _percent(value: float) -> str:
    """Rounded down, so that nothing is claimed that was not reached."""
    return f"{int(100 * value + 1e-9)} %"
