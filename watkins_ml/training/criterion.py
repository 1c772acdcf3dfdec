"""What a training minimises: cross-entropy for one species a recording, binary cross-entropy for any number of them."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch.nn import functional as F


class Measured(NamedTuple):
    """The loss of a batch."""

    loss: torch.Tensor
    """The weighted mean, ()."""
    weight: torch.Tensor
    """The sum of the weights that it is a mean by, ()."""
    correct: torch.Tensor
    """How many recordings are answered right, (); of one with several labels the share that is."""


class Criterion(Protocol):
    """A loss with its weights."""

    def __init__(self, class_weights: torch.Tensor, smoothing: float): ...

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> Measured:
        """float32 logits (batch, species) against the labels of a training batch."""
        ...

    def validation_loss(self, logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor) -> float:
        """The loss without label smoothing, all on the CPU."""
        ...


class SpeciesCriterion:
    """Cross-entropy of labels (batch,), or of shares of species (batch, species)."""

    def __init__(self, class_weights: torch.Tensor, smoothing: float):
        self.class_weights, self.smoothing = class_weights, smoothing

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> Measured:
        if self.smoothing and targets.ndim == 1:  # of labels, torch's smoothing makes the host of a GPU wait
            targets = torch.eye(logits.shape[1], dtype=logits.dtype, device=logits.device)[targets]
        loss = F.cross_entropy(logits, targets, self.class_weights, label_smoothing=self.smoothing)
        if targets.ndim == 1:
            labels, weight = targets, self.class_weights[targets].sum()
        else:
            labels, weight = targets.argmax(dim=1), (targets @ self.class_weights).sum()
            loss = loss * len(targets) / weight  # for shares, torch divides by recordings instead of weights
        return Measured(loss, weight, (logits.argmax(dim=1) == labels).sum())

    def validation_loss(self, logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor) -> float:
        return F.cross_entropy(logits, labels, class_weights).item()


class LabelsCriterion:
    """Binary cross-entropy over what is known: targets (batch, species) from 0 to 1, NaN where nothing is known.

    A class weighs the same whether present or absent, so that probabilities stay those of the training windows.
    """

    def __init__(self, class_weights: torch.Tensor, smoothing: float):
        self.class_weights, self.smoothing = class_weights, smoothing

    def __call__(self, logits: torch.Tensor, targets: torch.Tensor) -> Measured:
        known = ~targets.isnan()
        wanted = torch.where(known, targets, 0.5)
        smoothed = wanted * (1 - self.smoothing) + self.smoothing / 2
        weights = known * self.class_weights
        weight = weights.sum()
        losses = F.binary_cross_entropy_with_logits(logits, smoothed, weights, reduction="sum")
        right = (((logits > 0) == (wanted > 0.5)) & known).sum(dim=1) / known.sum(dim=1).clamp(min=1)
        return Measured(losses / weight.clamp(min=1e-12), weight, right.sum())

    def validation_loss(self, logits: torch.Tensor, labels: torch.Tensor, class_weights: torch.Tensor) -> float:
        return LabelsCriterion(class_weights, 0.0)(logits, labels).loss.item()
