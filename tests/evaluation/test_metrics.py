import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, classification_report, f1_score, log_loss

from watkins_ml.core.errors import UserError
from watkins_ml.evaluation import metrics

ABC = ["a", "b", "c"]


def one_hot(predicted: list[int], classes: int = 3, confidence: float = 1.0) -> np.ndarray:
    rest = (1 - confidence) / (classes - 1)
    return np.where(np.eye(classes, dtype=bool)[predicted], confidence, rest)


def test_macro_runs_over_present_species_and_a_prediction_of_an_absent_one_costs_recall():
    labels = np.array([0, 0, 1, 1])  # c is absent
    scores = metrics.score(labels, one_hot([0, 2, 1, 1]), ABC)
    assert scores["macro_recall"] == pytest.approx((0.5 + 1) / 2)
    assert scores["macro_precision"] == pytest.approx(1)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["accuracy"] == 0.75
    assert scores["weighted_f1"] == pytest.approx((2 * 2 / 3 + 2 * 1) / 4)


def test_precision_without_a_prediction_is_zero_and_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = metrics.score(np.array([0, 1]), one_hot([0, 0]), ABC)
    assert scores["macro_precision"] == pytest.approx((0.5 + 0) / 2)


def test_loss_and_ece_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    labels = np.array([0, 1, 1, 0])
    scores = metrics.score(labels, probabilities, ["a", "b"])
    assert scores["nll"] == pytest.approx(-np.log([0.9, 0.1, 0.6, 0.7]).mean())
    # bins: 0.9 twice (half right), 0.6 and 0.7 once each (both right)
    assert scores["ece"] == pytest.approx((2 * abs(0.5 - 0.9) + 1 * 0.4 + 1 * 0.3) / 4)


def test_loss_stays_finite_when_softmax_underflows():
    assert np.isfinite(metrics.score(np.array([1]), one_hot([0]), ABC)["nll"])


def test_refuses_nothing_and_not_finite():
    with pytest.raises(UserError, match="no cuts"):
        metrics.score(np.array([], dtype=int), np.empty((0, 3)), ABC)
    with pytest.raises(UserError, match="diverged"):
        metrics.score(np.array([0]), np.full((1, 3), np.nan), ABC)


def test_bins_are_equal_wide_closed_above_and_lose_no_cut():
    confidence = np.array([1 / 3, 0.5, 2 / 3, 1.0])
    bins = metrics.calibration_bins(np.zeros(4, int), np.column_stack([confidence, np.zeros(4)]), bins=3)
    assert bins["count"].tolist() == [1, 2, 1]
    assert np.allclose(bins.upper - bins.lower, 1 / 3)
    assert bins.confidence.tolist() == pytest.approx([1 / 3, 7 / 12, 1])


def test_per_species_keeps_absent_species_as_nan():
    table = metrics.per_species(np.array([0, 0, 1]), np.array([0, 1, 1]), ABC).set_index("species")
    assert table.support.tolist() == [2, 1, 0]
    assert table.loc["c", ["precision", "recall", "f1"]].isna().all()
    assert table.loc["a", "recall"] == 0.5
    assert table.loc["b", "precision"] == 0.5


def test_report_matches_sklearn_and_is_strict_json():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 3, 50), rng.integers(0, 3, 50)
    expected = classification_report(labels, predicted, target_names=ABC, output_dict=True)
    found = metrics.report_json(labels, predicted, ABC)
    assert found.keys() == expected.keys()
    for key in expected:
        assert found[key] == pytest.approx(expected[key])
    absent = metrics.report_json(labels, predicted, [*ABC, "d"])
    assert json.loads(json.dumps(absent, allow_nan=False))["d"]["f1-score"] is None


def test_confusion_pairs_sorted_with_share_of_true():
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    predicted = np.array([1, 1, 0, 0, 0, 1, 0, 2])
    pairs = metrics.confusion_pairs(labels, predicted, ABC)
    assert pairs.values.tolist() == [["a", "b", 2, 0.5], ["b", "a", 1, 0.5], ["c", "a", 1, 0.5]]
    none = metrics.confusion_pairs(labels, labels, ABC)
    assert none.empty and list(none.columns) == list(pairs.columns)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(2, 6), st.integers(0, 2**32 - 1))
def test_agrees_with_sklearn_and_stays_in_range(cuts, classes, seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, cuts)
    probabilities = rng.dirichlet(np.ones(classes), cuts)
    predicted = probabilities.argmax(axis=1)
    names = [f"s{i}" for i in range(classes)]
    scores = metrics.score(labels, probabilities, names)
    present = np.unique(labels)
    f1 = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert scores["macro_f1"] == pytest.approx(f1)
    assert scores["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert scores["weighted_recall"] == pytest.approx(scores["accuracy"])
    assert scores["nll"] == pytest.approx(log_loss(labels, probabilities, labels=range(classes)), rel=1e-3)
    assert all(0 <= value <= 1 for name, value in scores.items() if name != "nll")
    pairs = metrics.confusion_pairs(labels, predicted, names)
    assert pairs["count"].sum() == (labels != predicted).sum()
    assert metrics.calibration_bins(labels, probabilities)["count"].sum() == cuts
