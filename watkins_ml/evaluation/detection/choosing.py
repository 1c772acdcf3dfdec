"""From what a user wants of a detector (false alarms an hour, or precision) to a threshold of each species."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from watkins_ml.evaluation.detection.curves import Counts, precision_of

FEWEST = 3.0
"""So many false alarms should be allowed on the recordings that thresholds are chosen on: with none in so long a time
the rate is below the one wished for, at 95 % (the rule of three)."""


@dataclass(frozen=True)
class Wish:
    """Exactly one of the two."""

    false_alarms: float | None = None
    """At most so many an hour."""
    precision: float | None = None
    """At least so large a share of detections is right."""

    def __str__(self) -> str:
        if self.false_alarms is not None:
            return f"at most {self.false_alarms:g} false alarms an hour"
        return f"precision of at least {self.precision:g}"


def choose(counts: Counts, wish: Wish) -> float | None:
    """The threshold that finds the most calls of those that keep the wish; of equals the highest.

    Only thresholds down to that of the most false alarms count: at lower ones whole recordings become one detection,
    which is a hit wherever there is a call. Without calls it is the lowest that keeps a rate of false alarms, as every
    higher one does. Above all scores where no threshold keeps the wish; None where nothing can be said: no calls for a
    precision, no time or no scores for false alarms.
    """
    hits, alarms = counts.hits.sum(axis=1), counts.alarms.sum(axis=1)
    if not len(counts.thresholds):
        return None
    if wish.false_alarms is not None:
        if not counts.hours.sum() > 0:
            return None
        most = wish.false_alarms * counts.hours.sum()
        keeping = alarms <= most
        if not counts.calls.sum():
            keeping = np.maximum.accumulate(alarms) <= most
            hits = np.arange(len(hits))
    else:
        if not counts.calls.sum():
            return None
        keeping = np.nan_to_num(precision_of(hits, alarms)) >= (wish.precision or 0.0)
    if alarms.max() > 0:  # below the threshold of the most alarms, detections grow together more than they appear
        keeping &= np.arange(len(alarms)) <= len(alarms) - 1 - alarms[::-1].argmax()
    if not keeping.any():
        return math.nextafter(float(counts.thresholds[0]), math.inf)
    return float(counts.thresholds[np.where(keeping, hits, -1).argmax()])


def doubt(wish: Wish, hours: float) -> str | None:
    """A sentence where the hours are too few for the false alarms that are wished for; None where they are not."""
    if wish.false_alarms is None or wish.false_alarms * hours >= FEWEST:
        return None
    needed = f"; {FEWEST / wish.false_alarms:,.3g} hours or more say something" if wish.false_alarms else ""
    return f"{hours:.3g} hours are few to choose thresholds for {wish} on{needed}"
