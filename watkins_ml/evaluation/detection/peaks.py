"""Which windows are peaks: of windows that overlap by more than half, the one with the highest score.

A run of windows becomes one detection, so calls in quick succession become one too. Peaks tell them apart, where
windows overlap by much and are about as long as a call. It is the usual non-maximum suppression of detectors: the
highest window is a peak, those near it are left out, and so on with the highest that is left.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

ALIKE = 0.5
"""Windows whose middles are nearer than so much of their length compete."""


def peak_mask(windows: np.ndarray, scores: np.ndarray, owner: np.ndarray | None = None) -> np.ndarray:
    """Whether each window is a peak; of equal ones the first comes first. bool, as `scores`.

    Args:
        windows: (n, 2) seconds, begins and ends ascending (in each track).
        scores: (species, n); NaN, which is no peak, where a window cannot be a detection.
        owner: (n,): the track of each window, ascending; only those of one track compete.
    """
    middle = windows.mean(axis=1)
    radius = ALIKE * (windows[:, 1] - windows[:, 0]) - 1e-9
    first, behind = np.zeros(len(windows), int), np.zeros(len(windows), int)
    owner = np.zeros(len(windows), int) if owner is None else owner
    for start, end in _runs(owner):
        of_track = middle[start:end]
        first[start:end] = start + np.searchsorted(of_track, of_track - radius[start:end], side="right")
        behind[start:end] = start + np.searchsorted(of_track, of_track + radius[start:end], side="left")
    near = list(zip(first.tolist(), behind.tolist(), strict=True))
    return np.stack([_suppressed(row, near) for row in scores]) if len(scores) else np.zeros(scores.shape, bool)


def _runs(owner: np.ndarray) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(owner)) + 1).tolist(), len(owner)]
    return list(pairwise(edges))


def _suppressed(scores: np.ndarray, near: list[tuple[int, int]]) -> np.ndarray:
    """The peaks of one species; `near` gives for each window from which to (before) which other it leaves out."""
    peak, left_out = np.zeros(len(scores), bool), np.isnan(scores)
    gone = bytearray(left_out.tobytes())
    for at in np.argsort(-scores, kind="stable").tolist():
        if not gone[at]:
            peak[at] = True
            first, behind = near[at]
            gone[first:behind] = b"\1" * (behind - first)
    return peak
