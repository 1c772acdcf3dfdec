"""Blank pictures: composing and drawing them is half of what a small training costs, and few tests look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from PIL import Image

from watkins_ml.evaluation import plots, report

DRAW = plots.draw
BLANK_DPI = 10
COMPOSED = ("learning_curves", "confusion_matrix", "stripplot", "reliability", "risk_coverage", "gallery")


def blank(figure: Figure) -> Image.Image:
    """An empty picture in the proportions of `figure`, which nobody draws."""
    return Image.new("RGB", tuple(round(inches * BLANK_DPI) for inches in figure.get_size_inches()))


def nothing(*_: object, **__: object) -> Figure:
    """An empty figure in the place of any that a report would compose."""
    return Figure((6, 4))


@contextmanager
def drawing(how=DRAW, dpi: int = plots.DPI) -> Iterator[None]:
    """Inside, pictures are drawn by `how`, the real way by default; reports leave blank ones' figures empty."""
    composed = SimpleNamespace(**{**vars(plots), **dict.fromkeys(COMPOSED, nothing)}) if how is blank else plots
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", how)
        patch.setattr(plots, "DPI", dpi)
        patch.setattr(report, "plots", composed)
        yield
