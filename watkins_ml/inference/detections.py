"""From what was said of every window to detections: who called from when to when, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from watkins_ml.inference.judge import Judged

COLUMNS = ["path", "channel", "start_s", "end_s", "species", "probability"]


@dataclass(frozen=True)
class Wanted:
    """Which answers count."""

    min_confidence: float = 0.5
    top: int = 1
    """So many species a window at most."""
    species: frozenset[str] = frozenset()
    """Only these; with none, all."""


def detections(recording: Judged, classes: list[str], wanted: Wanted, merge: bool = True) -> pd.DataFrame:
    """The windows in which a species is probable enough; neighbours with the same species as one, if they `merge`.

    Returns:
        path, channel (0: all mixed), start_s, end_s, species, probability (of merged windows the highest), by time.
    """
    rows = _answers(recording, classes, wanted)
    if merge:
        rows = _merged(rows)
    rows.sort(key=lambda row: (row[1], row[0], -row[4]))  # by time, then channel, the surest first
    table = pd.DataFrame([(str(recording.path), *row) for row in rows], columns=COLUMNS)
    return table.astype({"channel": int, "start_s": float, "end_s": float, "probability": float, "species": str})


Row = tuple[int, float, float, str, float]
"""channel, start_s, end_s, species, probability"""


def _answers(recording: Judged, classes: list[str], wanted: Wanted) -> list[Row]:
    rows = []
    for place, probabilities in zip(recording.places, recording.probabilities, strict=True):
        if probabilities is None:
            continue
        for label in np.argsort(-probabilities, kind="stable")[: wanted.top]:
            sure = float(probabilities[label])
            if sure >= wanted.min_confidence and (not wanted.species or classes[label] in wanted.species):
                rows.append((*place, classes[label], sure))
    return rows


def _merged(rows: list[Row]) -> list[Row]:
    """Windows of one channel and species that overlap or touch, as one stretch; `rows` are in order of time."""
    merged: list[Row] = []
    last: dict[tuple[int, str], int] = {}  # where the running stretch of a channel and species stands in `merged`
    for channel, start, end, species, sure in rows:
        place = last.get((channel, species))
        if place is not None and start <= merged[place][2] + 1e-6:
            begun, best = merged[place][1], merged[place][4]
            merged[place] = (channel, begun, max(end, merged[place][2]), species, max(best, sure))
        else:
            last[channel, species] = len(merged)
            merged.append((channel, start, end, species, sure))
    return merged
