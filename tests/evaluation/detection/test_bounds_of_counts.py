"""Intervals of rates and shares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from watkins_ml.evaluation.detection.bounds import rate_interval, share_interval
from watkins_ml.evaluation.intervals import draws_of, percentiles

NOTHING = np.empty(0)


def test_no_false_alarm_in_ten_hours_is_no_promise_of_none():
    value, low, high = rate_interval(0, 10.0, np.zeros(1000))
    assert (value, low, high) == (0.0, 0.0, pytest.approx(-math.log(0.025) / 10))


def test_all_or_none_found_is_no_promise():
    assert share_interval(0, 20, np.zeros(100)).high == pytest.approx(1 - 0.025 ** (1 / 20))
    assert share_interval(20, 20, np.ones(100)).low == pytest.approx(0.025 ** (1 / 20))


def test_exact_intervals_of_one_group():
    assert rate_interval(10, 1.0, NOTHING)[1:] == pytest.approx((4.795, 18.39), abs=0.01)  # Garwood 1936
    assert share_interval(8, 10, NOTHING)[1:] == pytest.approx((0.4439, 0.9748), abs=1e-4)


def test_groups_that_differ_widen_it():
    drawn = np.random.default_rng(0).uniform(0, 100, 2000)
    assert rate_interval(500, 10.0, drawn).low < 10
    assert rate_interval(500, 10.0, drawn).high > 90


def test_nothing_to_divide_by_is_no_number():
    assert all(math.isnan(each) for each in (*rate_interval(3, 0.0, NOTHING), *share_interval(0, 0, NOTHING)))


def test_draws_are_of_whole_groups_and_repeat():
    drawn = draws_of(5, 200)
    assert (drawn.sum(axis=1) == 5).all() and (drawn == draws_of(5, 200)).all()
    assert draws_of(1).shape == (0, 1)


def test_percentiles_leave_out_draws_without_a_value():
    assert percentiles(0.5, np.array([np.nan, 0.5, 0.5])) == (0.5, 0.5, 0.5)
    assert math.isnan(percentiles(0.5, np.array([np.nan])).low)
