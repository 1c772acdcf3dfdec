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

import numpy as np

from watkins_ml.annotations.labelling import overlapping
from watkins_ml.evaluation.detection.timeline import Timeline

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


def psds(timeline: Timeline, thresholds: list[np.ndarray], rule: PsdsRule) -> float:
    """The score over the species with calls; NaN without calls or without time in which a false alarm would be known.

    Detections of which less than half lies where somebody has listened do not count. With all distinct scores as
    `thresholds`, (K,) a species and falling, it is exact.
    """
    species = [at for at in range(len(timeline.species)) if len(timeline.calls[at])]
    hours = float(timeline.scored_hours.sum())
    if not species or not hours:
        return float("nan")
    rocs = [_roc(timeline, at, thresholds[at], [each for each in species if each != at], hours, rule) for at in species]
    rates = np.unique(np.concatenate([rate for rate, _ in rocs]))
    ratios = np.stack([ratio[np.searchsorted(rate, rates, side="right") - 1] for rate, ratio in rocs])
    effective = np.maximum(ratios.mean(axis=0) - rule.alpha_st * ratios.std(axis=0), 0.0)
    widths = np.diff(np.append(rates, rule.most_fp))
    return float((effective * widths).sum() / rule.most_fp)


def _roc(
    timeline: Timeline, species: int, thresholds: np.ndarray, others: list[int], hours: float, rule: PsdsRule
) -> tuple[np.ndarray, np.ndarray]:
    """Effective false positives an hour, ascending from 0 to at most `most_fp`, and the best ratio of found calls."""
    counted = [_counts(timeline, species, threshold, others, rule) for threshold in thresholds]
    found, false, crossed = (np.array([0, *each]) for each in zip(*counted, strict=True))
    rate = (false / hours) + rule.alpha_ct * crossed
    ratio = found / len(timeline.calls[species])
    order = np.lexsort((ratio, rate))
    rate, best = rate[order], np.maximum.accumulate(ratio[order])
    last = np.append(np.diff(rate) > 0, True) & (rate <= rule.most_fp)
    return rate[last], best[last]


def _counts(
    timeline: Timeline, species: int, threshold: float, others: list[int], rule: PsdsRule
) -> tuple[int, int, float]:
    """Calls found, false positives, and cross triggers an hour of another species' calls, the mean over the others."""
    spans = timeline.detections(species, threshold).spans
    spans = spans[timeline.is_known(species, spans)]
    calls, lengths = timeline.calls[species], (spans[:, 1] - spans[:, 0])
    row, call, shared = overlapping(spans, calls)
    inside = np.bincount(row, weights=shared, minlength=len(spans))
    relevant = _reaches(inside, rule.dtc * lengths)
    counting = relevant[row]
    held = np.bincount(call[counting], weights=shared[counting], minlength=len(calls))
    found = _reaches(held, rule.gtc * (calls[:, 1] - calls[:, 0])).sum()
    crossed = 0.0
    if rule.cttc is not None and rule.alpha_ct and others:
        rates = [_crossed(spans[~relevant], timeline.calls[each], rule.cttc) for each in others]
        crossed = float(np.mean(rates))
    return int(found), int((~relevant).sum()), crossed


def _crossed(spans: np.ndarray, calls: np.ndarray, least: float) -> float:
    row, _, shared = overlapping(spans, calls)
    inside = np.bincount(row, weights=shared, minlength=len(spans))
    hours = (calls[:, 1] - calls[:, 0]).sum() / 3600
    return float(_reaches(inside, least * (spans[:, 1] - spans[:, 0])).sum() / hours)


def _reaches(seconds: np.ndarray, least: np.ndarray) -> np.ndarray:
    return np.round(seconds, DECIMALS) >= np.round(least, DECIMALS)
