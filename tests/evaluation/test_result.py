"""One pure function from logits and labels to everything that is said of a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.support.splits import CLASSES, make_split
from watkins_ml.core.errors import UserError
from watkins_ml.evaluation import metrics, selective
from watkins_ml.evaluation.intervals import score_intervals
from watkins_ml.evaluation.report import prediction_table
from watkins_ml.evaluation.result import evaluate
from watkins_ml.models.bundle import to_probabilities


@pytest.fixture
def cuts():
    frame, probabilities = make_split(60, skill=2)
    return frame, np.log(probabilities)


def test_scores_are_those_of_the_calibrated_probabilities(cuts):
    frame, logits = cuts
    labels = frame.label.to_numpy()
    result = evaluate(labels, logits, CLASSES, temperature=0.5, threshold=0.9)
    expected = to_probabilities(torch.from_numpy(logits), 0.5)
    assert np.array_equal(result.probabilities, expected)
    scores = metrics.score(labels, expected, CLASSES)
    assert {key: result.scores[key] for key in scores} == scores
    plain = metrics.score(labels, to_probabilities(torch.from_numpy(logits)), CLASSES)["ece"]
    assert result.scores["ece_uncalibrated"] == plain != scores["ece"]
    answered = expected.max(axis=1) >= 0.9
    assert 0 < result.scores["coverage_at_threshold"] == answered.mean() < 1
    assert result.scores["precision_at_threshold"] == (expected.argmax(axis=1) == labels)[answered].mean()


def test_its_tables_are_of_the_same_answers(cuts):
    frame, logits = cuts
    result = evaluate(frame.label.to_numpy(), logits, CLASSES)
    assert result.per_species.support.sum() == len(frame)
    assert result.confusion_pairs["count"].sum() == (result.predicted != result.labels).sum() > 0
    assert result.calibration_bins["count"].sum() == len(frame)
    assert selective.coverage_at(result.risk_coverage) == result.scores["coverage_at_90"]
    assert np.array_equal(result.confidence, result.probabilities.max(axis=1))


def test_with_tapes_there_are_the_intervals_of_the_written_predictions(cuts):
    frame, logits = cuts
    plain, result = (evaluate(frame.label.to_numpy(), logits, CLASSES, tapes=tapes) for tapes in (None, frame["tape"]))
    found = score_intervals(prediction_table(frame, result))
    bounds = {f"{name}_{end}": getattr(found[name], end) for name in found for end in ("low", "high")}
    assert result.scores == plain.scores | bounds
    one = frame.assign(tape="the same")["tape"]
    assert evaluate(frame.label.to_numpy(), logits, CLASSES, tapes=one).scores == plain.scores


def test_folds_with_their_own_temperatures_and_thresholds_are_pooled_exactly(cuts):
    frame, logits = cuts
    labels, first, second = frame.label.to_numpy(), slice(0, 25), slice(25, 60)
    temperatures, thresholds = np.repeat([0.5, 2.0], [25, 35]), np.repeat([0.4, np.inf], [25, 35])
    pooled = evaluate(labels, logits, CLASSES, temperatures, thresholds)
    for fold, temperature in ((first, 0.5), (second, 2.0)):
        own = evaluate(labels[fold], logits[fold], CLASSES, temperature)
        assert np.array_equal(pooled.probabilities[fold], own.probabilities)
        assert np.array_equal(pooled.uncalibrated[fold], own.uncalibrated)
    assert pooled.scores["coverage_at_threshold"] == (pooled.confidence[first] >= 0.4).sum() / 60


def test_what_it_is_given_stays_as_it_is(cuts):
    frame, logits = cuts
    labels = frame.label.to_numpy()
    before = labels.copy(), logits.copy()
    evaluate(labels, logits, CLASSES, 0.3, 0.5, frame["tape"])
    assert np.array_equal(labels, before[0]) and np.array_equal(logits, before[1])


@pytest.mark.parametrize(("count", "value", "said"), [(0, 1.0, "no cuts"), (2, np.nan, "diverged")])
def test_what_cannot_be_scored_is_refused(count, value, said):
    with pytest.raises(UserError, match=said):
        evaluate(np.zeros(count, dtype=int), np.full((count, 3), value, dtype=np.float32), CLASSES[:3])
