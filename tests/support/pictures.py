"""Blank pictures: drawing is half of what a small training costs, and only tests of pictures look at them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from matplotlib.figure import Figure
from PIL import Image

from watkins_ml.evaluation import plots

DRAW = plots.draw
BLANK_DPI = 10


def blank(figure: Figure) -> Image.Image:
    """An empty picture in the proportions of `figure`, which the program has built but nobody draws."""
    return Image.new("RGB", tuple(round(inches * BLANK_DPI) for inches in figure.get_size_inches()))


@contextmanager
def drawing(how=DRAW, dpi: int = plots.DPI) -> Iterator[None]:
    """Inside, pictures are drawn by `how`; the real way by default."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", how)
        patch.setattr(plots, "DPI", dpi)
        yield
