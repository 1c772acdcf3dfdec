"""Scores where a recording may hold any number of species, each known to be there, known not to be, or not known.

Targets are float (N, C): 1 present, 0 absent, NaN where it is not known; that counts for nothing anywhere here. Macro
averages run over the species that are present somewhere, as in `metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import expit

from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import ACCURACY, CALIBRATED_LOSS, MACRO_AP, MACRO_F1
from watkins_ml.dataset.targets import encode, joined_names
from watkins_ml.evaluation.average_precision import average_precision, drawn_average_precision
from watkins_ml.evaluation.calibration import BOUNDS
from watkins_ml.evaluation.intervals import percentiles, score_intervals
from watkins_ml.evaluation.metrics import BINS, SMALLEST_PROBABILITY, expected_calibration_error

MIDDLE = 0.5
"""The threshold of a species that no validation recording is known to hold."""
OUTERMOST = 0.02, 0.98
"""No threshold beyond: where few recordings hold a species, the best one may lie anywhere."""


@dataclass(frozen=True, eq=False)
class LabelsEvaluation:
    """Made by `evaluate_labels`. Arrays have a row per recording (N); C is the number of classes."""

    targets: np.ndarray
    logits: np.ndarray
    """(N, C), before calibration."""
    classes: list[str]
    temperature: float | np.ndarray
    """One for all, or (N,)."""
    thresholds: np.ndarray
    """(C,), or (N, C): the probability from which on a species is answered."""
    probabilities: np.ndarray
    """(N, C), calibrated, float64."""
    uncalibrated: np.ndarray
    """(N, C), at temperature 1."""
    scores: dict[str, float]

    @cached_property
    def answers(self) -> np.ndarray:
        """Bool (N, C): which species are answered."""
        return self.probabilities >= self.thresholds

    @cached_property
    def confidence(self) -> np.ndarray:
        """The highest probability of each recording (N,)."""
        return self.probabilities.max(axis=1)

    @cached_property
    def certainty(self) -> np.ndarray:
        """How far the nearest known label of each recording is from its threshold (N,)."""
        distance = np.where(np.isnan(self.targets), np.inf, np.abs(self.probabilities - self.thresholds))
        return distance.min(axis=1)

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether all known labels of a recording are answered right, bool (N,)."""
        return (np.isnan(self.targets) | (self.answers == (self.targets == 1))).all(axis=1)

    @cached_property
    def confusion_pairs(self) -> pd.DataFrame:
        """As `metrics.confusion_pairs`: how often a species was missed where another one was answered falsely."""
        missed = ((self.targets == 1) & ~self.answers).astype(int)
        false = ((self.targets == 0) & self.answers).astype(int)
        counts, support = missed.T @ false, (self.targets == 1).sum(axis=0)
        rows = [
            (self.classes[true], self.classes[other], int(counts[true, other]), counts[true, other] / support[true])
            for true, other in np.argwhere(counts > 0)
        ]
        table = pd.DataFrame(rows, columns=["true", "predicted", "count", "share_of_true"])
        order = ["count", "share_of_true", "true", "predicted"]
        return table.sort_values(order, ascending=[False, False, True, True], ignore_index=True)

    @cached_property
    def per_species(self) -> pd.DataFrame:
        """As `per_species`."""
        return per_species(self.targets, self.probabilities, self.answers, self.classes)

    @cached_property
    def calibration_bins(self) -> pd.DataFrame:
        """As `calibration_bins`, of the calibrated probabilities."""
        return calibration_bins(self.targets, self.probabilities)

    @property
    def answer_texts(self) -> np.ndarray:
        """The answers as `targets.encode` writes them, object (N,)."""
        return encode(self.answers, np.ones_like(self.answers))

    @property
    def target_texts(self) -> np.ndarray:
        """The targets as tables have them, object (N,)."""
        return encode(self.targets == 1, ~np.isnan(self.targets))

    @property
    def named(self) -> list[str]:
        """The answers as names."""
        return joined_names(self.answers, self.classes)


