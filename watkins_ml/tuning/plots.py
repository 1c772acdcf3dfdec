"""The plots of a study, from its trials alone: Figures made without pyplot, as in `evaluation.plots`.

Optuna's own matplotlib plots were tried first: they change pyplot's style for the whole process, leave their figures
open, cut dotted names off and give 40 trials 40 legend entries.

In all plots a complete trial is a blue circle or line, a pruned one grey with a cross, and the best has a star.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from optuna.trial import FrozenTrial

from watkins_ml.evaluation.plots import BAR, GREY, new_figure, open_axes, save
from watkins_ml.tuning.importance import PlottedTrials, importances
from watkins_ml.tuning.scale import Scale, label, percent
from watkins_ml.tuning.trials import value_of

BEST = "#D55E00"
COLOURS = "viridis_r"
VALUE = "validation macro F1"
FEW = 4
"""With fewer complete trials the importance of parameters is little more than noise."""
COLUMNS = 3


def write_study_plots(study: optuna.Study, folder: Path) -> None:
    """Write history.png, importance.png and slice.png of `study` into `folder`.

    The study's value is the validation macro F1 (0..1, maximised) and the step of a reported value its epoch. A plot
    that needs more trials is left out.
    """
    drawn = PlottedTrials.of(study)
    for name, draw in PLOTS.items():
        figure = draw(drawn)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save(figure, folder / f"{name}.png")


def history(drawn: PlottedTrials) -> Figure | None:
    """Each trial's value by its number, and the best so far."""
    pruned = [(trial.number, _last(trial)[1]) for trial in drawn.pruned if _epochs(trial)]
    if not drawn.complete and not pruned:
        return None
    figure = new_figure(9, 5)
    axes = figure.subplots()
    if drawn.complete:
        numbers = [trial.number for trial in drawn.complete]
        so_far = np.maximum.accumulate(drawn.values)
        end = max(numbers + [number for number, _ in pruned])  # the best stays the best after the last complete trial
        axes.step([*numbers, end], [*so_far, so_far[-1]], where="post", color=BEST, lw=1.5, label="best so far")
        axes.plot(numbers, drawn.values, "o", color=BAR, mec="white", ms=8, label=f"complete ({len(numbers)})")
        _star(axes, drawn.best.number, drawn.best)
    if pruned:
        words = f"pruned, at its last epoch ({len(pruned)})"
        axes.plot(*zip(*pruned, strict=True), "x", color=GREY, ms=7, label=words)
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _value_axis(axes)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def importance(drawn: PlottedTrials) -> Figure | None:
    """How much of the value's variance each parameter explains by itself (fANOVA, Hutter et al. 2014), in per cent."""
    shares = importances(drawn)
    if not shares:
        return None
    count = len(drawn.complete)
    figure = new_figure(9, 1.9 + 0.5 * len(shares))
    axes = figure.subplots()
    names, lengths = list(shares)[::-1], list(shares.values())[::-1]
    bars = axes.barh(range(len(names)), lengths, color=BAR if count >= FEW else "#C8C8C8", height=0.65)
    axes.bar_label(bars, [f"{share:.0%}" for share in lengths], padding=4, fontsize=11)
    axes.set_yticks(range(len(names)), [label(name) for name in names], fontsize=11)
    axes.set_xlim(0, 1.1 * max(lengths))
    axes.xaxis.set_major_formatter(lambda share, _: percent(share))
    axes.set_xlabel("share of the variance that single parameters explain (fANOVA)")
    few = "\n(too few trials: little more than noise)" if count < FEW else ""
    without = f"; {len(drawn.pruned)} pruned not counted" if drawn.pruned else ""
    figure.suptitle(f"Importance for {VALUE}, from {count} complete trials{without}{few}", fontsize=12)
    open_axes(axes, "x")
    return figure


def slices(drawn: PlottedTrials) -> Figure | None:
    """The value by each parameter alone; later trials are darker, and ticks at the bottom are pruned trials."""
    if not drawn.complete or not drawn.space:
        return None
    columns = min(COLUMNS, len(drawn.space))
    rows = -(-len(drawn.space) // columns)
    figure = new_figure(4 * columns + 1, 3.2 * rows + 0.6)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in grid.flat[len(drawn.space) :]:
        axes.set_visible(False)
    numbers = Normalize(0, max(1, *(trial.number for trial in drawn.complete + drawn.pruned)))
    for axes, (key, distribution) in zip(grid.flat, drawn.space.items(), strict=False):
        _slice(axes, key, Scale.of(distribution), drawn, numbers)
        _value_axis(axes, VALUE if axes in grid[:, 0] else "")
    bar = figure.colorbar(ScalarMappable(numbers, COLOURS), ax=grid, aspect=30, pad=0.015)
    bar.set_label("trial")
    bar.locator = MaxNLocator(integer=True)
    marks = [
        _legend(f"complete ({len(drawn.complete)})", GREY, "o", 8),
        _legend(_best_label(drawn.best), BEST, "*", 15),
    ]
    if drawn.pruned:
        marks.append(_legend(f"pruned ({len(drawn.pruned)})", GREY, "|", 11))
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _slice(axes: Axes, key: str, scale: Scale, drawn: PlottedTrials, numbers: Normalize) -> None:
    having = [trial for trial in drawn.complete if key in trial.params]
    axes.scatter(
        [scale.at(trial.params[key]) for trial in having], [value_of(trial) for trial in having], s=55, cmap=COLOURS,
        norm=numbers, c=[trial.number for trial in having], ec="white", lw=0.6, zorder=3, clip_on=False,
    )  # fmt: skip
    if key in drawn.best.params:
        _star(axes, scale.at(drawn.best.params[key]), drawn.best)
    tried = np.array([scale.at(trial.params[key]) for trial in drawn.pruned if key in trial.params])
    tried += np.random.default_rng(0).uniform(-0.012, 0.012, len(tried))  # so that equal values can be counted
    axes.plot(tried, [0.04] * len(tried), "|", color=GREY, ms=11, transform=axes.get_xaxis_transform())
    axes.margins(y=0.12)
    axes.set_xticks(*scale.ticks, fontsize=9)
    axes.set_xlim(-0.06, 1.06)
    axes.set_xlabel(label(key), fontsize=11)


PLOTS: dict[str, Callable[[PlottedTrials], Figure | None]] = {
    "history": history,
    "importance": importance,
    "slice": slices,
}


def _epochs(trial: FrozenTrial) -> dict[int, float]:
    """Epoch to reported value, in order, where it is a number."""
    return {epoch: value for epoch, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)}


def _last(trial: FrozenTrial) -> tuple[int, float]:
    return list(_epochs(trial).items())[-1]


def _star(axes: Axes, x: float, best: FrozenTrial) -> None:
    axes.plot(x, value_of(best), "*", color=BEST, ms=17, mec="white", zorder=4, label=_best_label(best), clip_on=False)


def _best_label(best: FrozenTrial) -> str:
    return f"best: {best.value:.1%} (trial {best.number})"


def _legend(label: str, colour: str, marker: str, size: float, line: str = "") -> Line2D:
    return Line2D([], [], color=colour, marker=marker, ms=size, ls=line, label=label)


def _value_axis(axes: Axes, title: str = VALUE) -> None:
    axes.set_ylabel(title)
    axes.yaxis.set_major_formatter(lambda value, _: percent(value))
    open_axes(axes)
