"""The pictures of a study, from its trials alone: Figures made without pyplot, as in `evaluation.plots`.

Optuna's own matplotlib pictures were tried first: they change pyplot's style for the whole process, leave their figures
open, cut dotted names off and give 40 trials 40 legend entries.

In all pictures a complete trial is a blue circle or line, a pruned one grey with a cross, and the best has a star.
Trials that failed, are not finished, or repeat an earlier point (`duplicate_of`) are not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from watkins_ml.evaluation.plots import BAR, GREY, save
from watkins_ml.tuning.scale import Scale, even, label, percent
from watkins_ml.tuning.study import best_trial

BEST = "#D55E00"
COLOURS = "viridis_r"
VALUE = "validation macro F1"
FEW = 4
"""With fewer complete trials the importance of parameters is little more than noise."""
COLUMNS = 3


@dataclass(frozen=True)
class Drawn:
    """The trials that are drawn, by number, and what they searched; every complete one has a finite value."""

    complete: list[FrozenTrial]
    pruned: list[FrozenTrial]
    space: dict[str, BaseDistribution]

    @classmethod
    def of(cls, study: optuna.Study) -> Drawn:
        trials = [trial for trial in study.get_trials(deepcopy=False) if "duplicate_of" not in trial.user_attrs]
        complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and math.isfinite(trial.value)]
        pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
        space: dict[str, BaseDistribution] = {}
        for trial in complete + pruned:
            space = trial.distributions | space
        return cls(complete, pruned, {key: space[key] for key in sorted(space)})

    @property
    def best(self) -> FrozenTrial | None:
        return best_trial(self.complete)

    @property
    def values(self) -> list[float]:
        return [trial.value for trial in self.complete]


def write_study_plots(study: optuna.Study, folder: Path) -> None:
    """Write history.png, importance.png, slice.png, parallel.png and intermediate.png of `study` into `folder`.

    The study's value is the validation macro F1 (0..1, maximised) and the step of a reported value its epoch. A picture
    that the trials do not suffice for is left out.
    """
    drawn = Drawn.of(study)
    for name, draw in PICTURES.items():
        figure = draw(drawn)
        if figure is not None:
            folder.mkdir(parents=True, exist_ok=True)
            save(figure, folder / f"{name}.png")


def history(drawn: Drawn) -> Figure | None:
    """Each trial's value by its number, and the best so far."""
    pruned = [(trial.number, _last(trial)[1]) for trial in drawn.pruned if _epochs(trial)]
    if not drawn.complete and not pruned:
        return None
    figure = _figure(9, 5)
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


def importance(drawn: Drawn) -> Figure | None:
    """How much of the value's variance each parameter explains by itself (fANOVA, Hutter et al. 2014), in per cent."""
    shares = importances(drawn)
    if not shares:
        return None
    count = len(drawn.complete)
    figure = _figure(9, 1.9 + 0.5 * len(shares))
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
    _plain(axes, "x")
    return figure


def importances(drawn: Drawn) -> dict[str, float]:
    """Parameter to its share (they sum to 1), greatest first; empty where there is nothing to tell apart.

    Optuna's evaluator weighs a log-uniform parameter by its plain value, where nine tenths of a range are its last
    decade; so it is given the logarithms, as the sampler draws them. Pruned trials have no value to compare.
    """
    keys = [key for key in drawn.space if all(key in trial.params for trial in drawn.complete)]
    varied = [key for key in keys if len({repr(trial.params[key]) for trial in drawn.complete}) > 1]
    if len(keys) < 2 or not varied or np.ptp(drawn.values) < 1e-9:
        return {}
    scales = {key: even(drawn.space[key]) for key in keys}
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, direction="maximize")
    for trial in drawn.complete:
        params = {key: convert(trial.params[key]) for key, (_, convert) in scales.items()}
        distributions = {key: distribution for key, (distribution, _) in scales.items()}
        study.add_trial(optuna.create_trial(value=trial.value, params=params, distributions=distributions))
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))


