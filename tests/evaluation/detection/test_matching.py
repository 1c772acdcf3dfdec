"""Detections and calls one to one."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.annotations.labelling import without
from watkins_ml.evaluation.detection import matching
from watkins_ml.evaluation.detection.matching import MatchRule, match

RULES = [MatchRule("centre"), MatchRule("overlap", 0.3), MatchRule("overlap", 0.01)]


@st.composite
def spans(draw, apart: bool):
    """(n, 2) ascending seconds in steps of a half; with `apart` none reaches into the next."""
    count = draw(st.integers(0, 7))
    begins = sorted(draw(st.lists(st.integers(0, 40), min_size=count, max_size=count, unique=True)))
    lengths = [draw(st.integers(1, 12)) for _ in begins]
    ends = [begin + length for begin, length in zip(begins, lengths, strict=True)]
    if apart:
        ends = [min(end, later) for end, later in zip(ends, [*begins[1:], 99], strict=False)]
    return np.array(list(zip(begins, ends, strict=True)), float).reshape(-1, 2) / 2


def fits(one: np.ndarray, other: np.ndarray, rule: MatchRule) -> bool:
    shared = min(one[1], other[1]) - max(one[0], other[0])
    if shared <= 0:
        return False
    if rule.by == "overlap":
        return shared / (max(one[1], other[1]) - min(one[0], other[0])) >= rule.iou - 1e-9
    return one[0] <= other.mean() <= one[1] or other[0] <= one.mean() <= other[1]


@given(spans(apart=True), spans(apart=False), st.sampled_from(RULES))
def test_no_call_is_counted_twice_and_every_pair_fits(detections, calls, rule):
    found = match(detections, calls, rule)
    taken = found[found >= 0]
    assert len(set(taken)) == len(taken)
    assert all(fits(detections[at], calls[call], rule) for at, call in enumerate(found) if call >= 0)
    assert len(taken) <= len(calls)  # so recall is never above 1


@given(spans(apart=True), spans(apart=False), st.sampled_from(RULES), st.data())
def test_a_further_detection_never_lowers_recall(detections, calls, rule, data):
    if not len(detections):
        return
    gone = data.draw(st.integers(0, len(detections) - 1))
    fewer = match(np.delete(detections, gone, axis=0), calls, rule)
    assert (match(detections, calls, rule) >= 0).sum() >= (fewer >= 0).sum()


@settings(max_examples=60, deadline=None)
@given(spans(apart=True), spans(apart=False), st.sampled_from(RULES))
def test_no_other_choice_has_more_pairs_or_better_overlaps(detections, calls, rule):
    detections, calls = detections[:4], calls[:4]

    def iou(at: int, call: int) -> float:
        one, other = detections[at], calls[call]
        shared = min(one[1], other[1]) - max(one[0], other[0])
        return shared / ((one[1] - one[0]) + (other[1] - other[0]) - shared)

    best = (0, 0.0)
    for size in range(1, min(len(detections), len(calls)) + 1):
        for chosen in combinations(range(len(detections)), size):
            for others in permutations(range(len(calls)), size):
                pairs = list(zip(chosen, others, strict=True))
                if all(fits(detections[at], calls[call], rule) for at, call in pairs):
                    best = max(best, (size, sum(iou(*pair) for pair in pairs)))
    found = [(at, call) for at, call in enumerate(match(detections, calls, rule)) if call >= 0]
    assert (len(found), sum(iou(*pair) for pair in found)) == pytest.approx(best)


def test_the_best_first_would_lose_a_call():
    detections, calls = np.array([[0.0, 10], [10, 20]]), np.array([[0.0, 4], [4, 14.5]])
    assert match(detections, calls, MatchRule("overlap", 0.2)).tolist() == [0, 1]


def test_a_component_too_large_for_a_table_still_has_the_most_pairs(monkeypatch):
    detections = np.stack([np.arange(50.0), np.arange(50.0) + 1], axis=1)
    calls = detections + 0.5
    monkeypatch.setattr(matching, "MOST_CELLS", 100)
    found = match(detections, calls, MatchRule("overlap", 0.2))
    assert (found >= 0).all() and len(set(found)) == 50


def test_the_overlap_decides_at_the_given_share():
    detections, calls = np.array([[0.0, 2]]), np.array([[1.0, 3]])
    assert match(detections, calls, MatchRule("overlap", 1 / 3)).tolist() == [0]
    assert match(detections, calls, MatchRule("overlap", 0.34)).tolist() == [-1]


@given(spans(apart=False), spans(apart=False))
def test_what_is_left_of_spans_lies_in_them_and_in_no_hole(these, holes):
    left = without(these, holes)
    times = np.arange(0, 60, 0.25) + 0.125

    def inside(spans: np.ndarray) -> np.ndarray:
        return ((spans[None, :, 0] < times[:, None]) & (times[:, None] < spans[None, :, 1])).any(axis=1)

    assert (inside(left) == (inside(these) & ~inside(holes))).all()
