"""The polyphonic sound detection score, PSDS (Bilen et al. 2020, "A Framework for the Robust Evaluation of Sound Event
Detection", ICASSP), over all thresholds as Ebbers et al. 2022 count it ("Threshold Independent Evaluation of Sound
Event Detection Scores", ICASSP).

A detection is relevant where calls fill at least `dtc` of it, else a false positive; a call is found where relevant
detections fill at least `gtc` of it. A false positive that calls of another species fill by at least `cttc` is a cross
trigger of that species. The score is the area under the mean true positive ratio of all species, less `alpha_st`
times its deviation between species, over the false positives an hour (and `alpha_ct` times the cross triggers an hour
of the other species' calls) up to `most_fp`, divided by `most_fp`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from watkins_ml.annotations.labelling import overlapping
from watkins_ml.evaluation.detection.timeline import Detections, Timeline

DECIMALS = 6
"""Seconds are compared to so many digits, as the reference implementation does: sums of parts are not exact."""


@dataclass(frozen=True)
class PsdsRule:
    """Parameters of the score; the defaults are scenario 1 of DCASE task 4, which asks for exact times."""

    dtc: float = 0.7
    gtc: float = 0.7
    cttc: float | None = None
    alpha_ct: float = 0.0
    alpha_st: float = 1.0
    most_fp: float = 100.0
    """An hour."""


SCENARIOS = {"psds1": PsdsRule(), "psds2": PsdsRule(0.1, 0.1, 0.3, 0.5, 1.0)}
"""Those of DCASE task 4: the first asks for exact times, the second for the right species."""


class Roc(NamedTuple):
    """Of one species: what it costs to find how much."""

    rate: np.ndarray
    """Effective false positives an hour, ascending from 0 to at most `most_fp`."""
    ratio: np.ndarray
    """The best share of calls found at no higher rate."""


def psds(rocs: list[Roc], rule: PsdsRule) -> float:
    """The score over species; NaN of none."""
    if not rocs:
        return float("nan")
    rates = np.unique(np.concatenate([each.rate for each in rocs]))
    ratios = np.stack([each.ratio[np.searchsorted(each.rate, rates, side="right") - 1] for each in rocs])
    effective = np.maximum(ratios.mean(axis=0) - rule.alpha_st * ratios.std(axis=0), 0.0)
    widths = np.diff(np.append(rates, rule.most_fp))
    return float((effective * widths).sum() / rule.most_fp)


def roc_of(timeline: Timeline, species: int, sweep: list[Detections], rule: PsdsRule) -> Roc | None:
    """The curve of a species from its detections at falling thresholds; None without calls, or without time.

    Detections of which less than half lies where somebody has listened do not count. With all distinct scores as
    thresholds it is exact. Cross triggers are those of the species with calls.
    """
    calls, hours = timeline.calls[species], float(timeline.scored_hours.sum())
    if not len(calls) or not hours:
        return None
    others = [at for at in range(len(timeline.species)) if at != species and len(timeline.calls[at])]
    crossing = _Others([timeline.calls[at] for at in others]) if others and rule.cttc and rule.alpha_ct else None
    counted = [_counts(found.spans[found.known], calls, crossing, rule) for found in sweep]
    found, false, crossed = np.array([(0, 0, 0.0), *counted], float).T
    rate, ratio = false / hours + rule.alpha_ct * crossed, found / len(calls)
    order = np.lexsort((ratio, rate))
    rate, best = rate[order], np.maximum.accumulate(ratio[order])
    last = np.append(np.diff(rate) > 0, True) & (rate <= rule.most_fp)
    return Roc(rate[last], best[last])


class _Others:
    """The calls of other species, whose cross triggers are counted together."""

    def __init__(self, calls: list[np.ndarray]):
        self.calls = np.concatenate(calls)
        self.of = np.repeat(np.arange(len(calls)), [len(each) for each in calls])
        self.hours = np.array([(each[:, 1] - each[:, 0]).sum() / 3600 for each in calls])

    def crossed(self, spans: np.ndarray, least: float) -> float:
        """Spans that calls of a species fill by a share of `least`, an hour of these calls, the mean over species."""
        row, call, shared = overlapping(spans, self.calls)
        pair, place = np.unique(row * len(self.hours) + self.of[call], return_inverse=True)
        inside = np.bincount(place, weights=shared, minlength=len(pair))
        length = (spans[:, 1] - spans[:, 0])[pair // len(self.hours)]
        reached = pair[_reaches(inside, least * length)] % len(self.hours)
        return float((np.bincount(reached, minlength=len(self.hours)) / self.hours).mean())


def _counts(spans: np.ndarray, calls: np.ndarray, others: _Others | None, rule: PsdsRule) -> tuple[int, int, float]:
    """Calls found, false positives, and cross triggers an hour of another species' calls, the mean over the others."""
    row, call, shared = overlapping(spans, calls)
    inside = np.bincount(row, weights=shared, minlength=len(spans))
    relevant = _reaches(inside, rule.dtc * (spans[:, 1] - spans[:, 0]))
    counting = relevant[row]
    held = np.bincount(call[counting], weights=shared[counting], minlength=len(calls))
    found = _reaches(held, rule.gtc * (calls[:, 1] - calls[:, 0])).sum()
    crossed = 0.0 if others is None or rule.cttc is None else others.crossed(spans[~relevant], rule.cttc)
    return int(found), int((~relevant).sum()), crossed


def _reaches(seconds: np.ndarray, least: np.ndarray) -> np.ndarray:
    return np.round(seconds, DECIMALS) >= np.round(least, DECIMALS)
