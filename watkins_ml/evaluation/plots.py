"""The pictures of a run. Each function returns a Figure made without pyplot, so it is safe in any thread.

Colours are from palettes that colour-blind readers can tell apart (Okabe and Ito 2008; Tol 2021), and right
and wrong always differ in shape or in words as well as in colour.
"""

import io
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter
from PIL import Image

from watkins_ml.audio.defaults import SECONDS
from watkins_ml.core import metric_names
from watkins_ml.core.files import write_bytes
from watkins_ml.evaluation.lettering import legible, set_fonts

RUN_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
RIGHT, WRONG = "#009E73", "#CC3311"
BAR, GREY = "#0072B2", "#6B6B6B"
GALLERY_SIDE = 5
DPI = 130


def save(fig: Figure, path: Path) -> None:
    """Write `fig` to `path` as PNG of 256 colours (a gallery of noise takes less than half the room), atomically."""
    small = io.BytesIO()
    draw(fig).quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(small, "PNG")
    write_bytes(path, small.getvalue())


def draw(fig: Figure) -> Image.Image:
    """The pixels that `savefig` would write, in RGB; it would lay the figure out twice and pack and unpack a PNG."""
    fig.set_dpi(DPI)
    set_fonts(fig)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def learning_curves(histories: dict[str, pd.DataFrame], best: dict[str, int]) -> Figure:
    """Loss, accuracy and macro F1 by epoch, one colour per run: validation solid, training dashed.

    Each history has epoch, train_loss, val_loss, train_accuracy, val_accuracy, val_macro_f1. A star marks the
    epoch `best[name]`.
    """
    fig = new_figure(13.5, 4.4)
    panels = fig.subplots(1, 3)
    for (name, history), colour in zip(histories.items(), cycle(RUN_COLOURS), strict=False):
        for axes, quantity in zip(panels, ("loss", "accuracy", "macro_f1"), strict=True):
            _curve(axes, history, quantity, colour, best[name])
    for axes, title in zip(panels, ("Loss", "Accuracy", "Macro F1"), strict=True):
        axes.set_title(title, fontsize=12)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        open_axes(axes)
    panels[0].set_ylim(bottom=0)
    for axes in panels[1:]:
        axes.set_ylim(0, 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    # a name that begins with _ would be left out
    names = [f" {name}" if name.startswith("_") else name for name in map(legible, histories)]
    colours = zip(names, cycle(RUN_COLOURS), strict=False)
    runs = [Line2D([], [], color=colour, lw=3, label=name) for name, colour in colours]
    styles = [
        Line2D([], [], color=GREY, label="validation"),
        Line2D([], [], color=GREY, ls="--", lw=1.2, label="training"),
        Line2D([], [], color=GREY, marker="*", ms=12, ls="", label="best epoch"),
    ]
    fig.legend(handles=runs + styles, loc="outside upper center", ncols=min(len(runs) + 3, 6), frameon=False)
    return fig


def _curve(axes: Axes, history: pd.DataFrame, quantity: str, colour: str, best: int) -> None:
    marker = "." if len(history) <= 30 else None
    validation = history[metric_names.VAL + quantity]
    axes.plot(history.epoch, validation, color=colour, marker=marker)
    if (training := metric_names.TRAIN + quantity) in history:
        axes.plot(history.epoch, history[training], color=colour, ls="--", lw=1.2, alpha=0.8)
    at_best = history.epoch == best
    axes.plot(history.epoch[at_best], validation[at_best], color=colour, marker="*", ms=15, mec="white", zorder=3)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> Figure:
    """Cuts by true species (rows) and predicted species (columns); colour is the share of the row.

    A species without a cut in the split has a grey row, with its name in grey.
    """
    counts = np.zeros((len(classes), len(classes)), dtype=int)
    np.add.at(counts, (labels, predicted), 1)
    totals = counts.sum(axis=1)
    with np.errstate(invalid="ignore"):
        shares = counts / totals[:, None]
    cell = 0.36 if len(classes) > 20 else 0.55
    side = cell * max(len(classes), 5)
    fig = new_figure(side + 4.6, side + 2.8)
    axes = fig.subplots()
    axes.set_facecolor("#E8E8E8")
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in zip(*counts.nonzero(), strict=True):
        colour = "white" if shares[row, column] > 0.55 else "black"
        axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    names = [legible(name) for name in classes]
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=9)
    axes.set_yticks(range(len(names)), [f"{n} ({t})" for n, t in zip(names, totals, strict=True)], fontsize=9)
    for label, total in zip(axes.get_yticklabels(), totals, strict=True):
        label.set_color("black" if total else GREY)
    axes.set_xticks(np.arange(-0.5, len(names)), minor=True)
    axes.set_yticks(np.arange(-0.5, len(names)), minor=True)
    axes.grid(which="minor", color="white", lw=0.8)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("predicted species", fontsize=11)
    axes.set_ylabel("true species (cuts)", fontsize=11)
    bar = fig.colorbar(image, ax=axes, shrink=0.6, aspect=30, pad=0.015, format=PercentFormatter(1))
    bar.set_label("share of the true species")
    return fig


