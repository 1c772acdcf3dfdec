"""What the page's tables hold, as plain rows for the template."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from watkins_ml.config import flatten
from watkins_ml.core import metric_names
from watkins_ml.evaluation.controls import CONTROLS, WITH_AUDIO
from watkins_ml.evaluation.intervals import QUANTITIES, Interval, score_intervals
from watkins_ml.evaluation.metric_rows import GROUPS, Row
from watkins_ml.evaluation.runs import (
    ComparedRun,
    comparison_table,
    data_warning,
    percent,
)
from watkins_ml.training.monitor import TITLES, kept

DASH = "–"
RARE_TAPES, RARE_CUTS = 5, 20
"""A species with fewer tapes or fewer cuts than this in the whole data is shown as rare."""


class Bar(NamedTuple):
    """One line of the headline chart; shares are 0..1, without an interval low and high equal value."""

    title: str
    text: str
    value: float
    low: float
    high: float
    is_control: bool


def headline_charts(runs: list[ComparedRun]) -> dict[str, list[Bar]]:
    """Accuracy and macro F1: each run with its interval over tapes, then what the controls reach."""
    intervals = [score_intervals(run.predictions) for run in runs]
    charts = {}
    for key, title in QUANTITIES.items():
        bars = [_bar(run.title, scores[key]) for run, scores in zip(runs, intervals, strict=True)]
        if data_warning(runs) is None:
            titles = {name: f"no audio: {title}" for name, title in CONTROLS.items()} | WITH_AUDIO
            known = {name: run.metrics.get(metric_names.control(name, key)) for run in runs for name in titles}
            bars += [
                Bar(titles[name], percent(value), value, value, value, True)
                for name, value in known.items()
                if value is not None
            ]
        charts[title] = bars
    return charts


def _bar(title: str, interval: Interval) -> Bar:
    value, low, high = interval
    return Bar(title, str(interval), value, *((value, value) if np.isnan(low) else (low, high)), False)


def facts(runs: list[ComparedRun]) -> list[tuple[str, list[str]]]:
    def of(key: str, form: str = "{}") -> list[str]:
        return [DASH if (value := run.info.get(key)) is None else form.format(value) for run in runs]

    best = [run.metrics.get(metric_names.BEST_EPOCH) for run in runs]
    epochs = [_kept(run, at) for at, run in zip(best, runs, strict=True)]
    protocol = [f"{run.info['split_protocol']}{', leaky reference' * run.is_leaky}" for run in runs]
    rows = [
        ("Run", of("name")),
        ("Model", of("family")),
        ("Data digest", of("data_digest")),
        ("Split protocol", protocol),
        ("Folds, pooled", of("folds")),
        ("Mean of", [_members(run) for run in runs]),
        ("Species", of("species")),
        ("Training cuts", of("train", "{:,}")),
        ("Validation cuts", of("val", "{:,}")),
        ("Test cuts", of("test", "{:,}")),
        ("Licence of its pretrained part", of("licence")),
        ("Parameters", of("parameters", "{:,}")),
        ("Mean time of an epoch", of("epoch_seconds", "{:.1f} s")),
        ("Kept network", epochs),
        ("MLflow run", of("mlflow_run_id")),
    ]
    return [(title, values) for title, values in rows if set(values) != {DASH}]


def _members(run: ComparedRun) -> str:
    """The models that an ensemble is made of."""
    return ", ".join(f"{each['name']} ({each['family']})" for each in run.info.get("members") or []) or DASH


def _kept(run: ComparedRun, epoch: float | None) -> str:
    """Which network the run is about, and by what rule."""
    if run.info.get("members"):
        return DASH
    monitor, refit = run.config["train"]["monitor"], run.config["train"]["refit"]
    if "folds" in run.info:
        return f"one a fold, by {TITLES.get(monitor, monitor)}"
    return DASH if epoch is None else kept(int(epoch), len(run.history), monitor, refit)


def metric_groups(runs: list[ComparedRun]) -> dict[str, list[tuple[str, list[tuple[str, bool]]]]]:
    """For each group of metrics its rows: title, then each run's value as text and whether it is best."""
    table = comparison_table(runs)
    rankable = table.attrs["warning"] is None
    known = [row for row in table.index if table.loc[row].notna().any()]
    return {
        group: [(row.title, _cells(table.loc[row.key], row, rankable)) for row in rows if row.key in known]
        for group, rows in GROUPS.items()
        if any(row.key in known for row in rows)
    }


