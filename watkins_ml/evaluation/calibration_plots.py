"""The pictures of how sure a model is: reliability diagrams, and what is right of the answers that are sure enough."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from watkins_ml.core.wording import plural
from watkins_ml.evaluation.metrics import calibration_bins, expected_calibration_error
from watkins_ml.evaluation.plots import BAR, GREY, new_figure, open_axes
from watkins_ml.evaluation.selective import PRECISION, coverage_at, coverage_sentence


def reliability(labels: np.ndarray, probabilities: np.ndarray, uncalibrated: np.ndarray | None = None) -> Figure:
    """Reliability diagram (Guo et al. 2017) with the number of cuts in each confidence bin below it.

    With `uncalibrated` probabilities (before temperature scaling) their own diagram stands on the left.
    """
    bins = {"calibrated": calibration_bins(labels, probabilities)}
    if uncalibrated is not None:
        bins = {"uncalibrated": calibration_bins(labels, uncalibrated)} | bins
    return reliability_of(bins, "accuracy", "cut")


def reliability_of(shown: dict[str, pd.DataFrame], share: str, noun: str) -> Figure:
    """`reliability` of bins as `metrics.calibration_bins` gives them, by name; `share` is what the bars show, `noun`
    what is counted."""
    fig = new_figure(5.6 * len(shown), 6.4)
    panels = fig.subplots(2, len(shown), sharex=True, sharey="row", height_ratios=[3, 1], squeeze=False)
    count = int(next(iter(shown.values()))["count"].sum())
    for (above, below), (name, bins) in zip(panels.T, shown.items(), strict=True):
        _reliability(above, below, bins, share)
        error = f"expected calibration error {expected_calibration_error(bins):.3f}"
        above.set_title(f"{name}: {error}" if len(shown) > 1 else f"{error}, {plural(count, noun)}", fontsize=11)
    panels[0, 0].set_ylabel(share)
    panels[1, 0].set_ylabel(f"{noun}s" if len(shown) == 1 else f"{noun}s (of {count})")
    fig.legend(
        *panels[0, 0].get_legend_handles_labels(),
        loc="outside upper center", ncols=3, fontsize=9, frameon=False, columnspacing=1.2,
    )  # fmt: skip
    return fig


def _reliability(above: Axes, below: Axes, bins: pd.DataFrame, share: str) -> None:
    width = bins.upper - bins.lower
    filled = bins["count"] > 0
    above.bar(bins.lower, bins.accuracy.fillna(0), width, align="edge", color=BAR, ec="white", label=share)
    above.plot([0, 1], [0, 1], color="black", ls="--", lw=1.2, label="perfect calibration")
    above.plot(
        bins.confidence[filled], bins.accuracy[filled], ls="", marker="o", ms=5, color="#E69F00", mec="white",
        label="mean confidence", clip_on=False, zorder=3,
    )  # fmt: skip
    above.set_ylim(0, 1)
    above.yaxis.set_major_formatter(PercentFormatter(1))
    below.bar(bins.lower, bins["count"], width, align="edge", color=GREY, ec="white")
    below.set_xlim(0, 1)
    below.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    below.set_xlabel("confidence")
    below.xaxis.set_major_formatter(PercentFormatter(1))
    for axes in (above, below):
        open_axes(axes)


def risk_coverage(curve: pd.DataFrame, threshold: float | None = None) -> Figure:
    """Share of right answers (on the right: of wrong ones, the risk) against the share of cuts answered.

    `curve` is of `selective.risk_coverage`. A star marks where 90 % are still right; a diamond what a `threshold` of
    confidence that was found on validation gives.
    """
    fig = new_figure(6.4, 5.0)
    axes = fig.subplots()
    marker = "." if len(curve) <= 60 else None
    axes.plot(curve.coverage, curve.accuracy, color=BAR, marker=marker, label="most confident first")
    overall = curve.accuracy.iloc[-1]
    axes.axhline(overall, color=GREY, ls=":", lw=1.4, label=f"all answered: {overall:.1%} right")
    axes.axhline(PRECISION, color="black", ls="--", lw=1, label=f"{PRECISION:.0%} right")
    coverage = coverage_at(curve)
    if coverage:
        reached = curve.accuracy[curve.coverage == coverage]
        axes.plot(
            coverage, reached, ls="", marker="*", ms=13, color="#D55E00", mec="white", clip_on=False, zorder=4,
            label=f"most answers with {PRECISION:.0%} right",
        )  # fmt: skip
    answered = curve[curve.threshold >= threshold] if threshold is not None else curve[:0]
    if len(answered):
        axes.plot(
            *answered.iloc[-1][["coverage", "accuracy"]], ls="", marker="D", ms=11, mfc="none", mec="#009E73", mew=2,
            clip_on=False, zorder=3, label=f"threshold from validation: {threshold:.6g}",
        )  # fmt: skip
    lowest = min(curve.accuracy.min(), PRECISION)
    axes.set_ylim(max(0.0, np.floor(10 * lowest - 0.5) / 10), 1.005)
    axes.set_xlim(0, 1)
    axes.set_title(coverage_sentence(coverage), fontsize=11)
    axes.set_xlabel("coverage: share of cuts answered")
    axes.set_ylabel("right answers")
    risk = axes.secondary_yaxis("right", functions=(lambda share: 1 - share,) * 2)
    risk.set_ylabel("risk: wrong answers")
    for axis in (axes.xaxis, axes.yaxis, risk.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.25)
    axes.spines["top"].set_visible(False)
    fig.legend(loc="outside lower center", ncols=2, fontsize=9, frameon=False)
    return fig
