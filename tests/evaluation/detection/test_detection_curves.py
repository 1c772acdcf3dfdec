"""Detections at every threshold and what is counted of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tests.support.timelines import sliding, timeline, track
from watkins_ml.evaluation.detection.choosing import Wish, choose, doubt
from watkins_ml.evaluation.detection.curves import (
    at_thresholds,
    average_precision,
    count,
    interpolated_precision,
    judge,
    recall_at_alarms,
    thresholds_of,
)
from watkins_ml.evaluation.detection.matching import MatchRule
from watkins_ml.inference.detections import DetectionOptions, detect
from watkins_ml.inference.scores import WindowScores

CENTRE = MatchRule("centre")


def counted(line, rule=CENTRE, most=400):
    thresholds = thresholds_of(line.scores[0], most)
    return count(line, 0, thresholds, line.sweep(0, thresholds), rule, np.arange(len(line.tracks)), len(line.tracks))


@given(
    st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9, float("nan")]), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.5, 0.75]),
    st.sampled_from([0.2, 0.5, 0.8]),
)
def test_detections_are_those_that_predict_merges(scores, overlap, threshold):
    windows = sliding(len(scores), 2.0, overlap)
    line = timeline(track(scores[:3], [], windows=windows[:3]), track(scores, [], windows=windows))
    found = line.detections(0, threshold)
    values = np.array(scores, np.float32)
    spans = np.concatenate([np.zeros((len(scores), 1)), windows], axis=1)
    novelty = np.where(np.isnan(values), np.nan, 0).astype(np.float32)
    window_scores = WindowScores(Path("r.wav"), spans, novelty, values[:, None])
    expected = detect(window_scores, ["s0"], DetectionOptions(min_confidence=threshold)).rows
    mine = found.track == 1
    np.testing.assert_allclose(found.spans[mine] - line.offsets[1], expected[["start_s", "end_s"]])
    np.testing.assert_allclose(found.score[mine], expected["probability"])


def test_windows_in_a_row_are_one_detection_or_each_is_one():
    boxes = [[0, 1], [1, 2], [2, 3]]
    line = timeline(track([0.9, 0.8, 0.7, 0.1], boxes))
    assert len(judge(line, 0, line.detections(0, 0.5), CENTRE).call) == 1
    each = replace(line, by="window")
    assert judge(each, 0, each.detections(0, 0.5), CENTRE).call.tolist() == [0, 1, 2]


def test_what_nobody_listened_to_is_neither_right_nor_wrong():
    scores = [0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9]
    line = timeline(track(scores, [[0, 1]], reviewed=[[2, 3.5], [6.6, 7]], uncertain=[[3, 3.5]]))
    verdicts = judge(line, 0, line.detections(0, 0.5), CENTRE)
    assert verdicts.call.tolist() == [0, -1, -1, -1]
    assert verdicts.false.tolist() == [False, True, False, False]  # the last lies mostly outside
    assert line.hours[0, 0] * 3600 == pytest.approx(1 + 1 + 0.4)


def test_a_second_detection_of_a_call_is_false_though_only_calls_were_marked():
    line = timeline(track([0.9, 0.1, 0.9], [[0, 3]], reviewed=[]))
    verdicts = judge(line, 0, line.detections(0, 0.5), CENTRE)
    assert (sorted(verdicts.call.tolist()), verdicts.false.sum()) == ([-1, 0], 1)


def test_average_precision_is_that_of_ranked_detections_where_none_merge():
    rng = np.random.default_rng(0)
    windows = sliding(200)[::2]  # apart, and numbered apart
    for _ in range(5):
        true = rng.random(100) < 0.3
        scores = rng.random(100) + 0.4 * true
        spread = np.full(200, np.nan)
        spread[::2] = scores
        line = timeline(track(spread, windows[true]))
        counts = counted(line)
        value = average_precision(counts.hits.sum(axis=1), counts.alarms.sum(axis=1), counts.calls.sum())
        assert value == pytest.approx(average_precision_score(true, scores.astype(np.float32)))


def test_average_precision_of_recall_that_falls():
    hits, alarms = np.array([1, 2, 1]), np.array([0, 2, 0])
    assert average_precision(hits, alarms, 2) == pytest.approx(0.5 * 1 + 0.5 * 0.5)
    assert np.isnan(average_precision(hits, alarms, 0))


def test_thinned_thresholds_keep_the_highest_and_the_ends():
    scores = np.random.default_rng(0).random(50_000)
    kept, ranked = thresholds_of(scores), np.sort(scores)[::-1]
    assert len(kept) <= 400 and (np.diff(kept) < 0).all()
    assert (kept[:100] == ranked[:100]).all() and kept[-1] == ranked[-1]
    ranks = np.searchsorted(-ranked, -kept)
    assert (ranks[1:] <= np.maximum(1.05 * ranks[:-1], ranks[:-1] + 1)).all()


def test_counts_at_other_thresholds_are_those_of_the_next_above():
    counts = counted(timeline(track([0.9, 0.1, 0.6, 0.2, 0.3], [[0, 1]])))
    hits, alarms = at_thresholds(counts, np.float32([0.95, 0.9, 0.7, 0.6, 0.35, 0.3]))
    assert hits[:, 0].tolist() == [0, 1, 1, 1, 1, 1]
    assert alarms[:, 0].tolist() == [0, 0, 0, 1, 1, 2]


def test_curves_that_are_averaged():
    nothing = float("nan")
    counts = counted(timeline(track([0.9, nothing, 0.6, nothing, 0.3], [[0, 1], [4, 5]])))
    assert interpolated_precision(counts, np.array([0.0, 0.5, 0.75, 1.0])) == pytest.approx([1, 1, 2 / 3, 2 / 3])
    hour = 3600 / 5
    assert recall_at_alarms(counts, np.array([0, hour - 1, hour])).tolist() == [0.5, 0.5, 1.0]


def test_the_threshold_for_false_alarms_finds_the_most_calls_that_they_allow():
    scores = np.full(3600, 0.05)
    scores[[0, 100, 200, 300]] = 0.9, 0.8, 0.7, 0.6  # the first and the third are calls
    counts = counted(timeline(track(scores, [[0, 1], [200, 201]])))
    assert choose(counts, Wish(false_alarms=1)) == pytest.approx(0.7)  # at 0.05 all is one detection, and one hit
    assert choose(counts, Wish(false_alarms=0)) == pytest.approx(0.9)
    assert choose(counts, Wish(precision=0.6)) == pytest.approx(0.7)
    assert choose(counts, Wish(precision=0.8)) == pytest.approx(0.9)


def test_no_threshold_is_chosen_at_which_a_whole_recording_is_one_detection():
    scores = np.full(60, 0.05)
    scores[10:50:5] = np.linspace(0.9, 0.5, 8)  # all wrong
    counts = counted(timeline(*(track(scores, [[55, 57]], name=name) for name in "abc")))
    assert counts.hits[-1].sum() == 3 and counts.alarms[-1].sum() == 0
    assert choose(counts, Wish(false_alarms=10)) > 0.8
    assert choose(counts, Wish(precision=0.9)) > 0.8


def test_without_calls_no_threshold_is_chosen_below_which_there_were_too_many_alarms():
    scores = np.full(3600, 0.05)
    scores[[0, 100, 200]] = 0.9, 0.8, 0.7
    counts = counted(timeline(track(scores, [])))
    assert choose(counts, Wish(false_alarms=2)) == pytest.approx(0.8)  # at 0.05 there is one again: the recording


def test_a_species_that_is_only_wrong_is_never_detected():
    counts = counted(timeline(track([0.9, 0.1, 0.8, 0.1], [[50, 51]])))
    threshold = choose(counts, Wish(false_alarms=0))
    assert threshold > float(np.float32(0.9))
    assert choose(counts, Wish(precision=0.5)) == threshold


def test_nothing_is_chosen_where_nothing_is_known():
    assert choose(counted(timeline(track([0.9, 0.1], []))), Wish(precision=0.5)) is None
    assert choose(counted(timeline(track([0.9, 0.1], [], reviewed=[]))), Wish(false_alarms=1)) is None


def test_few_hours_for_a_promise_are_said():
    assert doubt(Wish(false_alarms=1), 2.0) == (
        "2 hours are few to choose thresholds for at most 1 false alarms an hour on; 3 hours or more say something"
    )
    assert doubt(Wish(false_alarms=0.1), 29.0) is not None and doubt(Wish(false_alarms=0.1), 30.0) is None
    assert doubt(Wish(false_alarms=0), 100.0) == (
        "100 hours are few to choose thresholds for at most 0 false alarms an hour on"
    )
    assert doubt(Wish(precision=0.9), 0.1) is None
