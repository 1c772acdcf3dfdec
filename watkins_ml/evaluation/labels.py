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
from watkins_ml.evaluation.calibration import BOUNDS
from watkins_ml.evaluation.intervals import DRAWS, percentiles, score_intervals, tape_draws
from watkins_ml.evaluation.metrics import BINS, SMALLEST_PROBABILITY, expected_calibration_error

MIDDLE = 0.5
"""The threshold of a species that no validation recording is known to hold."""
OUTERMOST = 0.02, 0.98
"""No threshold beyond: where few recordings hold a species, the best one may lie anywhere."""
AT_ONCE = 64
"""Draws of tapes whose average precision is computed together."""


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
        cross-entropy over known labels, nats), `ece`, `ece_uncalibrated`; with tapes `<score>_{low,high}`.

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
    scores["ece_uncalibrated"] = expected_calibration_error(calibration_bins(targets, uncalibrated))
    made = LabelsEvaluation(targets, logits, classes, temperature, thresholds, probabilities, uncalibrated, scores)
    if tapes is not None:
        table = pd.DataFrame({"tape": tapes.to_numpy(), "targets": made.target_texts, "answers": made.answer_texts})
        found = score_intervals(table) | {MACRO_AP: percentiles(
            scores[MACRO_AP], drawn_average_precision(targets, probabilities, tapes))}  # fmt: skip
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
    means = {f"macro_{name}": float(present[name].mean()) for name in ("precision", "recall", "f1")}
    return {
        ACCURACY: float((right.sum(axis=1)[with_label] / known.sum(axis=1)[with_label]).mean()),
        **means,
        "micro_f1": float(2 * hits / max(wanted + answered, 1)),
        MACRO_AP: float(present["average_precision"].mean()),
        "micro_ap": _average_precision(targets[known] == 1, probabilities[known]),
        "nll": float(-np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean()),
        "ece": expected_calibration_error(calibration_bins(targets, probabilities)),
    }


def score_labels_epoch(targets: np.ndarray, logits: np.ndarray, classes: list[str]) -> dict[str, float]:
    """The validation scores of an epoch, at the thresholds that are best on the same recordings."""
    evaluation = evaluate_labels(targets, logits, classes)
    names = (ACCURACY, MACRO_F1, "macro_precision", "macro_recall", MACRO_AP)
    return {name: evaluation.scores[name] for name in names} | {
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
        scores = (precision, recall, f1, _average_precision(true, probabilities[known, label]))
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


def precision_recall(targets: np.ndarray, probabilities: np.ndarray) -> pd.DataFrame:
    """The curve of one species (N,): recall and precision at each threshold, the highest first."""
    known = ~np.isnan(targets)
    true, values = targets[known] == 1, probabilities[known]
    levels, inverse = np.unique(-values, return_inverse=True)
    answered, hits = np.bincount(inverse).cumsum(), np.bincount(inverse, weights=true).cumsum()
    return pd.DataFrame({"threshold": -levels, "recall": hits / max(true.sum(), 1), "precision": hits / answered})


def _average_precision(true: np.ndarray, values: np.ndarray) -> float:
    """Area under the precision-recall steps, as scikit-learn's `average_precision_score`; NaN without a positive."""
    if not true.any():
        return float("nan")
    return float(weighted_average_precision(true, values, np.ones((1, len(true))))[0])


def weighted_average_precision(true: np.ndarray, values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (draws,) of values (N,), each counted as often as weights (draws, N) say."""
    order = np.argsort(-values, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(order) - 1)  # equal values are answered together
    counted = weights[:, order]
    answered = counted.cumsum(axis=1)[:, ends]
    hits = (counted * true[order]).cumsum(axis=1)[:, ends]
    precision = np.divide(hits, answered, out=np.zeros_like(hits), where=answered > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    total = hits[:, -1]
    return np.divide((precision * gained).sum(axis=1), total, out=np.full(len(total), np.nan), where=total > 0)


def drawn_average_precision(
    targets: np.ndarray, probabilities: np.ndarray, tapes: pd.Series, draws: int = DRAWS // 4
) -> np.ndarray:
    """Macro average precision for draws of tapes (draws,); none where there are fewer than two tapes."""
    rows, times = tape_draws(tapes, draws)
    found = []
    for first in range(0, len(times), AT_ONCE):
        weights = times[first : first + AT_ONCE][:, rows]
        by_species = []
        for label in range(targets.shape[1]):
            known = ~np.isnan(targets[:, label])
            if (targets[known, label] == 1).any():
                given = targets[known, label] == 1, probabilities[known, label], weights[:, known]
                by_species.append(weighted_average_precision(*given))
        found.append(np.nanmean(by_species, axis=0))
    return np.concatenate(found) if found else np.empty(0)
