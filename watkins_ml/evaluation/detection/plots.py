"""Curves of detections as pictures: precision against recall, and recall against false alarms an hour."""

from __future__ import annotations

from itertools import cycle, islice
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from watkins_ml.evaluation.detection.scores import MACRO, MICRO, RATES, RECALLS, DetectionScores
from watkins_ml.evaluation.lettering import legible
from watkins_ml.evaluation.plots import GREY, RUN_COLOURS, new_figure, open_axes

MOST_NAMED = 6
"""So many species with the most calls have a colour; the others are grey."""
LEAST_RATE = 0.01
"""False alarms an hour at the left end of a logarithmic axis, where none stands too."""
STYLES: dict[str, dict[str, Any]] = {
    MICRO: {"color": "black", "lw": 2.4},
    MACRO: {"color": "black", "lw": 2.0, "ls": "--"},
}


def precision_recall(scores: DetectionScores) -> Figure:
    """Precision (up) against recall of each species with calls, pooled, and the mean of the species; a dot marks each
    species' threshold."""
    fig, axes = _figure()
    table, curves = _of_main(scores)
    for name, style in _styles(table):
        row, curve = table.loc[name], curves[curves["species"] == name]
        label = f"{legible(name)}: AP {row['average_precision']:.3f}"
        axes.plot(curve["recall"], curve["precision"], label=label, **style)
        axes.plot(row["recall"], row["precision"], marker="o", ms=6, color=style["color"], mec="white", zorder=4)
    mean = table.loc[MACRO, "average_precision"]
    axes.plot(RECALLS, scores.mean_precision[scores.main.by], label=f"{MACRO}: AP {mean:.3f}", **STYLES[MACRO])
    axes.set_xlabel("recall: share of calls found")
    axes.set_ylabel("precision: share of detections that are calls")
    axes.set_xlim(0, 1.005)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    return _finished(fig, axes)


def recall_false_alarms(scores: DetectionScores) -> Figure:
    """Recall (up) against false alarms an hour, on a logarithmic axis; a dot marks each species' threshold."""
    fig, axes = _figure()
    table, curves = _of_main(scores)
    highest = LEAST_RATE * 100
    for name, style in _styles(table):
        row, curve = table.loc[name], curves[curves["species"] == name]
        rate, recall = _best(curve)
        axes.plot(np.maximum(rate, LEAST_RATE), recall, label=legible(name), drawstyle="steps-post", **style)
        at = max(row["false_alarms_an_hour"], LEAST_RATE)
        axes.plot(at, row["recall"], marker="o", ms=6, color=style["color"], mec="white", zorder=4)
        highest = max(highest, *rate, at)
    shown = RATES <= highest
    mean = scores.mean_recall[scores.main.by][shown]
    axes.plot(np.maximum(RATES[shown], LEAST_RATE), mean, label=MACRO, **STYLES[MACRO])
    axes.set_xscale("log")
    axes.set_xlim(LEAST_RATE, highest * 1.1)
    axes.set_xlabel(f"false alarms an hour ({LEAST_RATE:g} also stands for none)")
    axes.set_ylabel("recall: share of calls found")
    return _finished(fig, axes)


def _figure() -> tuple[Figure, Axes]:
    fig = new_figure(7.6, 6.2)
    return fig, fig.subplots()


def _of_main(scores: DetectionScores) -> tuple[pd.DataFrame, pd.DataFrame]:
    by = scores.main.by
    table = scores.table[scores.table["criterion"] == by].set_index("species")
    return table, scores.curves[scores.curves["criterion"] == by]


def _styles(table: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    """Species with calls, the most first, and how each is drawn; grey ones, which come first, lie below."""
    species = table.drop(index=[MICRO, MACRO])
    species = species[species["calls"] > 0].sort_values("calls", ascending=False, kind="stable")
    colours = islice(cycle(RUN_COLOURS[:MOST_NAMED]), MOST_NAMED)
    named = [(name, {"color": colour, "lw": 1.5}) for name, colour in zip(species.index, colours, strict=False)]
    others = [(name, {"color": GREY, "lw": 0.8, "alpha": 0.6}) for name in species.index[MOST_NAMED:]]
    return [*others, *named, (MICRO, STYLES[MICRO])]


def _best(curve: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """False alarms an hour, ascending, and the best recall with at most so many."""
    ordered = curve.sort_values(["false_alarms_an_hour", "recall"])
    return ordered["false_alarms_an_hour"].to_numpy(), ordered["recall"].cummax().to_numpy()


def _finished(fig: Figure, axes: Axes) -> Figure:
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    open_axes(axes)
    named = [line for line in axes.lines if line.get_color() != GREY and not str(line.get_label()).startswith("_")]
    fig.legend(handles=named, loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return fig
