import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.evaluation import selective
from watkins_ml.evaluation.selective import area_under, at_threshold, coverage_at, risk_coverage, threshold_at


def binary(right: list[int], confidence: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """A two-species classifier that always says the first one, with these confidences."""
    confidence = np.asarray(confidence, dtype=float)
    return 1 - np.asarray(right), np.stack([confidence, 1 - confidence], axis=1)


some_cuts = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.55, 0.6, 0.75, 0.75000001, 0.9, 1.0])), min_size=1, max_size=40
).map(lambda cuts: binary(*zip(*cuts, strict=True)))


def test_curve_by_hand():
    curve = risk_coverage(*binary([1, 1, 0, 1, 0], [0.9, 0.95, 0.8, 0.7, 0.6]))
    assert curve.threshold.tolist() == [0.95, 0.9, 0.8, 0.7, 0.6]
    assert curve.coverage.tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert curve.accuracy.tolist() == pytest.approx([1, 1, 2 / 3, 3 / 4, 3 / 5])
    assert area_under(curve) == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert (coverage_at(curve), threshold_at(curve)) == (pytest.approx(0.4), 0.9)
    assert (coverage_at(curve, 0.75), threshold_at(curve, 0.75)) == (pytest.approx(0.8), 0.7)


def test_equal_confidences_are_answered_together():
    curve = risk_coverage(*binary([1] * 9 + [0] * 3, [0.8] * 12))
    assert len(curve) == 1 and curve.accuracy[0] == 0.75
    assert (coverage_at(curve), threshold_at(curve)) == (0, None)
    assert area_under(curve) == pytest.approx(0.25)


def test_nine_of_ten_are_ninety_percent():
    assert coverage_at(risk_coverage(*binary([1] * 9 + [0], np.linspace(0.99, 0.6, 10)))) == 1


@given(some_cuts)
def test_the_order_of_the_cuts_does_not_matter(cuts):
    labels, probabilities = cuts
    order = np.random.default_rng(0).permutation(len(labels))
    assert risk_coverage(labels[order], probabilities[order]).equals(risk_coverage(labels, probabilities))


@given(some_cuts)
def test_every_row_is_what_its_threshold_gives(cuts):
    labels, probabilities = cuts
    curve = risk_coverage(labels, probabilities)
    for row in curve.itertuples():
        gives = at_threshold(labels, probabilities, row.threshold)
        assert gives == pytest.approx({"coverage_at_threshold": row.coverage, "precision_at_threshold": row.accuracy})
    assert curve.coverage.iloc[-1] == 1 and curve.threshold.is_monotonic_decreasing
    assert np.allclose(curve.accuracy + curve.risk, 1)
    assert 0 <= area_under(curve) <= 1


@given(some_cuts, st.sampled_from([0.5, 0.9, 1.0]))
def test_no_threshold_at_all_answers_more_at_that_precision(cuts, precision):
    """Against every threshold, also those between two confidences."""
    labels, probabilities = cuts
    curve = risk_coverage(labels, probabilities)
    every = [at_threshold(labels, probabilities, threshold) for threshold in np.linspace(0.5, 1, 101)]
    good = [0.0] + [
        each["coverage_at_threshold"] for each in every if each.get("precision_at_threshold", 0) >= precision
    ]
    assert coverage_at(curve, precision) >= max(good)
    if (threshold := threshold_at(curve, precision)) is None:
        assert coverage_at(curve, precision) == 0
    else:
        gives = at_threshold(labels, probabilities, threshold)
        assert gives["precision_at_threshold"] >= precision
        assert gives["coverage_at_threshold"] == coverage_at(curve, precision)


def test_a_threshold_that_nothing_reaches_has_no_precision():
    assert at_threshold(*binary([1], [0.6]), 0.7) == {"coverage_at_threshold": 0.0}


@pytest.mark.parametrize(
    ("coverage", "said"),
    [
        (0.6278, "At 90 % precision it answers 62 % of the cuts."),
        (0.29, "At 90 % precision it answers 29 % of the cuts."),
        (0.999, "At 90 % precision it answers 99 % of the cuts."),
        (1.0, "At 90 % precision it answers all cuts."),
        (0.0, "At no threshold are 90 % of its answers right."),
    ],
)
def test_coverage_in_words(coverage, said):
    assert selective.coverage_sentence(coverage) == said


def test_a_threshold_in_words():
    metrics = {"threshold_90": 0.8125, "test_coverage_at_threshold": 0.5, "test_precision_at_threshold": 0.875}
    sure = "at which 90 % of its answers on validation were right"
    rule = f"If it answers only when it is sure enough (with a confidence of 0.8125 or more, {sure}), "
    right = "50 % of the test cuts are answered, and 87 % of these answers are right."
    assert selective.threshold_sentence(metrics) == rule + right
    nothing = {"threshold_90": 0.8125, "test_coverage_at_threshold": 0.0}
    assert selective.threshold_sentence(nothing) == f"{rule}none of the test cuts is answered."
    assert selective.threshold_sentence({"threshold_90": 0.8125}) is None
    folds = {"test_coverage_at_threshold": 0.5, "test_precision_at_threshold": 0.875}  # each has a limit of its own
    rule = f"If each fold's network answers only when it is sure enough (with a confidence, {sure}), "
    assert selective.threshold_sentence(folds) == rule.replace("confidence,", "confidence") + right