def stripplot(frame: pd.DataFrame) -> Figure:
    """Confidence of each cut by true species; `frame` has species, confidence (0..1) and correct (bool).

    Right cuts are green circles, wrong ones red crosses; accuracy and cuts stand beside each species.
    """
    species = sorted(frame.species.unique())
    fig = new_figure(10.5, 0.32 * len(species) + 1.8)
    axes = fig.subplots()
    rows = frame.species.map({name: row for row, name in enumerate(species)})
    heights = rows + np.random.default_rng(0).uniform(-0.3, 0.3, len(frame))
    for is_right, colour, marker in ((True, RIGHT, "o"), (False, WRONG, "x")):
        part = frame.correct.astype(bool) == is_right
        axes.scatter(
            frame.confidence[part], heights[part], s=16, c=colour, marker=marker, linewidths=1.1, alpha=0.65,
            label=f"{'right' if is_right else 'wrong'} ({part.sum()})", clip_on=False, zorder=3,
        )  # fmt: skip
    for row, name in enumerate(species):
        right = frame.correct[frame.species == name]
        axes.text(1.08, row, f"{right.mean():.0%}", va="center", ha="right", fontsize=9)
        axes.text(1.09, row, f"of {len(right)}", va="center", fontsize=9)
        axes.axhspan(row - 0.5, row + 0.5, color="#F3F3F3" if row % 2 else "white", zorder=0)
    axes.set_yticks(range(len(species)), [legible(name) for name in species], fontsize=9)
    axes.set_ylim(len(species) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("confidence in the predicted species; on the right: share right, of cuts")
    axes.set_ylabel("true species")
    open_axes(axes, grid="x")
    fig.legend(loc="outside upper center", ncols=2, frameon=False, markerscale=1.6)
    return fig


def gallery(
    spectrograms: Sequence[Any],
    truths: Sequence[str],
    predictions: Sequence[str],
    confidences: Sequence[float],
    title: str,
    seconds: float = SECONDS,
) -> Figure:
    """Up to 25 log-mel spectrograms, each (mels, frames) or (1, mels, frames), with truth and prediction.

    Low frequencies are at the bottom; `seconds` is the length of a spectrogram. Titles are green where the
    prediction is right and red where it is wrong.
    """
    rows = max(1, -(-len(spectrograms) // GALLERY_SIDE))
    height = 2.4 * rows + 1.3
    # Margins in inches by hand: the constrained layout takes seconds for 25 panels.
    fig = new_figure(14, height, layout=None)
    fig.subplots_adjust(0.055, 0.65 / height, 0.985, 1 - 1.0 / height, wspace=0.1, hspace=0.32)
    fig.suptitle(legible(title, limit=120), fontsize=15, y=1 - 0.15 / height, va="top")
    grid = fig.subplots(rows, GALLERY_SIDE, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(spectrograms) :]:
        axes.set_visible(False)
    cells = zip(grid.flat, spectrograms, truths, predictions, confidences, strict=False)
    for axes, spectrogram, truth, predicted, confidence in cells:
        mel = np.asarray(spectrogram).squeeze()
        low, high = np.percentile(mel, [1, 99.7])
        axes.imshow(
            mel, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high,
            extent=(0, seconds, 0, len(mel)),
        )  # fmt: skip
        right = truth == predicted
        answer = f"✓ {confidence:.0%}" if right else f"✗ {legible(predicted)} {confidence:.0%}"
        # with its height given, matplotlib does not measure all that may lie in a title's way
        axes.set_title(f"{legible(truth)}\n{answer}", fontsize=9, color=RIGHT if right else WRONG, y=1.0)
        axes.tick_params(labelsize=8)
    fig.supxlabel("seconds", fontsize=11, y=0.1 / height, va="bottom")
    fig.supylabel("mel band (low to high frequency)", fontsize=11, x=0.008)
    return fig


def open_axes(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    """A faint grid behind the data, and no frame at the top and on the right."""
    axes.set_axisbelow(True)
    axes.grid(axis=grid, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure of this size in inches."""
    fig = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(fig)
    return fig
