"""From what was said of every window to detections: who called from when to when, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd

from watkins_ml.core.files import printable
from watkins_ml.inference.judge import Judged
from watkins_ml.models.bundle import MAX_NOVELTY

COLUMNS = ["path", "channel", "start_s", "end_s", "species", "probability", "novelty"]


@dataclass(frozen=True)
class Wanted:
    """Which answers count."""

    min_confidence: float = 0.5
    top: int = 1
    """So many species a window at most."""
    species: frozenset[str] = frozenset()
    """Only these; with none, all."""
    max_novelty: float = MAX_NOVELTY
    """Windows above it are unknown: no species is detected in them."""


def detections(recording: Judged, classes: list[str], wanted: Wanted, merge: bool = True) -> pd.DataFrame:
    """The windows in which a species is probable enough; neighbours with the same species as one, if they `merge`.

    Returns:
        path, channel (0: all mixed), start_s, end_s, species, probability (of merged windows the highest) and novelty
        (of the same window), by time.
    """
    rows = _answers(recording, classes, wanted)
    if merge:
        rows = _merged(rows)
    rows.sort(key=lambda row: (row.start_s, row.channel, -row.probability))  # by time, then channel, the surest first
    path = printable(recording.path)
    return _table([(path, row.channel, *row[2:]) for row in rows])


def no_detections() -> pd.DataFrame:
    """A table as `detections` gives it, without a row."""
    return _table([])


def _table(rows: list[tuple]) -> pd.DataFrame:
    numbers = dict.fromkeys(("start_s", "end_s", "probability", "novelty"), float)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"channel": int, "path": str, "species": str} | numbers)


class Row(NamedTuple):
    """A stretch in which a species is probable enough."""

    channel: int
    number: int
    """Of the (last) window in it, among those of its channel."""
    start_s: float
    end_s: float
    species: str
    probability: float
    novelty: float


def _answers(recording: Judged, classes: list[str], wanted: Wanted) -> list[Row]:
    rows, numbers = [], Counter()
    for (channel, *ends), novelty, probabilities in zip(
        recording.places.tolist(), recording.novelties, recording.probabilities, strict=True
    ):
        channel = int(channel)
        numbers[channel] += 1
        if not novelty <= wanted.max_novelty:  # or silent: NaN
            continue
        for label in np.argsort(-probabilities, kind="stable")[: wanted.top]:
            sure = float(probabilities[label])
            if sure >= wanted.min_confidence and (not wanted.species or classes[label] in wanted.species):
                rows.append(Row(channel, numbers[channel], *ends, classes[label], sure, float(novelty)))
    return rows


def _merged(rows: list[Row]) -> list[Row]:
    """Windows of one channel and species that follow each other or overlap, as one stretch; `rows` in order of time."""
    merged: list[Row] = []
    running: dict[tuple[int, str], int] = {}  # where the last stretch of a channel and species stands in `merged`
    for row in rows:
        place = running.get((row.channel, row.species))
        if place is not None:
            last = merged[place]
            # windows that only touch are neighbours or not, whatever way their samples were rounded
            if row.number == last.number + 1 or row.start_s < last.end_s - 0.01 * (row.end_s - row.start_s):
                surest = max(last, row, key=lambda each: each.probability)
                ends = {"start_s": last.start_s, "end_s": max(row.end_s, last.end_s)}
                merged[place] = surest._replace(number=row.number, **ends)
                continue
        running[row.channel, row.species] = len(merged)
        merged.append(row)
    return merged


class Unknown(NamedTuple):
    """Why there are no detections in a recording that could be read."""

    reason: str
    novelty: float
    """The least of its windows; NaN if all are silent."""


def why_unknown(recording: Judged, classes: list[str], wanted: Wanted) -> Unknown:
    """Why there are no detections in a recording that could be read."""
    sounding = recording.novelties[~np.isnan(recording.novelties)]
    if not len(sounding):
        return Unknown("silent", math.nan)
    least = float(sounding.min())
    if not least <= wanted.max_novelty or _answers(recording, classes, replace(wanted, max_novelty=math.inf)):
        return Unknown("unlike what the model was trained on", least)
    return Unknown(f"nothing above {wanted.min_confidence:.0%}", least)
