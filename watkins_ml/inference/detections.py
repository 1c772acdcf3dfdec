"""From what was said of every window to detections: who called from when to when, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from watkins_ml.files import printable
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
    max_novelty: float = 1.0
    """Windows above it are unknown: no species is detected in them."""


def detections(recording: Judged, classes: list[str], wanted: Wanted, merge: bool = True) -> pd.DataFrame:
    """The windows in which a species is probable enough; neighbours with the same species as one, if they `merge`.

    Returns:
        path, channel (0: all mixed), start_s, end_s, species, probability (of merged windows the highest), by time.
    """
    rows = _answers(recording, classes, wanted)
    if merge:
        rows = _merged(rows)
    rows.sort(key=lambda row: (row[2], row[0], -row[5]))  # by time, then channel, the surest first
    path = printable(recording.path)
    table = pd.DataFrame([(path, channel, *rest) for channel, _, *rest in rows], columns=COLUMNS)
    return table.astype({"channel": int, "start_s": float, "end_s": float, "probability": float, "species": str})


Row = tuple[int, int, float, float, str, float]
"""channel, number of the (last) window in it, start_s, end_s, species, probability"""


def _answers(recording: Judged, classes: list[str], wanted: Wanted) -> list[Row]:
    rows, numbers = [], Counter()
    for (channel, *ends), novelty, probabilities in zip(
        recording.places.tolist(), recording.novelties, recording.probabilities, strict=True
    ):
        channel = int(channel)
        numbers[channel] += 1
        if np.isnan(novelty) or novelty > wanted.max_novelty:
            continue
        for label in np.argsort(-probabilities, kind="stable")[: wanted.top]:
            sure = float(probabilities[label])
            if sure >= wanted.min_confidence and (not wanted.species or classes[label] in wanted.species):
                rows.append((channel, numbers[channel], *ends, classes[label], sure))
    return rows


def _merged(rows: list[Row]) -> list[Row]:
    """Windows of one channel and species that follow each other or overlap, as one stretch; `rows` in order of time."""
    merged: list[Row] = []
    running: dict[tuple[int, str], int] = {}  # where the last stretch of a channel and species stands in `merged`
    for channel, number, start, end, species, sure in rows:
        place = running.get((channel, species))
        if place is not None:
            _, last, begun, until, _, best = merged[place]
            # windows that only touch are neighbours or not, whatever way their samples were rounded
            if number == last + 1 or start < until - 0.01 * (end - start):
                merged[place] = (channel, number, begun, max(end, until), species, max(best, sure))
                continue
        running[channel, species] = len(merged)
        merged.append((channel, number, start, end, species, sure))
    return merged


def why_unknown(recording: Judged, classes: list[str], wanted: Wanted) -> str:
    """Why there are no detections in a recording that could be read."""
    if np.isnan(recording.novelties).all():
        return "silent"
    if _answers(recording, classes, replace(wanted, max_novelty=math.inf)):
        return "unlike what the model was trained on"
    return f"nothing above {wanted.min_confidence:.0%}"