def slices(drawn: Drawn) -> Figure | None:
    """The value by each parameter alone; later trials are darker, and ticks at the bottom are pruned trials."""
    if not drawn.complete or not drawn.space:
        return None
    columns = min(COLUMNS, len(drawn.space))
    rows = -(-len(drawn.space) // columns)
    figure = _figure(4 * columns + 1, 3.2 * rows + 0.6)
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
    marks = [_legend(f"complete ({len(drawn.complete)})", GREY, "o", 8), _legend(_said(drawn.best), BEST, "*", 15)]
    if drawn.pruned:
        marks.append(_legend(f"pruned ({len(drawn.pruned)})", GREY, "|", 11))
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _slice(axes: Axes, key: str, scale: Scale, drawn: Drawn, numbers: Normalize) -> None:
    having = [trial for trial in drawn.complete if key in trial.params]
    axes.scatter(
        [scale.at(trial.params[key]) for trial in having], [trial.value for trial in having], s=55, cmap=COLOURS,
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


def parallel(drawn: Drawn) -> Figure | None:
    """A line a trial through all its parameters to its value; pruned trials end before the value."""
    complete = [trial for trial in drawn.complete if drawn.space.keys() <= trial.params.keys()]
    pruned = [trial for trial in drawn.pruned if drawn.space.keys() <= trial.params.keys()]
    if not complete or not drawn.space:
        return None
    norm = Normalize(min(drawn.values), max(drawn.values))
    scales = [Scale.of(distribution) for distribution in drawn.space.values()]
    scales.append(Scale.of(FloatDistribution(norm.vmin, norm.vmax), percent))
    figure = _figure(max(7, 1.9 * len(scales)), 5.8)
    axes = figure.subplots()
    for trial in pruned:
        axes.plot(_heights(trial, drawn, scales), color="#BBBBBB", lw=0.9, alpha=0.7)
    colours = ScalarMappable(norm, COLOURS)
    for trial in sorted(complete, key=lambda trial: (trial.value, -trial.number)):
        heights = [*_heights(trial, drawn, scales), scales[-1].at(trial.value)]
        is_best = trial is drawn.best
        axes.plot(heights, color=BEST if is_best else colours.to_rgba(trial.value), lw=3 if is_best else 1.6)
    for place, scale in enumerate(scales):
        _coordinate(axes, place, scale)
    axes.set_xticks(range(len(scales)), [*map(_two_lines, drawn.space), "validation\nmacro F1"], fontsize=10)
    axes.set_xlim(0, len(scales) - 1)
    axes.set_ylim(-0.04, 1.04)
    axes.yaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    good = colours.cmap(1.0)
    marks = [
        _legend(f"complete ({len(complete)}), darker is better", good, "", 0, "-"),
        _legend(_said(drawn.best), BEST, "", 0, "-"),
    ]
    if pruned:
        marks.append(_legend(f"pruned ({len(pruned)})", "#BBBBBB", "", 0, "-"))
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
    return figure


def _coordinate(axes: Axes, place: int, scale: Scale) -> None:
    axes.axvline(place, color="black", lw=0.8, zorder=1, clip_on=False)
    for height, words in zip(*scale.ticks, strict=True):
        axes.annotate(
            words, (place, height), (4, 0), textcoords="offset points", va="center", fontsize=9, zorder=5,
            bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8}, annotation_clip=False,
        )  # fmt: skip


def intermediate(drawn: Drawn) -> Figure | None:
    """The value by epoch, a line a trial."""
    complete, pruned = ([trial for trial in part if _epochs(trial)] for part in (drawn.complete, drawn.pruned))
    if not complete and not pruned:
        return None
    figure = _figure(9, 5.4)
    axes = figure.subplots()
    for trial in pruned:
        axes.plot(*_curve(trial), color=GREY, lw=0.9, alpha=0.6)
        axes.plot(*_last(trial), "x", color=GREY, ms=7)
    for trial in complete:
        axes.plot(*_curve(trial), color=BAR, lw=1.2, alpha=0.6, marker=".")
    marks = [_legend(f"complete ({len(complete)})", BAR, ".", 7, "-")] if complete else []
    if drawn.best is not None and _epochs(drawn.best):
        axes.plot(*_curve(drawn.best), color=BEST, lw=2.5, marker=".", zorder=4)
        marks.append(_legend(_said(drawn.best), BEST, ".", 7, "-"))
    if pruned:
        marks.append(_legend(f"pruned ({len(pruned)})", GREY, "x", 7, "-"))
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _value_axis(axes)
    figure.legend(handles=marks, loc="outside upper center", ncols=3, frameon=False)
    return figure


PICTURES: dict[str, Callable[[Drawn], Figure | None]] = {
    "history": history,
    "importance": importance,
    "slice": slices,
    "parallel": parallel,
    "intermediate": intermediate,
}


def _epochs(trial: FrozenTrial) -> dict[int, float]:
    """Epoch to reported value, in order, where it is a number."""
    return {epoch: value for epoch, value in sorted(trial.intermediate_values.items()) if math.isfinite(value)}


def _curve(trial: FrozenTrial) -> tuple[list[int], list[float]]:
    return list(_epochs(trial)), list(_epochs(trial).values())


def _last(trial: FrozenTrial) -> tuple[int, float]:
    return list(_epochs(trial).items())[-1]


def _heights(trial: FrozenTrial, drawn: Drawn, scales: list[Scale]) -> list[float]:
    return [scale.at(trial.params[key]) for key, scale in zip(drawn.space, scales, strict=False)]


def _figure(width: float, height: float) -> Figure:
    return Figure(figsize=(width, height), layout="constrained")


def _star(axes: Axes, x: float, best: FrozenTrial) -> None:
    axes.plot(x, best.value, "*", color=BEST, ms=17, mec="white", zorder=4, label=_said(best), clip_on=False)


def _said(best: FrozenTrial) -> str:
    return f"best: {best.value:.1%} (trial {best.number})"


def _legend(label: str, colour: str, marker: str, size: float, line: str = "") -> Line2D:
    return Line2D([], [], color=colour, marker=marker, ms=size, ls=line, label=label)


def _value_axis(axes: Axes, title: str = VALUE) -> None:
    axes.set_ylabel(title)
    axes.yaxis.set_major_formatter(lambda value, _: percent(value))
    _plain(axes, "both")


def _plain(axes: Axes, grid: str) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis=grid, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _two_lines(key: str) -> str:
    return label(key).replace(".", ".\n", 1)
