"""Scores of detections by species, together and by group."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.timelines import timeline, track
from watkins_ml.evaluation.detection.choosing import Wish
from watkins_ml.evaluation.detection.matching import MatchRule
from watkins_ml.evaluation.detection.page import headline, render_page, species_rows
from watkins_ml.evaluation.detection.plots import precision_recall, recall_false_alarms
from watkins_ml.evaluation.detection.scores import MACRO, MICRO, score_detections, verdict_rows

NO = float("nan")
HALF = {"s0": 0.5, "s1": 0.5}


@pytest.fixture
def line():
    """Two species in two recordings; in the second nobody listened to the last two seconds."""
    first = track([[0.9, NO], [NO, 0.8], [0.6, NO], [NO, NO]], [[[0, 1]], [[1, 2]]], name="a")
    second = track([[NO, 0.7], [0.8, NO], [0.9, NO], [NO, NO]], [[[2, 3]], []], reviewed=[[0, 2]], name="b")
    return timeline(first, second)


@pytest.fixture
def scores(line):
    return score_detections(line, MatchRule(), HALF)


def test_counts_and_shares_of_each_species_pooled_and_in_the_mean(scores):
    table = scores.table[scores.table["criterion"] == "centre"].set_index("species")
    counts = ["calls", "hits", "misses", "false_alarms"]
    assert table.loc["s0", counts].tolist() == [2, 2, 0, 1]
    assert table.loc["s1", counts].tolist() == [1, 1, 0, 1]
    assert table.loc[MICRO, counts].tolist() == [3, 3, 0, 2]
    assert table.loc[MICRO, "precision"] == pytest.approx(3 / 5)
    assert table.loc[MACRO, "precision"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert table.loc[MACRO, "recall"] == 1.0
    assert table.loc["s0", "hours"] * 3600 == pytest.approx(4 + 2 + 1)  # reviewed, and the call outside


def test_metrics_have_names_and_are_numbers(scores):
    metrics = scores.metrics()
    assert metrics["detection_micro_recall"] == 1.0
    assert metrics["detection_macro_average_precision"] == pytest.approx(
        scores.table.query("criterion == 'centre' and species in ['s0', 's1']")["average_precision"].mean()
    )
    assert {"detection_psds1", "detection_hours", "detection_micro_false_alarms_an_hour_high"} <= set(metrics)
    assert np.isfinite(list(metrics.values())).all()


def test_groups_add_up_to_all(scores):
    groups = scores.groups.set_index(["group", "species"])
    assert groups.loc[("a", MICRO), ["calls", "hits", "false_alarms"]].tolist() == [2, 2, 1]
    assert groups.loc[("b", MICRO), ["calls", "hits", "false_alarms"]].tolist() == [1, 1, 1]
    assert np.isnan(groups.loc[("b", "s1"), "recall"])


def test_a_species_without_calls_counts_in_no_mean():
    line = timeline(track([[0.9, 0.9], [NO, NO]], [[[0, 1]], []]))
    table = score_detections(line, MatchRule(), HALF).table.query("criterion == 'centre'").set_index("species")
    assert np.isnan(table.loc["s1", "average_precision"])
    assert table.loc[MACRO, "average_precision"] == 1.0
    assert table.loc[MICRO, "false_alarms"] == 1


def test_chosen_thresholds_keep_what_was_asked_for():
    rng = np.random.default_rng(0)
    values = rng.random(7200).astype(np.float32)
    values[::20] += 0.3
    spread = np.where(np.arange(7200) % 2 == 0, values, np.nan)
    line = timeline(track(spread, [[at, at + 1] for at in range(0, 7200, 20)]))
    found = score_detections(line, MatchRule(), {"s0": 0.5}, Wish(false_alarms=10))
    row = found.table.query("criterion == 'centre'").iloc[0]
    assert 0 < row["false_alarms_an_hour"] <= 10 and row["hits"] > 0
    assert found.thresholds["s0"] == row["threshold"] and found.undecided == ()


def test_species_of_which_nothing_is_known_keep_the_given_threshold():
    line = timeline(track([[0.9, 0.9], [NO, NO]], [[[0, 1]], []]))
    found = score_detections(line, MatchRule(), HALF, Wish(precision=0.9))
    assert (found.undecided, found.thresholds["s1"]) == (("s1",), 0.5)


def test_verdicts_name_every_detection_and_every_missed_call(line):
    rows = verdict_rows(line, {"s0": 0.85, "s1": 0.5}, MatchRule())
    said = rows[["recording", "species", "start_s", "end_s", "verdict"]].values.tolist()
    assert said == [
        ["a", "s0", 0, 1, "hit"],
        ["a", "s1", 1, 2, "hit"],
        ["b", "s1", 0, 1, "false alarm"],
        ["b", "s0", 2, 3, "hit"],
    ]
    assert rows.iloc[3][["call_start_s", "call_end_s"]].tolist() == [2, 3]
    missed = verdict_rows(line, {"s0": 2.0, "s1": 0.5}, MatchRule()).query("verdict == 'miss'")
    assert missed[["recording", "start_s", "score"]].fillna(-1).values.tolist() == [["a", 0, -1], ["b", 2, -1]]


def test_figures_and_page_of_scores(scores):
    for figure in (precision_recall(scores), recall_false_alarms(scores)):
        assert len(figure.axes[0].lines) >= 4
    page = render_page("a <model>", scores, [("Recordings", "2")], ["A <remark>"], [], [])
    assert "a &lt;model&gt;" in page and "A &lt;remark&gt;" in page and "No false alarm and no miss" in page
    assert "3 of 3 calls found" in headline(scores)
    assert species_rows(scores, "overlap", intervals=False)[0][0] == "s0"
