"""The scores of detections: by species, together, and by group of recordings; with intervals, and the curves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from watkins_ml.core.metric_names import DETECTION
from watkins_ml.evaluation.detection.bounds import rate_interval, share_interval
from watkins_ml.evaluation.detection.choosing import Wish, choose
from watkins_ml.evaluation.detection.curves import (
    Counts,
    at_thresholds,
    average_precision,
    count,
    f1_of,
    interpolated_precision,
    judge,
    precision_of,
    recall_at_alarms,
    recall_of,
    thresholds_of,
)
from watkins_ml.evaluation.detection.matching import Criterion, MatchRule
from watkins_ml.evaluation.detection.psds import SCENARIOS, Roc, psds, roc_of
from watkins_ml.evaluation.detection.timeline import Timeline
from watkins_ml.evaluation.intervals import HIGH, LOW, Interval, draws_of, percentiles

DRAWS = 1000
"""Of groups: every threshold is counted in each."""

MICRO, MACRO = "all species, pooled", "mean of the species"
"""Rows of the table of species: all detections in one heap, and the mean over species with calls."""
CRITERIA: tuple[Criterion, ...] = ("centre", "overlap")
RECALLS = np.linspace(0, 1, 101)
RATES = np.concatenate([[0.0], np.geomspace(0.01, 10_000, 181)])
"""Where curves of several species are averaged: recall, and false alarms an hour."""


@dataclass(frozen=True)
class DetectionScores:
    """What `score_detections` finds."""

    table: pd.DataFrame
    """A row for each criterion and species, MICRO and MACRO: counts at the species' threshold, shares, rates, and the
    bounds of their intervals."""
    groups: pd.DataFrame
    """A row for each group and species (and MICRO) at the thresholds, by the main criterion."""
    curves: pd.DataFrame
    """criterion, species (MICRO too), threshold, hits, false_alarms, precision, recall, false_alarms_an_hour."""
    mean_precision: dict[Criterion, np.ndarray]
    """At RECALLS, the mean over species with calls."""
    mean_recall: dict[Criterion, np.ndarray]
    """At RATES, the same."""
    thresholds: dict[str, float]
    """Of each species, as given or chosen."""
    undecided: tuple[str, ...]
    """Species of which no threshold could be chosen; they have the given one."""
    psds: dict[str, float]
    """By scenario."""
    hours: float
    """In which false alarms would be known."""
    main: MatchRule

    def metrics(self) -> dict[str, float]:
        """The scores of all species together by the names of metrics, without those that are no numbers."""
        rows = self.table[self.table["criterion"] == self.main.by].set_index("species")
        micro, macro = rows.loc[MICRO], rows.loc[MACRO]
        found = {f"{DETECTION}{name}": value for name, value in self.psds.items()} | {f"{DETECTION}hours": self.hours}
        for scope, row in (("micro", micro), ("macro", macro)):
            for name in ("average_precision", "precision", "recall", "f1", "false_alarms_an_hour"):
                for end in ("", LOW, HIGH):
                    found[f"{DETECTION}{scope}_{name}{end}"] = row.get(f"{name}{end}", np.nan)
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}


def score_detections(
    timeline: Timeline, main: MatchRule, threshold: dict[str, float], wish: Wish | None = None, seed: int = 0
) -> DetectionScores:
    """Score every species of a timeline by both criteria.

    Args:
        main: the criterion by which thresholds are chosen and groups are counted; its `iou` is that of both.
        threshold: of each species.
        wish: with it thresholds are chosen here, and those given stand where none can be.
    """
    names = sorted({track.group for track in timeline.tracks})
    group = np.searchsorted(names, [track.group for track in timeline.tracks])
    weights = draws_of(len(names), DRAWS, seed)
    rules = {by: MatchRule(by, main.iou) for by in CRITERIA}
    counted: dict[Criterion, list[Counts]] = {by: [] for by in CRITERIA}
    rocs: dict[str, list[Roc]] = {name: [] for name in SCENARIOS}
    runs = timeline if timeline.by == "detection" else replace(timeline, by="detection")
    for at in range(len(timeline.species)):
        tried = thresholds_of(timeline.candidates[at])
        sweep = timeline.sweep(at, tried)
        for by, rule in rules.items():
            counted[by].append(count(timeline, at, tried, sweep, rule, group, len(names)))
        merged = sweep if runs is timeline else runs.sweep(at, thresholds_of(runs.scores[at]))  # as PSDS is defined
        for name, scenario in SCENARIOS.items():
            if (roc := roc_of(timeline, at, merged, scenario)) is not None:
                rocs[name].append(roc)
    chosen, undecided = _chosen(timeline.species, counted[main.by], threshold, wish)
    pooled = thresholds_of(timeline.candidates.ravel())
    hours = np.bincount(group, weights=timeline.scored_hours, minlength=len(names))
    parts, rows, curves = {}, [], []
    for by, counts in counted.items():
        parts[by] = [_at_chosen(timeline, at, chosen[name], rules[by], group, len(names))
                     for at, name in enumerate(timeline.species)]  # fmt: skip
        together = _together(counts, pooled, hours)
        rows += _rows(by, timeline, counts, parts[by], together, chosen, weights)
        named = zip((*timeline.species, MICRO), (*counts, together), strict=True)
        curves += [_curve(each).assign(criterion=by, species=name) for name, each in named]
    return DetectionScores(
        pd.DataFrame(rows),
        _groups(names, timeline.species, parts[main.by], hours),
        pd.concat(curves, ignore_index=True),
        {by: _mean_curve(counts, interpolated_precision, RECALLS) for by, counts in counted.items()},
        {by: _mean_curve(counts, recall_at_alarms, RATES) for by, counts in counted.items()},
        chosen,
        undecided,
        {name: psds(rocs[name], scenario) for name, scenario in SCENARIOS.items()},
        float(hours.sum()),
        main,
    )


def _chosen(
    species: tuple[str, ...], counts: list[Counts], given: dict[str, float], wish: Wish | None
) -> tuple[dict[str, float], tuple[str, ...]]:
    """The threshold of each species, and the species of which none could be chosen."""
    if wish is None:
        return dict(given), ()
    found = {name: choose(each, wish) for name, each in zip(species, counts, strict=True)}
    of = {name: given[name] if value is None else value for name, value in found.items()}
    return of, tuple(name for name, value in found.items() if value is None)


def _mean_curve(
    counts: list[Counts], curve: Callable[[Counts, np.ndarray], np.ndarray], places: np.ndarray
) -> np.ndarray:
    """The mean over species with calls, NaN without any."""
    called = [curve(each, places) for each in counts if each.calls.sum()]
    return np.mean(called, axis=0) if called else np.full(len(places), np.nan)


def _at_chosen(
    timeline: Timeline, species: int, threshold: float, rule: MatchRule, group: np.ndarray, groups: int
) -> Counts:
    """Counts at the one threshold that was chosen, which need not be among those of the curve."""
    chosen = np.array([threshold])
    return count(timeline, species, chosen, timeline.sweep(species, chosen), rule, group, groups)


def _together(counts: list[Counts], thresholds: np.ndarray, hours: np.ndarray) -> Counts:
    """All species in one heap, at common thresholds."""
    found = [at_thresholds(each, thresholds) for each in counts]
    none = np.zeros((len(thresholds), len(hours)), int)
    hits, alarms = (sum((pair[which] for pair in found), none) for which in (0, 1))
    calls = sum((each.calls for each in counts), np.zeros(len(hours), int))
    return Counts(thresholds, hits, alarms, calls, hours)


def _rows(
    by: str,
    timeline: Timeline,
    counts: list[Counts],
    parts: list[Counts],
    together: Counts,
    chosen: dict[str, float],
    weights: np.ndarray,
) -> list[dict[str, object]]:
    """The rows of one criterion; the draws of the mean over species are the means of their draws."""
    rows, drawn = [], []
    everything = Counts(
        np.array([np.nan]),
        sum((each.hits for each in parts), np.zeros((1, weights.shape[1]), int)),
        sum((each.alarms for each in parts), np.zeros((1, weights.shape[1]), int)),
        together.calls,
        together.hours,
    )
    for name, curve, part in zip((*timeline.species, MICRO), (*counts, together), (*parts, everything), strict=True):
        row, draws = _row(curve, part, weights)
        rows.append({"criterion": by, "species": name, "threshold": chosen.get(name, np.nan)} | row)
        drawn.append(draws)
    called = [at for at, part in enumerate(parts) if part.calls.sum()]
    mean: dict[str, object] = {"criterion": by, "species": MACRO, "threshold": np.nan}
    for quantity in ("average_precision", "f1", "recall", "precision"):
        values = np.array([rows[at][quantity] for at in called], float)
        of_draws = np.stack([drawn[at][quantity] for at in called]) if called else np.empty((0, 0))
        with np.errstate(all="ignore"):
            value = _mean(values[:, None])[0] if called else np.nan
            mean |= _named(quantity, percentiles(value, _mean(of_draws)))
    return [*rows, mean]


def _mean(values: np.ndarray) -> np.ndarray:
    """The means over the first axis of what is a number, NaN where none is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0))


