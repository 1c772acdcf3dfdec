"""Which species call in a window, by how much of a call it holds; pure functions of times.

A call is in a window where the part they share is at least `present` of the shorter of the two: that much of the
call is inside, or that much of the window is filled. Above `absent` and below `present` nothing is said of it. The
measure is that of Koogu (`assess_annotations_and_clips_match`: `min_annot_overlap_fraction`); its second threshold
(`max_nonmatch_overlap_fraction`) is of the window's length, by which a whole short call would count as silence.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TOGETHER_S = 0.01
"""Spans that are so close are one: programs round the times of neighbouring boxes."""


@dataclass(frozen=True)
class Thresholds:
    """How much of a call makes it present, and how much may be there of an absent one; shares of 1."""

    present: float = 0.5
    absent: float = 0.1


@dataclass(frozen=True)
class WindowLabels:
    """What is known of each window, in the order of windows (rows) and species (columns)."""

    species: tuple[str, ...]
    share: np.ndarray
    """float32, (windows, species): how much of a call is there, see above."""
    present: np.ndarray
    """bool, (windows, species)."""
    known: np.ndarray
    """bool, (windows, species): whether presence or absence is known; elsewhere a loss is to be masked."""
    partial: np.ndarray
    """bool, (windows,): whether a part of some call is there that is neither enough nor nothing, or an uncertain
    sound."""
    reviewed: np.ndarray
    """bool, (windows,): whether somebody listened to all of it."""


def label_windows(
    windows: np.ndarray,
    calls: dict[str, np.ndarray],
    uncertain: np.ndarray,
    reviewed: np.ndarray,
    thresholds: Thresholds = Thresholds(),
) -> WindowLabels:
    """Label the windows of one recording (one channel of it).

    Args:
        windows: (n, 2) seconds, begin and end, both ascending.
        calls: (m, 2) seconds of every species.
        uncertain: (m, 2) seconds of sounds that nobody could name.
        reviewed: (m, 2) seconds that somebody listened through.
    """
    species = tuple(calls)
    share = np.stack([call_share(windows, calls[name]) for name in species], axis=1) if species else np.zeros(
        (len(windows), 0), np.float32
    )  # fmt: skip
    present = share >= thresholds.present
    doubtful = call_share(windows, uncertain) > thresholds.absent
    between = (share > thresholds.absent) & ~present
    heard = filled(windows, union(reviewed, TOGETHER_S)) >= (windows[:, 1] - windows[:, 0]) - TOGETHER_S
    known = present | (heard & ~doubtful)[:, None] & ~between
    return WindowLabels(species, share, present, known, between.any(axis=1) | doubtful, heard)


def call_share(windows: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """The part that a window shares with any one call, or with all together, over the shorter of the two.

    float32, (windows,), 0 to 1. Memory and time grow with windows and calls, not with their product: a call that is
    longer than the windows counts by what it fills of them.
    """
    lengths = windows[:, 1] - windows[:, 0]
    share = filled(windows, calls) / np.maximum(lengths, 1e-12)
    short = calls[(calls[:, 1] - calls[:, 0]) < lengths.max(initial=0.0)]
    row, call, shared = overlapping(windows, short)
    if len(row):
        np.maximum.at(share, row, shared / (short[call, 1] - short[call, 0]))
    return np.clip(share, 0.0, 1.0).astype(np.float32)


def filled(windows: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """How many seconds of each window lie in any of the spans, float64 (windows,)."""
    row, _, shared = overlapping(windows, union(spans))
    seconds = np.zeros(len(windows))
    np.add.at(seconds, row, shared)
    return seconds


def without(spans: np.ndarray, holes: np.ndarray) -> np.ndarray:
    """What is left of the spans, (n, 2) seconds, outside the holes, (m, 2): few that do not overlap, ascending."""
    spans, holes = union(spans), union(holes)
    edges = np.unique(np.concatenate([spans.ravel(), holes.ravel()]))
    middles = (edges[:-1] + edges[1:]) / 2
    left = _inside(middles, spans) & ~_inside(middles, holes)
    return union(np.stack([edges[:-1][left], edges[1:][left]], axis=1))


def _inside(times: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Whether each time lies in one of the spans, which ascend and do not overlap."""
    at = np.searchsorted(spans[:, 0], times, side="right") - 1
    return (at >= 0) & (times < np.append(spans[:, 1], -np.inf)[at])


def union(spans: np.ndarray, gap_s: float = 0.0) -> np.ndarray:
    """The spans, (n, 2) seconds, as few that do not overlap, ascending; with gaps of up to `gap_s` they are one."""
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    if not len(spans):
        return spans
    ends = np.maximum.accumulate(spans[:, 1])
    new = np.concatenate([[True], spans[1:, 0] > ends[:-1] + gap_s])
    last = np.append(np.flatnonzero(new)[1:], len(spans)) - 1
    return np.stack([spans[new, 0], ends[last]], axis=1)


def overlapping(windows: np.ndarray, spans: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which window shares how many seconds (above 0) with which span, for every such pair.

    Windows, (n, 2), ascend in both their begins and their ends; spans, (m, 2), need not.
    """
    first = np.searchsorted(windows[:, 1], spans[:, 0], side="right")
    behind = np.searchsorted(windows[:, 0], spans[:, 1], side="left")
    counts = np.maximum(behind - first, 0)
    span = np.repeat(np.arange(len(spans)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(first, counts)
    shared = np.minimum(windows[row, 1], spans[span, 1]) - np.maximum(windows[row, 0], spans[span, 0])
    return row[shared > 0], span[shared > 0], shared[shared > 0]
