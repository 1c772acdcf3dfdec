"""Peaks among windows that overlap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.timelines import sliding, timeline, track
from watkins_ml.evaluation.detection.peaks import peak_mask
from watkins_ml.evaluation.detection.timeline import timeline_of
from watkins_ml.inference.detections import DetectionOptions, detect
from watkins_ml.inference.scores import WindowScores

NO = float("nan")


@given(st.lists(st.sampled_from([0.1, 0.5, 0.9, NO]), min_size=1, max_size=25), st.sampled_from([0.0, 0.5, 0.75, 0.9]))
def test_peaks_are_apart_and_every_other_window_has_one_near_by_that_is_no_lower(scores, overlap):
    windows, values = sliding(len(scores), 1.0, overlap), np.array(scores)
    (peak,) = peak_mask(windows, values[None])
    middle = windows.mean(axis=1)
    near = np.abs(middle[:, None] - middle) < 0.5 - 1e-9
    assert not peak[np.isnan(values)].any()
    assert (near[peak][:, peak].sum(axis=1) == 1).all()
    for at in np.flatnonzero(~peak & ~np.isnan(values)):
        assert (values[near[at] & peak] >= values[at]).any()


def test_calls_in_quick_succession_are_told_apart():
    """Two calls of 0.4 s with 0.4 s between, and windows of 0.5 s."""
    windows = sliding(30, 0.5, 0.9)
    middle = windows.mean(axis=1)
    scores = np.maximum(0.9 - np.abs(middle - 0.5), 0.9 - np.abs(middle - 1.3))
    part = track(scores, [[0.3, 0.7], [1.1, 1.5]], windows=windows)
    runs, peaks = (timeline_of([part], ["s0"], by).detections(0, 0.66) for by in ("detection", "peak"))
    assert (len(runs.spans), len(peaks.spans)) == (1, 2)
    assert peaks.spans.mean(axis=1) == pytest.approx([0.5, 1.3], abs=0.07)


def test_tracks_do_not_compete():
    one, other = (
        track([0.9, 0.1], [], windows=sliding(2, 8.0, 0.9)),
        track([0.8, 0.1], [], windows=sliding(2, 8.0, 0.9)),
    )
    line = timeline_of([one, other], ["s0"], "peak")
    assert line.detections(0, 0.5).track.tolist() == [0, 1]
    assert timeline(one, other).detections(0, 0.5).track.tolist() == [0, 1]


@given(st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.9, NO]), min_size=1, max_size=25))
def test_predict_finds_the_same_peaks(scores):
    windows, values = sliding(len(scores), 1.0, 0.75), np.array(scores, np.float32)
    line = timeline_of([track(scores, [], windows=windows)], ["s0"], "peak")
    spans = np.concatenate([np.zeros((len(scores), 1)), windows], axis=1)
    novelty = np.where(np.isnan(values), np.nan, 0).astype(np.float32)
    given = WindowScores(Path("r.wav"), spans, novelty, values[:, None])
    rows = detect(given, ["s0"], DetectionOptions(min_confidence=0.3, merge=False, peaks=True)).rows
    np.testing.assert_allclose(line.detections(0, 0.3).spans, rows[["start_s", "end_s"]])
