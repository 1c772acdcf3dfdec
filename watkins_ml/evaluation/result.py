"""What a network's logits are worth on labelled cuts: one typed result, which plots and reports are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from watkins_ml.evaluation import metrics, selective
from watkins_ml.evaluation.intervals import score_intervals
from watkins_ml.models.bundle import to_probabilities


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Made by `evaluate`. Arrays have a row per cut (N), in the order of the labels; C is the number of classes."""

    labels: np.ndarray
    """Class indices (N,)."""
    logits: np.ndarray
    """(N, C), before calibration."""
    classes: list[str]
    temperature: float | np.ndarray
    """One for all cuts, or one for each (N,)."""
    threshold: float | np.ndarray | None
    """The confidence from which on cuts are answered, one or (N,); None where none was found on validation."""
    probabilities: np.ndarray
    """(N, C), calibrated, float64."""
    uncalibrated: np.ndarray
    """(N, C), at temperature 1."""
    scores: dict[str, float]
    """By quantity, as `evaluate` says."""

    @cached_property
    def predicted(self) -> np.ndarray:
        """Class indices (N,)."""
        return self.probabilities.argmax(axis=1)

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest probability of each cut (N,)."""
        return self.probabilities.max(axis=1)

    @property
    def certainty(self) -> np.ndarray:
        """What cuts are ordered by in galleries: the confidence."""
        return self.confidence

    @cached_property
    def per_species(self) -> pd.DataFrame:
        """As `metrics.per_species`."""
        return metrics.per_species(self.labels, self.predicted, self.classes)

    @cached_property
    def confusion_pairs(self) -> pd.DataFrame:
        """As `metrics.confusion_pairs`."""
        return metrics.confusion_pairs(self.labels, self.predicted, self.classes)

    @cached_property
    def calibration_bins(self) -> pd.DataFrame:
        """As `metrics.calibration_bins`, of the calibrated probabilities."""
        return metrics.calibration_bins(self.labels, self.probabilities)

    @cached_property
    def risk_coverage(self) -> pd.DataFrame:
        """As `selective.risk_coverage`."""
        return selective.risk_coverage(self.labels, self.probabilities)


def evaluate(
    labels: np.ndarray,
    logits: np.ndarray,
    classes: list[str],
    temperature: float | np.ndarray = 1.0,
    threshold: float | np.ndarray | None = None,
    tapes: pd.Series | None = None,
) -> Evaluation:
    """Score logits against labels; writes and draws nothing.

    Args:
        labels: class indices (N,), at least one.
        logits: (N, C), C the number of `classes`.
        temperature: what the logits are divided by, found on validation; one, or one for each cut (N,).
        threshold: of confidence, found on validation; one, or one for each cut (N,).
        tapes: the tape of each cut (N,), for intervals.

    Returns:
        its scores: those of `metrics.score`, `ece_uncalibrated`; with a threshold those of `selective.at_threshold`;
        with two tapes or more `{accuracy,macro_f1}_{low,high}`, the bounds of the 95 % intervals over tapes.

    Raises:
        UserError: no cuts, or logits that are not finite.
    """
    given = torch.from_numpy(logits)
    divisor = torch.from_numpy(temperature)[:, None] if isinstance(temperature, np.ndarray) else temperature
    probabilities, uncalibrated = to_probabilities(given, divisor), to_probabilities(given)
    scores = metrics.score(labels, probabilities, classes)
    scores["ece_uncalibrated"] = metrics.expected_calibration_error(metrics.calibration_bins(labels, uncalibrated))
    if threshold is not None:
        scores |= selective.at_threshold(labels, probabilities, threshold)
    if tapes is not None:
        names, predicted = np.asarray(classes, dtype=object), probabilities.argmax(axis=1)
        table = {"tape": tapes.to_numpy(), "species": names[labels], "predicted": names[predicted]}
        found = score_intervals(pd.DataFrame(table))
        bounds = {f"{name}_{end}": getattr(found[name], end) for name in found for end in ("low", "high")}
        scores |= {name: value for name, value in bounds.items() if value == value}
    return Evaluation(labels, logits, classes, temperature, threshold, probabilities, uncalibrated, scores)
