"""Scores where a recording may hold any number of species and not all is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score

from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.average_precision import drawn_average_precision
from watkins_ml.evaluation.intervals import paired_difference, score_intervals
from watkins_ml.evaluation.labels import (
    best_thresholds,
    evaluate_labels,
    fit_labels_temperature,
    per_species,
    score_labels_epoch,
)

CLASSES = ["a", "b", "c"]


def made(seed: int, recordings: int = 60, unknown: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Targets and logits that say something of them, float32 both."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((recordings, 3)) < [0.5, 0.3, 0.1]).astype(np.float32)
    logits = 2 * targets - 1 + rng.standard_normal(targets.shape)
    targets[rng.random(targets.shape) < unknown] = np.nan
    return targets, logits.astype(np.float32).round(1)  # some are equal


@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_precision_recall_and_their_average_are_those_of_scikit_learn_over_what_is_known(seed):
    targets, logits = made(seed)
    evaluation = evaluate_labels(targets, logits, CLASSES)
    for label, row in evaluation.per_species.iterrows():
        known = ~np.isnan(targets[:, label])
        true, values = targets[known, label], evaluation.probabilities[known, label]
        if not true.any():
            assert np.isnan(row["average_precision"])
            continue
        assert row["average_precision"] == pytest.approx(average_precision_score(true, values))
        assert row["f1"] == pytest.approx(f1_score(true, values >= evaluation.thresholds[label], zero_division=0))
        assert (row["support"], row["known"]) == (true.sum(), known.sum())


@pytest.mark.slow
@given(seed=st.integers(0, 500))
@settings(max_examples=25, deadline=None)
def test_no_threshold_gives_a_higher_f1_than_the_best_one(seed):
    targets, logits = made(seed, unknown=0.0)
    probabilities = expit(logits.astype(float))
    thresholds = best_thresholds(targets, probabilities)
    for label in range(3):
        if targets[:, label].any():
            best = f1_score(targets[:, label], probabilities[:, label] >= thresholds[label], zero_division=0)
            others = [f1_score(targets[:, label], probabilities[:, label] >= one) for one in probabilities[:, label]]
            assert best == pytest.approx(max(others))


def test_the_threshold_of_a_species_that_is_nowhere_is_a_half():
    targets = np.array([[1, 0], [0, np.nan]], dtype=np.float32)
    assert best_thresholds(targets, np.array([[0.9, 0.9], [0.2, 0.9]])).tolist() == pytest.approx([0.55, 0.5])


def test_scores_by_hand():
    targets = np.array([[1, 0, np.nan], [1, 1, 0]], dtype=np.float32)
    logits = np.array([[3, 1, 5], [-1, 2, -3]], dtype=np.float32)
    scores = evaluate_labels(targets, logits, CLASSES, thresholds=np.full(3, 0.5)).scores
    assert scores["accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert scores["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 2)  # c is nowhere, so it is not scored
    assert scores["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    wanted = -np.log(expit([3, -1, -1, 2, 3])).mean()
    assert scores["nll"] == pytest.approx(wanted, rel=1e-6)


def test_what_is_not_known_changes_no_score():
    targets, logits = made(3)
    other = np.where(np.isnan(targets), -logits * 7, logits).astype(np.float32)
    given = {"thresholds": np.full(3, 0.4), "tapes": pd.Series([str(n % 7) for n in range(60)])}
    assert evaluate_labels(targets, logits, CLASSES, **given).scores == pytest.approx(
        evaluate_labels(targets, other, CLASSES, **given).scores
    )


def test_the_temperature_makes_too_sure_logits_fit():
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 1.5, (4000, 2))
    targets = (rng.random(honest.shape) < expit(honest)).astype(np.float32)
    assert fit_labels_temperature(targets, 3 * honest) == pytest.approx(3, rel=0.1)
    sharp, right = (evaluate_labels(targets, 3 * honest, ["a", "b"], t).scores for t in (1.0, 3.0))
    assert right["ece"] < 0.03 < sharp["ece"] and right["ece_uncalibrated"] == sharp["ece"]


def test_intervals_are_over_tapes_and_hold_the_value():
    targets, logits = made(1, recordings=200)
    tapes = pd.Series([f"tape {n // 10}" for n in range(200)])
    evaluation = evaluate_labels(targets, logits, CLASSES, tapes=tapes)
    for name in ("accuracy", "macro_f1", "macro_ap"):
        low, value, high = (evaluation.scores[name + end] for end in ("_low", "", "_high"))
        assert low < value < high
    alone = evaluate_labels(targets, logits, CLASSES, tapes=pd.Series(["one tape"] * 200)).scores
    assert "macro_f1_low" not in alone
    assert not len(drawn_average_precision(targets, evaluation.probabilities, pd.Series(["one tape"] * 200)))


def test_two_models_are_compared_on_the_same_tapes():
    targets, logits = made(2, recordings=200)
    tapes = pd.Series([f"tape {n // 10}" for n in range(200)])

    def table(logits: np.ndarray) -> pd.DataFrame:
        found = evaluate_labels(targets, logits, CLASSES, thresholds=np.full(3, 0.5))
        texts = {"targets": found.target_texts, "answers": found.answer_texts}
        return pd.DataFrame({"path": [f"{n}.wav" for n in range(200)], "tape": tapes, **texts})

    good, bad = table(logits), table(-logits)
    found = score_intervals(good)
    assert found["macro_f1"].value == pytest.approx(
        evaluate_labels(targets, logits, CLASSES, thresholds=np.full(3, 0.5)).scores["macro_f1"]
    )
    difference = paired_difference(bad, good)["macro_f1"]
    assert 0 < difference.low < difference.value


def test_confused_pairs_name_what_was_missed_and_what_was_said_instead():
    targets = np.array([[1, 0, 0], [1, 0, np.nan]], dtype=np.float32)
    logits = np.array([[-1, 2, -3], [-1, 2, 4]], dtype=np.float32)
    evaluation = evaluate_labels(targets, logits, CLASSES, thresholds=np.full(3, 0.5))
    assert evaluation.confusion_pairs.to_numpy().tolist() == [["a", "b", 2, 1.0]]
    assert evaluation.named == ["b", "b + c"] and evaluation.correct.tolist() == [False, False]


def test_diverged_and_empty_are_refused():
    with pytest.raises(UserError, match="no cuts to score"):
        evaluate_labels(np.zeros((0, 3)), np.zeros((0, 3)), CLASSES)
    with pytest.raises(UserError, match="not finite"):
        evaluate_labels(np.zeros((1, 3)), np.full((1, 3), np.nan), CLASSES)


def test_a_side_that_no_species_is_in_has_no_score_of_species():
    targets, logits = np.zeros((4, 2), np.float32), np.ones((4, 2), np.float32)
    targets[0, 0] = np.nan
    scores = evaluate_labels(targets, logits, ["a", "b"], tapes=pd.Series(list("aabb"))).scores
    assert {"accuracy", "nll", "accuracy_low"} <= set(scores) and not any("macro" in name for name in scores)
    assert all(np.isfinite(list(scores.values())))
    assert score_labels_epoch(targets, logits, ["a", "b"])["macro_f1"] == 0


def test_an_epoch_has_what_a_training_is_monitored_by():
    scores = score_labels_epoch(*made(0), CLASSES)
    assert {"accuracy", "macro_f1", "macro_precision", "macro_recall", "macro_ap", "calibrated_loss"} == set(scores)
    assert per_species(*(np.zeros((2, 1)), np.zeros((2, 1)), np.zeros((2, 1), bool)), ["a"])["f1"].isna().all()