def evaluate_labels(
    targets: np.ndarray,
    logits: np.ndarray,
    classes: list[str],
    temperature: float | np.ndarray = 1.0,
    thresholds: np.ndarray | None = None,
    tapes: pd.Series | None = None,
) -> LabelsEvaluation:
    """Score logits (N, C) against targets; writes and draws nothing.

    Args:
        temperature: what logits are divided by, found on validation; one, or one a recording (N,).
        thresholds: (C,) or (N, C), found on validation; default: those of the highest F1 here (`best_thresholds`).
        tapes: the tape of each recording, for 95 % intervals of accuracy, macro F1 and macro average precision.

    Returns:
        its scores: accuracy (the mean share of a recording's known labels that is answered right),
        macro_{precision,recall,f1}, `micro_f1`, `macro_ap` and `micro_ap` (average precision), `nll` (mean binary
        cross-entropy over known labels, nats), `ece`, `ece_uncalibrated`; with tapes `<score>_{low,high}`. Those of
        species are left out where none is known to be anywhere.

    Raises:
        UserError: no recordings, or logits that are not finite.
    """
    if not len(targets):
        raise UserError("There are no cuts to score in this split.")
    if not np.isfinite(logits).all():
        raise UserError("The model's logits are not finite: its training diverged.")
    divisor = temperature[:, None] if isinstance(temperature, np.ndarray) else temperature
    probabilities, uncalibrated = expit(logits.astype(float) / divisor), expit(logits.astype(float))
    if thresholds is None:
        thresholds = best_thresholds(targets, probabilities)
    scores = score_labels(targets, probabilities, probabilities >= thresholds, classes)
    scores = {name: value for name, value in scores.items() if value == value}
    scores["ece_uncalibrated"] = expected_calibration_error(calibration_bins(targets, uncalibrated))
    made = LabelsEvaluation(targets, logits, classes, temperature, thresholds, probabilities, uncalibrated, scores)
    if tapes is not None:
        table = pd.DataFrame({"tape": tapes.to_numpy(), "targets": made.target_texts, "answers": made.answer_texts})
        found = score_intervals(table)
        drawn = drawn_average_precision(targets, probabilities, tapes)
        found[MACRO_AP] = percentiles(scores.get(MACRO_AP, np.nan), drawn)
        found = {name: interval for name, interval in found.items() if name in scores}
        bounds = {f"{name}_{end}": getattr(found[name], end) for name in found for end in ("low", "high")}
        scores |= {name: value for name, value in bounds.items() if value == value}
    return made


def score_labels(
    targets: np.ndarray, probabilities: np.ndarray, answers: np.ndarray, classes: list[str]
) -> dict[str, float]:
    """The scores of `evaluate_labels` without intervals."""
    known = ~np.isnan(targets)
    table = per_species(targets, probabilities, answers, classes)
    present = table[table["support"] > 0]
    right = (answers == (targets == 1)) & known
    hits, wanted, answered = ((each & known).sum() for each in (answers & (targets == 1), targets == 1, answers))
    of_truth = np.where(targets == 1, probabilities, 1 - probabilities)[known]
    with_label = known.any(axis=1)
    means = {f"macro_{name}": _mean(present[name]) for name in ("precision", "recall", "f1")}
    return {
        ACCURACY: float((right.sum(axis=1)[with_label] / known.sum(axis=1)[with_label]).mean()),
        **means,
        "micro_f1": float(2 * hits / max(wanted + answered, 1)),
        MACRO_AP: _mean(present["average_precision"]),
        "micro_ap": average_precision(targets[known] == 1, probabilities[known]),
        "nll": float(-np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean()),
        "ece": expected_calibration_error(calibration_bins(targets, probabilities)),
    }


