"""Hits and false alarms at every threshold, and what follows: precision, recall, average precision, alarms an hour.

Average precision is the sum over falling thresholds of (recall − highest recall so far) × precision, where that is
positive: the usual one of ranked detections (Zhu 2004, "Recall, Precision and Average Precision"), also where runs of
windows grow together at a lower threshold so that recall falls.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from watkins_ml.evaluation.detection.matching import MatchRule, match
from watkins_ml.evaluation.detection.timeline import Detections, Timeline

ALL_RANKS = 100
"""So many of the highest scores are thresholds each."""
MOST_THRESHOLDS = 400
"""Lower scores are thinned: each threshold has a few per cent more windows than the one above."""


class Counts(NamedTuple):
    """Of one species, at thresholds that fall, by group of recordings."""

    thresholds: np.ndarray
    """(K,)."""
    hits: np.ndarray
    """int, (K, groups): detections that stand for a call."""
    alarms: np.ndarray
    """int, (K, groups): false ones, where they would be known."""
    calls: np.ndarray
    """int, (groups,)."""
    hours: np.ndarray
    """float, (groups,): where a false alarm would be known."""


class Verdicts(NamedTuple):
    """What the detections of a species at a threshold are."""

    detections: Detections
    call: np.ndarray
    """int, (n,): the number of the call that each stands for, or -1."""
    false: np.ndarray
    """bool, (n,): a false alarm; what is neither is ignored, since nobody has listened there."""


def thresholds_of(scores: np.ndarray, most: int = MOST_THRESHOLDS) -> np.ndarray:
    """Falling thresholds for scores (n,), NaN left out: each distinct score, or a selection as dense as it matters."""
    distinct = np.unique(scores[~np.isnan(scores)])[::-1]
    if len(distinct) <= most:
        return distinct
    top = min(ALL_RANKS, most // 2)
    ranks = np.geomspace(top, len(distinct) - 1, most - top).round().astype(int)
    return distinct[np.unique(np.concatenate([np.arange(top), ranks]))]


def judge(timeline: Timeline, species: int, found: Detections, rule: MatchRule) -> Verdicts:
    """Match detections of a species, and tell false alarms from what nobody can judge."""
    call = match(found.spans, timeline.calls[species], rule)
    return Verdicts(found, call, (call < 0) & found.known)


def count(
    timeline: Timeline,
    species: int,
    thresholds: np.ndarray,
    sweep: list[Detections],
    rule: MatchRule,
    group: np.ndarray,
    groups: int,
) -> Counts:
    """Hits and false alarms of a species at falling thresholds.

    Args:
        sweep: the detections at each threshold.
        group: int, (tracks,): which of the `groups` a track belongs to.
    """
    hits, alarms = (np.zeros((len(thresholds), groups), int) for _ in range(2))
    for number, found in enumerate(sweep):
        verdicts = judge(timeline, species, found, rule)
        of_detection = group[found.track]
        hits[number] = np.bincount(of_detection[verdicts.call >= 0], minlength=groups)
        alarms[number] = np.bincount(of_detection[verdicts.false], minlength=groups)
    calls = np.bincount(group[timeline.call_tracks(species)], minlength=groups)
    hours = np.bincount(group, weights=timeline.hours[:, species], minlength=groups)
    return Counts(thresholds, hits, alarms, calls, hours)


def precision_of(hits: ArrayLike, alarms: ArrayLike) -> np.ndarray:
    """NaN where there are no detections."""
    return _divided(hits, np.asarray(hits) + np.asarray(alarms))


def recall_of(hits: ArrayLike, calls: ArrayLike) -> np.ndarray:
    """NaN where there are no calls."""
    return _divided(hits, np.broadcast_to(calls, np.shape(hits)))


def f1_of(hits: ArrayLike, alarms: ArrayLike, calls: ArrayLike) -> np.ndarray:
    """NaN where there are neither detections nor calls."""
    twice = 2 * np.asarray(hits)
    return _divided(twice, np.asarray(hits) + np.asarray(alarms) + np.asarray(calls))


def _divided(one: ArrayLike, other: ArrayLike) -> np.ndarray:
    one, other = np.asarray(one, float), np.asarray(other, float)
    return np.divide(one, other, out=np.full(np.broadcast_shapes(one.shape, other.shape), np.nan), where=other > 0)


def average_precision(hits: ArrayLike, alarms: ArrayLike, calls: ArrayLike) -> np.ndarray:
    """From counts (..., K) at falling thresholds, and calls (...,), to (...,); NaN where there are no calls."""
    calls = np.asarray(calls, float)[..., None]
    recall = recall_of(hits, calls)
    precision = np.nan_to_num(precision_of(hits, alarms))
    best = np.maximum.accumulate(recall, axis=-1)
    gained = np.diff(best, axis=-1, prepend=0.0)
    return (gained * precision).sum(axis=-1)


def at_thresholds(counts: Counts, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hits and false alarms (K', groups) at other falling thresholds: those of the next threshold above or equal."""
    rank = np.searchsorted(-counts.thresholds, -thresholds, side="right")
    none = np.zeros((1, len(counts.calls)), int)
    return np.concatenate([none, counts.hits])[rank], np.concatenate([none, counts.alarms])[rank]


def interpolated_precision(counts: Counts, recalls: np.ndarray) -> np.ndarray:
    """The best precision at that recall or a higher one, 0 where it is not reached; for curves that are averaged."""
    recall, precision = recall_of(counts.hits.sum(axis=1), counts.calls.sum()), _summed_precision(counts)
    order = np.argsort(recall, kind="stable")
    best = np.append(np.maximum.accumulate(precision[order][::-1])[::-1], 0.0)
    return best[np.searchsorted(recall[order], recalls - 1e-12)]


def _summed_precision(counts: Counts) -> np.ndarray:
    return np.nan_to_num(precision_of(counts.hits.sum(axis=1), counts.alarms.sum(axis=1)))


def recall_at_alarms(counts: Counts, rates: np.ndarray) -> np.ndarray:
    """The best recall with at most so many false alarms an hour; 0 where even the surest detection is one too many."""
    hours = counts.hours.sum()
    rate, recall = _divided(counts.alarms.sum(axis=1), hours), recall_of(counts.hits.sum(axis=1), counts.calls.sum())
    order = np.argsort(rate, kind="stable")
    best = np.concatenate([[0.0], np.maximum.accumulate(recall[order])])
    return best[np.searchsorted(rate[order], rates, side="right")]
