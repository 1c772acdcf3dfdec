"""The axis of a searched parameter in a plot: positions and labels of its values."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from watkins_ml.evaluation.lettering import legible

MOST_TICKS = 10


@dataclass(frozen=True)
class Scale:
    """An axis from 0 to 1 that spans all values that a parameter may have."""

    at: Callable[[Any], float]
    """The place of a value."""
    ticks: tuple[list[float], list[str]]
    """Places and labels."""

    @classmethod
    def of(cls, distribution: BaseDistribution) -> Scale:
        if isinstance(distribution, CategoricalDistribution):
            choices = distribution.choices

            def at(value: Any) -> float:
                return distribution.to_internal_repr(value) / (len(choices) - 1) if len(choices) > 1 else 0.5

            return cls(at, ([at(choice) for choice in choices], [_choice(choice) for choice in choices]))
        scaled, convert = even(distribution)
        low, width = numeric(scaled).low, numeric(scaled).high - numeric(scaled).low

        def position(value: Any) -> float:
            return (convert(value) - low) / width if width > 0 else 0.5

        values = _ticks(numeric(distribution))
        return cls(position, ([position(value) for value in values], [_number(value) for value in values]))


def numeric(distribution: BaseDistribution) -> FloatDistribution | IntDistribution:
    """The distribution of a number."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return distribution


def even(distribution: BaseDistribution) -> tuple[BaseDistribution, Callable[[Any], Any]]:
    """The distribution on the scale on which values are sampled uniformly (a logarithm), and the conversion to it."""
    if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.log:
        return FloatDistribution(math.log10(distribution.low), math.log10(distribution.high)), math.log10
    return distribution, lambda value: value


def percent(share: float) -> str:
    """0.875 as `87.5%`."""
    return f"{round(100 * share, 4):g}%"


def label(text: str, limit: int = 28) -> str:
    """Matplotlib text: shortened, in letters that the fonts have, and with `$` escaped."""
    return legible(text if len(text) <= limit else f"{text[: limit - 1]}…")


def _number(value: float) -> str:
    return f"{value:g}".replace("e-0", "e-")


def _choice(value: Any) -> str:
    """As a recipe writes it."""
    return label(value if isinstance(value, str) else json.dumps(value), 14)


def _ticks(distribution: FloatDistribution | IntDistribution) -> list[float]:
    """Round values within a range; all values where they are few."""
    low, high, step = distribution.low, distribution.high, distribution.step
    if low == high:
        return [low]
    proposed: Iterable[float]
    if distribution.log and high / low >= 5:
        proposed = LogLocator(subs=(1,) if high / low >= 100 else (1, 2, 5), numticks=12).tick_values(low, high)
    elif step is not None and (high - low) / step < MOST_TICKS:
        proposed = low + step * np.arange(round((high - low) / step) + 1)
    else:
        proposed = MaxNLocator(5, integer=isinstance(distribution, IntDistribution)).tick_values(low, high)
    slack = 1e-9 * (high - low)
    return [float(tick) for tick in proposed if low - slack <= tick <= high + slack] or [low, high]