def _cells(values: pd.Series, row: Row, rankable: bool) -> list[tuple[str, bool]]:
    known = values.dropna()
    best = row.best(known) if rankable and row.best and known.nunique() > 1 else None
    texts = [DASH if np.isnan(v) else percent(v) if row.percent else f"{v:.3f}" for v in values]
    return list(zip(texts, [value == best for value in values], strict=True))


class Species(NamedTuple):
    """One species in the report of every run; scores are 0..1, None where a run has no test cut of it."""

    name: str
    test_cuts: int
    cuts: int | None
    """In the whole data, None where a run of an older version does not say."""
    tapes: int | None
    scores: list[dict[str, float | None]]
    """precision, recall and f1 by run."""
    gain: float | None
    """F1 of the last run less that of the first, in points."""
    reason: str
    """Why it is not tested."""

    @property
    def is_rare(self) -> bool:
        return self.cuts is not None and self.tapes is not None and (self.tapes < RARE_TAPES or self.cuts < RARE_CUTS)


def species_rows(runs: list[ComparedRun]) -> list[Species]:
    """Every species of the runs' reports, by name."""
    reports = [run.species() for run in runs]
    data = {name: row for run in reversed(runs) for name, row in run.species_in_data().iterrows()}
    rows = []
    for name in sorted(set().union(*(report.index for report in reports))):
        scores = [{key: _number(report[key].get(name)) for key in ("precision", "recall", "f1")} for report in reports]
        first, last = scores[0]["f1"], scores[-1]["f1"]
        known = data.get(name)
        rows.append(
            Species(
                name=name,
                test_cuts=max(int(report.support.get(name, 0)) for report in reports),
                cuts=None if known is None else int(known.cuts),
                tapes=None if known is None else int(known.tapes),
                scores=scores,
                gain=None if first is None or last is None else 100 * (last - first),
                reason="no test cut" if known is None or not known.not_tested else known.not_tested,
            )
        )
    return rows


def _number(value: float | None) -> float | None:
    return None if value is None or np.isnan(value) else float(value)


def mean_f1(rows: list[Species], run: int) -> float | None:
    """Macro F1 of one run over some of the tested species."""
    known = [f1 for row in rows if (f1 := row.scores[run]["f1"]) is not None]
    return sum(known) / len(known) if known else None


class Matrix(NamedTuple):
    """Cuts by true (rows) and predicted species; a row has its name, its cuts and (count, share of the row) a cell."""

    run: str
    names: list[str]
    rows: list[tuple[str, int, list[tuple[int, float]]]]


def confusion(run: ComparedRun) -> Matrix:
    names = run.classes
    counts = pd.crosstab(run.predictions["species"], run.predictions["predicted"])
    counts = counts.reindex(index=names, columns=names, fill_value=0).to_numpy()
    rows = [
        (name, int(row.sum()), [(int(count), count / max(row.sum(), 1)) for count in row])
        for name, row in zip(names, counts, strict=True)
    ]
    return Matrix(run.title, names, rows)


def settings(runs: list[ComparedRun]) -> list[tuple[str, list[str], bool]]:
    """The configurations, flattened: dotted key, a value for each run, and whether the values differ."""
    flat: list[dict[str, Any]] = [flatten(run.config) for run in runs]
    keys = list(dict.fromkeys(key for each in flat for key in each))
    rows = [(key, [str(each.get(key, DASH)) for each in flat]) for key in keys]
    return [(key, values, len(set(values)) > 1) for key, values in rows]
