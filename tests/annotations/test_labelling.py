"""The labels of windows follow the tables, for any overlap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.annotations.labelling import Thresholds, call_share, filled, label_windows, union

NONE = np.zeros((0, 2))
SPANS = st.lists(
    st.tuples(st.floats(0, 30), st.floats(0.01, 12)).map(lambda each: (each[0], each[0] + each[1])), max_size=12
).map(lambda spans: np.array(spans).reshape(-1, 2))


def grid(length: float, overlap: float, end: float = 30.0) -> np.ndarray:
    starts = np.arange(0, max(end - length, 0) + 1e-9, length * (1 - overlap))
    return np.stack([starts, starts + length], axis=1)


WINDOWS = st.builds(grid, st.floats(0.5, 8), st.floats(0, 0.9))


def shared(window, span) -> float:
    return max(0.0, min(window[1], span[1]) - max(window[0], span[0]))


@settings(max_examples=60, deadline=None)
@given(WINDOWS, SPANS)
def test_the_share_is_that_of_each_pair_and_of_all_together(windows, calls):
    found = call_share(windows, calls)
    for window, share in zip(windows, found, strict=True):
        length = window[1] - window[0]
        fine = np.linspace(*window, 2_000)
        covered = np.mean(np.any([(fine >= a) & (fine <= b) for a, b in calls], axis=0)) if len(calls) else 0.0
        each = [shared(window, call) / min(length, call[1] - call[0]) for call in calls]
        assert share == pytest.approx(min(1.0, max([covered, *each])), abs=2e-2 if covered else 1e-6)


@settings(max_examples=60, deadline=None)
@given(WINDOWS, SPANS, SPANS, SPANS)
def test_what_is_said_of_a_window_is_what_the_tables_say(windows, orca, walrus, reviewed):
    labels = label_windows(windows, {"Orca": orca, "Walrus": walrus}, NONE, reviewed)
    absent = labels.known & ~labels.present
    for number, window in enumerate(windows):
        for column, calls in enumerate((orca, walrus)):
            inside = any(window[0] <= a and b <= window[1] for a, b in calls)
            touched = any(shared(window, call) > 0 for call in calls)
            assert labels.present[number, column] or not inside  # a whole call is always a label
            assert touched or not labels.present[number, column]  # and none comes from nothing
            assert labels.reviewed[number] or not absent[number, column]  # silence is one where somebody listened
    assert (labels.known | ~labels.present).all()


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 8), st.floats(0, 0.9), st.floats(0, 25), st.floats(0.01, 1))
def test_every_short_call_is_a_label_of_a_window_that_overlaps_enough(length, overlap, start, part):
    duration = part * length * max(overlap, 0.4)
    windows = grid(length, overlap, end=60)
    labels = label_windows(windows, {"Orca": np.array([[start, start + duration]])}, NONE, NONE)
    assert labels.present.any()


@settings(max_examples=40, deadline=None)
@given(WINDOWS, SPANS, SPANS)
def test_more_calls_never_make_fewer_labels(windows, some, more):
    few = label_windows(windows, {"Orca": some}, NONE, NONE).present
    many = label_windows(windows, {"Orca": np.concatenate([some, more])}, NONE, NONE).present
    assert (many | ~few).all()


def test_between_the_thresholds_nothing_is_said():
    windows = np.array([[0.0, 4.0], [4.0, 8.0]])
    share = {"Orca": np.array([[3.0, 5.5]])}  # 40 % of the call in the first window, 60 % in the second
    labels = label_windows(windows, share, NONE, np.array([[0.0, 8.0]]), Thresholds(0.5, 0.1))
    assert labels.present.tolist() == [[False], [True]]
    assert labels.known.tolist() == [[False], [True]]
    assert labels.partial.tolist() == [True, False]
    strict = label_windows(windows, share, NONE, np.array([[0.0, 8.0]]), Thresholds(0.9, 0.45))
    assert strict.known.tolist() == [[True], [False]]
    assert not strict.present.any()


def test_many_short_calls_together_fill_a_window():
    calls = np.array([[second, second + 0.9] for second in range(10)])
    assert call_share(np.array([[0.0, 10.0]]), calls)[0] == pytest.approx(1.0)  # each whole one inside
    assert filled(np.array([[0.0, 10.0]]), calls)[0] == pytest.approx(9.0)
    boxes = np.array([[0.0, 4.0], [4.0, 8.0], [8.0, 12.0]])  # boxes side by side, as programs cut long song
    assert call_share(np.array([[2.0, 6.0]]), boxes)[0] == pytest.approx(1.0)


def test_an_uncertain_sound_hides_silence_but_no_call():
    windows, all_of_it = np.array([[0.0, 4.0]]), np.array([[0.0, 4.0]])
    quiet = label_windows(windows, {"Orca": NONE}, all_of_it, all_of_it)
    assert (quiet.known.tolist(), quiet.partial.tolist()) == ([[False]], [True])
    calling = label_windows(windows, {"Orca": all_of_it}, all_of_it, all_of_it)
    assert (calling.present.tolist(), calling.known.tolist()) == ([[True]], [[True]])


def test_neighbouring_reviewed_boxes_with_rounded_times_are_one_span():
    labels = label_windows(np.array([[2.0, 6.0]]), {}, NONE, np.array([[0.0, 3.8775], [3.8776, 7.755]]))
    assert labels.reviewed.tolist() == [True]
    assert union(np.array([[5.0, 6.0], [0.0, 2.0], [1.0, 1.5]])).tolist() == [[0, 2], [5, 6]]


def test_time_and_memory_do_not_grow_with_windows_times_calls():
    windows = grid(4.0, 0.5, end=86_400)
    calls = np.tile([[0.0, 86_400.0]], (20_000, 1))  # each over all 43,199 windows: 864 million pairs
    assert call_share(windows, calls).min() == 1.0