def _row(curve: Counts, part: Counts, weights: np.ndarray) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The numbers of one species at its threshold and over all, and what each was in every draw of groups."""
    hits, alarms = part.hits[0], part.alarms[0]
    found, false, calls, hours = int(hits.sum()), int(alarms.sum()), int(part.calls.sum()), float(part.hours.sum())
    of = {"hits": weights @ hits, "alarms": weights @ alarms, "calls": weights @ part.calls}
    with np.errstate(all="ignore"):
        drawn = {
            "average_precision": average_precision(weights @ curve.hits.T, weights @ curve.alarms.T, of["calls"]),
            "f1": f1_of(of["hits"], of["alarms"], of["calls"]),
            "recall": recall_of(of["hits"], of["calls"]),
            "precision": precision_of(of["hits"], of["alarms"]),
            "rate": of["alarms"] / (weights @ part.hours),
        }
    over_all = average_precision(curve.hits.sum(axis=1), curve.alarms.sum(axis=1), curve.calls.sum())
    row: dict[str, object] = {"calls": calls, "hits": found, "misses": calls - found, "false_alarms": false}
    row |= {"hours": hours} | _named("average_precision", percentiles(float(over_all), drawn["average_precision"]))
    f1 = float(f1_of(found, false, calls)) if calls else np.nan
    row |= _named("f1", percentiles(f1, drawn["f1"]))
    row |= _named("recall", share_interval(found, calls, drawn["recall"]))
    row |= _named("precision", share_interval(found, found + false, drawn["precision"]))
    return row | _named("false_alarms_an_hour", rate_interval(false, hours, drawn["rate"])), drawn


def _named(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, name + LOW: interval.low, name + HIGH: interval.high}


def _curve(counts: Counts) -> pd.DataFrame:
    hits, alarms = counts.hits.sum(axis=1), counts.alarms.sum(axis=1)
    hours = counts.hours.sum()
    return pd.DataFrame(
        {
            "threshold": counts.thresholds,
            "hits": hits,
            "false_alarms": alarms,
            "precision": precision_of(hits, alarms),
            "recall": recall_of(hits, counts.calls.sum()),
            "false_alarms_an_hour": alarms / hours if hours else np.nan,
        }
    )


def _groups(names: list[str], species: tuple[str, ...], parts: list[Counts], hours: np.ndarray) -> pd.DataFrame:
    rows = []
    for at, group in enumerate(names):
        each = [(int(p.hits[0, at]), int(p.alarms[0, at]), int(p.calls[at]), float(p.hours[at])) for p in parts]
        everything = (
            sum(h for h, *_ in each),
            sum(a for _, a, *_ in each),
            sum(c for *_, c, _ in each),
            float(hours[at]),
        )
        for name, (hits, alarms, calls, time) in zip((*species, MICRO), (*each, everything), strict=True):
            row: dict[str, object] = {"group": group, "species": name, "calls": calls, "hits": hits}
            row |= {"misses": calls - hits, "false_alarms": alarms, "hours": time}
            row |= _named("recall", share_interval(hits, calls, np.empty(0)))
            row |= _named("precision", share_interval(hits, hits + alarms, np.empty(0)))
            row["f1"] = float(f1_of(hits, alarms, calls))
            rows.append(row | _named("false_alarms_an_hour", rate_interval(alarms, time, np.empty(0))))
    return pd.DataFrame(rows)


def verdict_rows(timeline: Timeline, thresholds: dict[str, float], rule: MatchRule) -> pd.DataFrame:
    """Every detection and every call that has none, with its verdict: hit, false alarm, ignored, miss.

    Columns recording, channel, group, species, start_s, end_s (seconds in the recording), score, verdict, and of a hit
    call_start_s and call_end_s. A miss has the times of the call, and no score.
    """
    tables = []
    for at, name in enumerate(timeline.species):
        verdicts = judge(timeline, at, timeline.detections(at, thresholds[name]), rule)
        found, calls = verdicts.detections, timeline.calls[at]
        hit = verdicts.call >= 0
        of_hit = np.full((len(hit), 2), np.nan)
        of_hit[hit] = calls[verdicts.call[hit]]
        missed = np.setdiff1d(np.arange(len(calls)), verdicts.call)
        track = np.concatenate([found.track, timeline.call_tracks(at)[missed]])
        times = np.concatenate([np.hstack([found.spans, of_hit]),
                                np.hstack([calls[missed], np.full((len(missed), 2), np.nan)])])  # fmt: skip
        times -= timeline.offsets[track][:, None]
        verdict = np.where(hit, "hit", np.where(verdicts.false, "false alarm", "ignored"))
        table = pd.DataFrame(times, columns=["start_s", "end_s", "call_start_s", "call_end_s"])
        table.insert(0, "track", track)
        table.insert(1, "species", name)
        table["score"] = np.concatenate([found.score, np.full(len(missed), np.nan)])
        table["verdict"] = np.concatenate([verdict.astype(object), np.full(len(missed), "miss", object)])
        tables.append(table)
    rows = pd.concat(tables, ignore_index=True)
    about = pd.DataFrame([(each.recording, each.channel, each.group) for each in timeline.tracks],
                         columns=["recording", "channel", "group"])  # fmt: skip
    rows = pd.concat([about.iloc[rows["track"]].reset_index(drop=True), rows], axis=1)
    return rows.sort_values(["track", "start_s", "species"], ignore_index=True).drop(columns="track")
