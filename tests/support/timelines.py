"""Small timelines of one or a few species."""

from __future__ import annotations

import numpy as np

from watkins_ml.evaluation.detection.timeline import Timeline, Track, timeline_of

NONE = np.empty((0, 2))


def sliding(count: int, length: float = 1.0, overlap: float = 0.0) -> np.ndarray:
    """(count, 2) seconds."""
    begins = np.arange(count) * length * (1 - overlap)
    return np.stack([begins, begins + length], axis=1)


def track(scores, calls, reviewed=None, uncertain=None, windows=None, name="r", group=None) -> Track:
    """`scores` (n,) or (n, species); `calls` a list of spans, or of lists of spans with several species."""
    scores = np.asarray(scores, float).reshape(len(scores), -1)
    windows = sliding(len(scores)) if windows is None else windows
    calls = [calls] if scores.shape[1] == 1 else calls
    spans = tuple(np.array(each, float).reshape(-1, 2) for each in calls)
    everything = np.array([[0.0, windows[-1, 1]]])
    reviewed = everything if reviewed is None else np.array(reviewed, float).reshape(-1, 2)
    uncertain = NONE if uncertain is None else np.array(uncertain, float).reshape(-1, 2)
    return Track(name, 0, group or name, windows, scores.astype(np.float32), spans, reviewed, uncertain)


def timeline(*tracks: Track) -> Timeline:
    return timeline_of(list(tracks), [f"s{at}" for at in range(tracks[0].scores.shape[1])])
