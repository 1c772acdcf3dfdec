"""How sure counts of detections are: never surer than their number allows, also where nothing happened.

Detections of one recording are alike, so whole groups are drawn (`evaluation.intervals`). A bootstrap of zero false
alarms gives zero again and again, though an hour without one does not promise a year; intervals of rates and shares are
therefore never narrower than the exact ones of Poisson (Garwood 1936) and binomial counts (Clopper and Pearson 1934).
"""

from __future__ import annotations

import numpy as np
from scipy.stats import beta, chi2

from watkins_ml.evaluation.intervals import CONFIDENCE, Interval, percentiles

TAIL = (1 - CONFIDENCE) / 2


def rate_interval(events: int, hours: float, drawn: np.ndarray) -> Interval:
    """Events an hour, with what was drawn of it, and at least as wide as Poisson counts have it."""
    if not hours > 0:
        return Interval(np.nan, np.nan, np.nan)
    low = chi2.ppf(TAIL, 2 * events) / 2 if events else 0.0
    high = chi2.ppf(1 - TAIL, 2 * events + 2) / 2
    return _wider(percentiles(events / hours, drawn), low / hours, high / hours)


def share_interval(hits: int, total: int, drawn: np.ndarray) -> Interval:
    """The share of `total` that are hits, as `rate_interval`, and at least as wide as binomial counts have it."""
    if not total:
        return Interval(np.nan, np.nan, np.nan)
    low = beta.ppf(TAIL, hits, total - hits + 1) if hits else 0.0
    high = beta.ppf(1 - TAIL, hits + 1, total - hits) if hits < total else 1.0
    return _wider(percentiles(hits / total, drawn), low, high)


def _wider(interval: Interval, low: float, high: float) -> Interval:
    return Interval(interval.value, float(np.fmin(interval.low, low)), float(np.fmax(interval.high, high)))
