"""Merge window scores into detections: which species calls from when to when, and how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.core.files import printable
from watkins_ml.evaluation.detection.peaks import peak_mask
from watkins_ml.inference.scores import WindowScores
from watkins_ml.models.bundle import MAX_NOVELTY

COLUMNS = ["path", "channel", "start_s", "end_s", "species", "probability", "novelty", "temperature"]


DEFAULT_THRESHOLD = 0.5
"""Where neither the user nor the model has another."""


@dataclass(frozen=True)
class DetectionOptions:
    """Which scores are detections."""

    min_confidence: float = DEFAULT_THRESHOLD
    top: int = 1
    """So many species a window at most."""
    species: frozenset[str] = frozenset()
    """Only these; with none, all."""
    max_novelty: float = MAX_NOVELTY
    """Windows above it are unknown: no species is detected in them."""
    merge: bool = True
    """Whether neighbouring windows with the same species are one detection."""
    peaks: bool = False
    """Whether only peaks (`evaluation.detection.peaks`) are detections; goes with `merge` off."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """In the place of `min_confidence`, of the species that have one. With any, background is never detected."""

    def least(self, species: str) -> float:
        """From which probability on a species is detected."""
        if self.thresholds and species == BACKGROUND:
            return math.inf
        return self.thresholds.get(species, self.min_confidence)


NOT_SURE = "nothing above"


class Unknown(NamedTuple):
    """Why there are no detections in a recording that could be read."""

    reason: str
    novelty: float
    """The least of its windows; NaN if all are silent."""

    @property
    def told(self) -> str:
        """For a table; a recording in which nothing is sure enough is not unknown, and has an answer by file."""
        return self.reason if self.reason.startswith(NOT_SURE) else f"unknown: {self.reason}"


@dataclass(frozen=True)
class RecordingDetections:
    """The detections in one recording."""

    path: Path
    rows: pd.DataFrame
    """path, channel (0: all mixed), start_s, end_s, species, probability (of merged windows the highest), novelty (of
    the same window) and temperature (of the model), by time."""
    rate: int | None = None
    """Native rate in Hz."""
    unknown: Unknown | None = None
    """Set where there are none, though the recording could be read."""
    problem: str | None = None
    """Why (the rest of) the file could not be read."""
    note: str = ""
    """What the user has to know of the file, though it could be read."""

    @property
    def readable(self) -> bool:
        """Whether the recording could be read, or a part of it."""
        return not self.rows.empty or self.unknown is not None


class Detection(NamedTuple):
    """A stretch in which a species is probable enough."""

    channel: int
    window: int
    """The number of the (last) window in it, among those of its channel."""
    start_s: float
    end_s: float
    species: str
    probability: float
    novelty: float


def detect(
    scores: WindowScores, classes: list[str], options: DetectionOptions, temperature: float = 1.0
) -> RecordingDetections:
    """The windows in which a species is probable enough, as `options` ask for them.

    `temperature` is what the model divides its logits by, for the table; the scores have it in them.
    """
    found = _above_threshold(scores, classes, options)
    if options.merge:
        found = _merged(found)
    found.sort(key=lambda each: (each.start_s, each.channel, -each.probability))  # the surest first
    path = printable(scores.path)
    rows = _table([(path, each.channel, *each[2:], temperature) for each in found])
    unknown = _why_unknown(scores, classes, options) if len(scores.spans) and rows.empty else None
    return RecordingDetections(scores.path, rows, scores.rate, unknown, scores.problem, scores.note)


def all_rows(recordings: list[RecordingDetections]) -> pd.DataFrame:
    """The detections of many recordings as one table."""
    return pd.concat([_table([]), *(each.rows for each in recordings if each.readable)], ignore_index=True)


def _table(rows: list[tuple]) -> pd.DataFrame:
    numbers = dict.fromkeys(("start_s", "end_s", "probability", "novelty", "temperature"), float)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"channel": int, "path": str, "species": str} | numbers)


def _above_threshold(scores: WindowScores, classes: list[str], options: DetectionOptions) -> list[Detection]:
    found: list[Detection] = []
    numbers: Counter[int] = Counter()
    usable = _peaks(scores, options) if options.peaks else np.ones(scores.probabilities.shape, bool)
    for (channel, start_s, end_s), novelty, probabilities, may_be in zip(
        scores.spans.tolist(), scores.novelty, scores.probabilities, usable, strict=True
    ):
        channel = int(channel)
        numbers[channel] += 1
        if not novelty <= options.max_novelty:  # or silent: NaN
            continue
        for label in np.argsort(-probabilities, kind="stable")[: options.top]:
            probability, species = float(probabilities[label]), classes[label]
            if (
                may_be[label]
                and probability >= options.least(species)
                and (not options.species or species in options.species)
            ):
                found.append(Detection(channel, numbers[channel], start_s, end_s, species, probability, float(novelty)))
    return found


def _peaks(scores: WindowScores, options: DetectionOptions) -> np.ndarray:
    """bool, (windows, species): which are peaks in their channel; unknown windows neither are nor compete."""
    values = np.where(scores.novelty[:, None] <= options.max_novelty, scores.probabilities, np.nan).astype(float)
    peaks = np.zeros(values.shape, bool)
    for channel in np.unique(scores.spans[:, 0]):
        mine = scores.spans[:, 0] == channel
        peaks[mine] = peak_mask(scores.spans[mine, 1:], values[mine].T).T
    return peaks


def _merged(found: list[Detection]) -> list[Detection]:
    """Windows of one channel and species that follow each other or overlap, as one; `found` in order of time."""
    merged: list[Detection] = []
    latest: dict[tuple[int, str], int] = {}  # where the last detection of a channel and species stands in `merged`
    for each in found:
        place = latest.get((each.channel, each.species))
        if place is not None:
            last = merged[place]
            # windows that only touch are neighbours or not, whatever way their samples were rounded
            if each.window == last.window + 1 or each.start_s < last.end_s - 0.01 * (each.end_s - each.start_s):
                surest = max(last, each, key=lambda one: one.probability)
                end_s = max(each.end_s, last.end_s)
                merged[place] = surest._replace(window=each.window, start_s=last.start_s, end_s=end_s)
                continue
        latest[each.channel, each.species] = len(merged)
        merged.append(each)
    return merged


def _why_unknown(scores: WindowScores, classes: list[str], options: DetectionOptions) -> Unknown:
    sounding = scores.novelty[~np.isnan(scores.novelty)]
    if not len(sounding):
        return Unknown("silent", math.nan)
    least = float(sounding.min())
    if not least <= options.max_novelty or _above_threshold(scores, classes, replace(options, max_novelty=math.inf)):
        return Unknown("unlike what the model was trained on", least)
    sure = "the thresholds" if options.thresholds else f"{options.min_confidence:.0%}"
    return Unknown(f"{NOT_SURE} {sure}", least)