def _mean(scores: pd.Series) -> float:
    return float(scores.mean()) if len(scores) else float("nan")


def score_labels_epoch(targets: np.ndarray, logits: np.ndarray, classes: list[str]) -> dict[str, float]:
    """The validation scores of an epoch, at the thresholds that are best on the same recordings."""
    evaluation = evaluate_labels(targets, logits, classes)
    names = (ACCURACY, MACRO_F1, "macro_precision", "macro_recall", MACRO_AP)
    return {name: evaluation.scores.get(name, 0.0) for name in names} | {  # without any species, the loss decides
        CALIBRATED_LOSS: _loss(targets, logits / fit_labels_temperature(targets, logits))
    }


def per_species(
    targets: np.ndarray, probabilities: np.ndarray, answers: np.ndarray, classes: list[str]
) -> pd.DataFrame:
    """A row a species: precision, recall, f1, average_precision, support (recordings known to hold it), known.

    The scores of a species that none is known to hold are NaN; precision without an answer counts as 0.
    """
    rows = []
    for label, name in enumerate(classes):
        known = ~np.isnan(targets[:, label])
        true, answered = targets[known, label] == 1, answers[known, label]
        hits, support = int((true & answered).sum()), int(true.sum())
        precision, recall = hits / max(int(answered.sum()), 1), hits / max(support, 1)
        f1 = 2 * hits / max(support + int(answered.sum()), 1)
        scores = (precision, recall, f1, average_precision(true, probabilities[known, label]))
        rows.append((name, *(scores if support else [np.nan] * 4), support, int(known.sum())))
    columns = ["species", "precision", "recall", "f1", "average_precision", "support", "known"]
    return pd.DataFrame(rows, columns=columns)


def best_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """The probability of each species from which on its F1 is highest, float64 (C,); of equals the highest.

    It lies in the middle between two probabilities, and not beyond OUTERMOST; MIDDLE for a species that no recording is
    known to hold.
    """
    thresholds = np.full(targets.shape[1], MIDDLE)
    for label in range(targets.shape[1]):
        known = ~np.isnan(targets[:, label])
        true, values = targets[known, label] == 1, probabilities[known, label]
        if not true.any():
            continue
        levels, inverse = np.unique(-values, return_inverse=True)  # the highest first
        answered = np.bincount(inverse).cumsum()
        hits = np.bincount(inverse, weights=true).cumsum()
        best = int((2 * hits / (answered + true.sum())).argmax())
        below = -levels[best + 1] if best + 1 < len(levels) else 0.0
        thresholds[label] = (-levels[best] + below) / 2
    return thresholds.clip(*OUTERMOST)


def fit_labels_temperature(targets: np.ndarray, logits: np.ndarray) -> float:
    """The temperature T for which sigmoid(logits / T) fits what is known best; see `calibration.fit_temperature`."""

    def objective(log_temperature: float) -> float:
        known = (~np.isnan(targets)).sum()
        return _loss(targets, logits * np.exp(-log_temperature)) * known + log_temperature**2 / 2

    found = minimize_scalar(objective, bounds=tuple(np.log(BOUNDS)), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(found.x))


def _loss(targets: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross-entropy over known labels, in nats."""
    known = ~np.isnan(targets)
    values = np.where(targets == 1, -logits, logits)[known].astype(float)
    return float(np.logaddexp(0, values).mean())


def calibration_bins(targets: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """As `metrics.calibration_bins` over all known labels: how often a species is there at which probability."""
    known = ~np.isnan(targets)
    values, true = probabilities[known], targets[known] == 1
    edges = np.linspace(0, 1, bins + 1)
    index = np.digitize(values, edges[1:-1], right=True)
    means = pd.DataFrame({"confidence": values, "accuracy": true}).groupby(index).mean()
    counts = np.bincount(index, minlength=bins)
    return pd.DataFrame({"lower": edges[:-1], "upper": edges[1:], "count": counts}).join(means)
