"""Scores of windows, calls and what was listened to, of many recordings on one axis of time; detections out of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from watkins_ml.annotations.labelling import filled, without
from watkins_ml.evaluation.detection.peaks import peak_mask

By = Literal["detection", "window", "peak"]

GAP_S = 1.0
"""Between two recordings on the axis."""
SLIGHT = 0.01
"""Windows that share no more of their length only touch; as `inference.detections` has it."""
LISTENED = 0.5
"""A detection of which less lies where somebody has listened is neither right nor wrong."""


@dataclass(frozen=True)
class Track:
    """One channel of one recording; times in seconds from its begin."""

    recording: str
    channel: int
    group: str
    """What is drawn together by the bootstrap; windows of it are alike."""
    windows: np.ndarray
    """float64, (n, 2): begins and ends, both ascending."""
    scores: np.ndarray
    """float32, (n, species); NaN where a window cannot be a detection."""
    calls: tuple[np.ndarray, ...]
    """(m, 2) of each species."""
    reviewed: np.ndarray
    """(k, 2): somebody listened here, so that no call means none."""
    uncertain: np.ndarray
    """(k, 2): something was heard here that nobody could name."""


class Detections(NamedTuple):
    """Detections of one species at one threshold, by time."""

    spans: np.ndarray
    """(n, 2) seconds on the axis."""
    score: np.ndarray
    """(n,): the highest of its windows."""
    track: np.ndarray
    """(n,): the number of its track."""
    known: np.ndarray
    """bool, (n,): whether at least half of it lies where a false alarm of the species would be known."""


@dataclass(frozen=True)
class Timeline:
    """Tracks one after another on one axis, so that a threshold is looked at in all of them at once."""

    species: tuple[str, ...]
    tracks: tuple[Track, ...]
    offsets: np.ndarray
    """(tracks,) seconds where each begins on the axis."""
    windows: np.ndarray
    """(N, 2) seconds on the axis."""
    numbers: np.ndarray
    """(N,): neighbours in a track differ by one."""
    owner: np.ndarray
    """(N,): the track of a window."""
    scores: np.ndarray
    """float64, (species, N), so that a threshold means here what it means to `inference.detections`."""
    calls: tuple[np.ndarray, ...]
    """(m, 2) seconds on the axis of each species, ascending."""
    known: tuple[np.ndarray, ...]
    """(k, 2) of each species: where a detection that is no call is a false alarm: what was reviewed, and what is
    marked as a call of the species, less what is uncertain."""
    hours: np.ndarray
    """(tracks, species): how much of a track that is."""
    scored_hours: np.ndarray
    """(tracks,): how much of a track is so for some species."""
    by: By = "detection"
    """What a detection is: windows in a row, every window, or every peak."""

    @cached_property
    def candidates(self) -> np.ndarray:
        """The scores of the windows that may be detections, (species, N); NaN elsewhere."""
        if self.by != "peak":
            return self.scores
        return np.where(peak_mask(self.windows, self.scores, self.owner), self.scores, np.nan)

    def call_tracks(self, species: int) -> np.ndarray:
        """The track of each call of a species, by number."""
        return np.searchsorted(self.offsets, self.calls[species][:, 0] + GAP_S / 4, side="right") - 1

    def detections(self, species: int, threshold: float) -> Detections:
        """Windows with at least so high a score, as `watkins predict` merges them (or does not)."""
        values = self.candidates[species]
        active = np.flatnonzero(values >= threshold)  # not where NaN
        if not len(active):
            return Detections(np.empty((0, 2)), np.empty(0), np.empty(0, int), np.empty(0, bool))
        numbers, starts, ends = self.numbers[active], self.windows[active, 0], self.windows[active, 1]
        later = starts[1:]
        follows = (np.diff(numbers) == 1) | (later < ends[:-1] - SLIGHT * (ends[1:] - later))
        follows &= self.by == "detection"
        first = np.flatnonzero(np.concatenate([[True], ~follows]))
        last = np.append(first[1:], len(active)) - 1
        score = np.maximum.reduceat(values[active], first)
        spans = np.stack([starts[first], ends[last]], axis=1)
        seconds = filled(spans, self.known[species])
        known = seconds >= LISTENED * (spans[:, 1] - spans[:, 0]) - 1e-9
        return Detections(spans, score, self.owner[active[first]], known)

    def sweep(self, species: int, thresholds: np.ndarray) -> list[Detections]:
        """The detections of a species at each threshold."""
        return [self.detections(species, threshold) for threshold in thresholds]


def timeline_of(tracks: list[Track], species: list[str], by: By = "detection") -> Timeline:
    """Lay tracks one after another."""
    ends = [_end(each) + GAP_S for each in tracks]
    offsets = np.concatenate([[0.0], np.cumsum(ends)])[: len(tracks)]
    known = [[_known(each, [each.calls[at]]) for at in range(len(species))] for each in tracks]
    sizes = [len(each.windows) for each in tracks]
    owner = np.repeat(np.arange(len(tracks)), sizes)
    hours = [[_hours(spans) for spans in of_track] for of_track in known]
    return Timeline(
        tuple(species),
        tuple(tracks),
        offsets,
        _laid([each.windows for each in tracks], offsets),
        np.arange(sum(sizes)) + owner,  # a number is left out between two tracks
        owner,
        np.ascontiguousarray(_stacked([each.scores for each in tracks], len(species)).T),
        tuple(_laid([_sorted(each.calls[at]) for each in tracks], offsets) for at in range(len(species))),
        tuple(_laid([of_track[at] for of_track in known], offsets) for at in range(len(species))),
        np.array(hours).reshape(len(tracks), len(species)),
        np.array([_hours(_known(each, list(each.calls))) for each in tracks]),
        by,
    )


def _stacked(parts: list[np.ndarray], columns: int) -> np.ndarray:
    return np.concatenate(parts or [np.empty((0, columns))]).astype(float)


def _known(track: Track, calls: list[np.ndarray]) -> np.ndarray:
    return without(np.concatenate([track.reviewed, *calls]), track.uncertain)


def _hours(spans: np.ndarray) -> float:
    return float((spans[:, 1] - spans[:, 0]).sum()) / 3600


def _end(track: Track) -> float:
    spans = (track.windows, *track.calls, track.reviewed, track.uncertain)
    return max((float(each[:, 1].max()) for each in spans if len(each)), default=0.0)


def _laid(parts: list[np.ndarray], offsets: np.ndarray) -> np.ndarray:
    moved = [part + offset for part, offset in zip(parts, offsets, strict=True)]
    return np.concatenate(moved) if moved else np.empty((0, 2))


def _sorted(spans: np.ndarray) -> np.ndarray:
    return spans[np.lexsort((spans[:, 1], spans[:, 0]))]
