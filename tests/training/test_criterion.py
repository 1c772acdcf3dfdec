"""The losses: of one species a recording, and of any number of them where only some is known."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from watkins_ml.training.criterion import LabelsCriterion, SpeciesCriterion
from watkins_ml.training.weighing import balanced_weights

NAN = float("nan")
LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-0.3, 0.7, -2.0]])
TARGETS = torch.tensor([[1.0, 0.0, NAN], [NAN, 0.0, 1.0]])


def test_what_is_not_known_counts_for_nothing():
    loss, weight, correct = LabelsCriterion(torch.ones(3), 0.0)(LOGITS, TARGETS)
    known = [(2.0, 1.0), (-1.0, 0.0), (0.7, 0.0), (-2.0, 1.0)]
    by_hand = [F.binary_cross_entropy_with_logits(torch.tensor(x), torch.tensor(y)) for x, y in known]
    assert loss.item() == pytest.approx(float(sum(by_hand)) / 4)
    assert weight.item() == 4 and correct.item() == pytest.approx(1.0)  # the first all right, of the second none
    for other in (-100.0, 100.0):
        logits = LOGITS.clone()
        logits[0, 2] = logits[1, 0] = other
        assert torch.equal(LabelsCriterion(torch.ones(3), 0.0)(logits, TARGETS).loss, loss)


def test_no_gradient_comes_from_what_is_not_known():
    logits = LOGITS.clone().requires_grad_()
    LabelsCriterion(torch.ones(3), 0.1)(logits, TARGETS).loss.backward()
    assert logits.grad is not None and torch.equal(logits.grad == 0, TARGETS.isnan())


def test_classes_weigh_as_they_are_told_and_smoothing_moves_targets_inward():
    weights = torch.tensor([2.0, 1.0, 1.0])
    loss, weight, _ = LabelsCriterion(weights, 0.0)(LOGITS, TARGETS)
    plain = [F.softplus(-LOGITS[0, 0]), F.softplus(LOGITS[0, 1]), F.softplus(LOGITS[1, 1]), F.softplus(-LOGITS[1, 2])]
    assert weight.item() == 5 and loss.item() == pytest.approx(float(2 * plain[0] + sum(plain[1:])) / 5)
    smoothed = LabelsCriterion(torch.ones(3), 0.2)(LOGITS, TARGETS).loss
    inward = torch.tensor([[0.9, 0.1, NAN], [NAN, 0.1, 0.9]])
    assert smoothed.item() == pytest.approx(LabelsCriterion(torch.ones(3), 0.0)(LOGITS, inward).loss.item())


def test_a_batch_of_which_nothing_is_known_moves_nothing():
    loss, weight, correct = LabelsCriterion(torch.ones(3), 0.0)(LOGITS, torch.full((2, 3), NAN))
    assert (loss.item(), weight.item(), correct.item()) == (0, 0, 0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_species_is_torchs_own_cross_entropy_also_as_shares(smoothing):
    labels, weights = torch.tensor([0, 2]), torch.tensor([0.5, 1.0, 2.0])
    criterion = SpeciesCriterion(weights, smoothing)
    loss, weight, correct = criterion(LOGITS, labels)
    if not smoothing:
        assert loss.item() == pytest.approx(F.cross_entropy(LOGITS, labels, weights).item())
    shares = criterion(LOGITS, torch.eye(3)[labels])
    assert shares.loss.item() == pytest.approx(loss.item()) and weight.item() == shares.weight.item() == 2.5
    assert correct.item() == 1


def test_rare_species_weigh_more_and_one_never_seen_is_learned_to_be_absent():
    labels = torch.tensor([[1.0, 0, 0]] * 8 + [[0, 1.0, 0]] * 2)
    common, rare, absent = balanced_weights(labels, 3).tolist()
    assert rare == pytest.approx(4 * common) and absent == pytest.approx(8 * common)
