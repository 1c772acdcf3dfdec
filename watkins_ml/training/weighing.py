"""What rare species and single tapes count for in training: weights in the loss, or chances to be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from watkins_ml.dataset.loading import Side
from watkins_ml.dataset.targets import main_labels

MOST = 10.0
"""Where recordings may hold several species, none of these weighs so many times more or less than the mean."""


def balanced_weights(labels: torch.Tensor, species: int) -> torch.Tensor:
    """Per-class weights inverse to frequency, mean 1 over the recordings (0 for a class never seen).

    Labels are int64 (recordings,), or (recordings, species) as of `Side.labels`. Of the latter the mean is over the
    classes, and one never seen keeps its weight: that it is absent has to be learned.
    """
    if labels.ndim == 2:
        weights = 1 / (labels == 1).sum(dim=0).clamp(min=1).float()
        return (weights / weights.mean()).clamp(1 / MOST, MOST)
    counts = torch.bincount(labels, minlength=species).float()
    weights = len(labels) / (species * counts)
    return torch.where(counts > 0, weights, torch.zeros(()))


def sampling_chances(side: Side, class_weights: torch.Tensor, how: str) -> torch.Tensor | None:
    """The chance of each recording to be drawn, float32 (recordings,) on the CPU; None where all come once an epoch.

    Args:
        class_weights: float32 (species,), as `balanced_weights` gives them.
        how: `train.class_weights`.
    """
    labels = side.labels.cpu()
    if labels.ndim == 2:  # drawn by the rarest species of each, those without any as if they were one more
        present = (labels == 1).numpy()
        labels = torch.from_numpy(np.where(present.any(axis=1), main_labels(present), present.shape[1]))
        class_weights = balanced_weights(labels, present.shape[1] + 1)
    if how == "sampled":
        return class_weights.cpu()[labels]
    if how == "tapes":
        return tape_chances(labels.tolist(), list(side.frame["tape"]))
    return None


def tape_chances(labels: Sequence[int], tapes: Sequence[str]) -> torch.Tensor:
    """Chances by which every species comes equally often, and of a species every tape, float32 (recordings,)."""
    cuts: dict[tuple[int, str], int] = {}
    for pair in zip(labels, tapes, strict=True):
        cuts[pair] = cuts.get(pair, 0) + 1
    tapes_of: dict[int, int] = {}
    for label, _ in cuts:
        tapes_of[label] = tapes_of.get(label, 0) + 1
    return torch.tensor([1 / (tapes_of[label] * cuts[label, tape]) for label, tape in zip(labels, tapes, strict=True)])
