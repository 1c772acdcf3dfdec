"""Scores of a classifier on one split.

Labels are class indices; `classes[i]` is the species of index i. A tape-grouped split can leave a species
without a cut on one side, so every macro average here runs over the species that *have* a cut in the split:
an absent species cannot be tested, and counting it as zero would punish the split, not the model. A cut
wrongly given to an absent species still costs its true species recall. The class `background` (windows without a
call) is no species, so macro averages are without it; what is wrongly given to it costs recall all the same.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax
from sklearn.metrics import precision_recall_fscore_support

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import ACCURACY, CALIBRATED_LOSS, MACRO_F1
from watkins_ml.evaluation.calibration import calibrated_loss
from watkins_ml.evaluation.selective import area_under, coverage_at, risk_coverage

BINS = 15
# A float32 softmax can be exactly 0; one such cut must not make the mean loss infinite.
SMALLEST_PROBABILITY = float(np.finfo(np.float32).eps)


def score(labels: np.ndarray, probabilities: np.ndarray, classes: list[str]) -> dict[str, float]:
    """Score `probabilities` (N, C) against `labels` (N,).

    Returns accuracy, {macro,weighted}_{precision,recall,f1}, `nll` (mean negative log-likelihood, nats),
    `ece` (expected calibration error), `coverage_at_90` and `aurc` (see `selective`). Macro averages run over the
    species with at least one cut among `labels`; weighted averages weigh each species by its cuts. Precision
    without a prediction counts as 0.
    """
    if not len(labels):
        raise UserError("There are no cuts to score in this split.")
    if not np.isfinite(probabilities).all():
        raise UserError("The model's probabilities are not finite: its training diverged.")
    predicted = probabilities.argmax(axis=1)
    table = per_species(labels, predicted, classes)
    macro, weighted = _averages(table)
    curve = risk_coverage(labels, probabilities)
    of_truth = np.asarray(probabilities, dtype=float)[np.arange(len(labels)), labels]
    return {
        "accuracy": float((predicted == labels).mean()),
        **{f"macro_{name}": value for name, value in macro.items()},
        **{f"weighted_{name}": value for name, value in weighted.items()},
        "nll": float(-np.log(np.maximum(of_truth, SMALLEST_PROBABILITY)).mean()),
        "ece": expected_calibration_error(calibration_bins(labels, probabilities)),
        "coverage_at_90": coverage_at(curve),
        "aurc": area_under(curve),
    }


def score_epoch(labels: np.ndarray, logits: np.ndarray, classes: list[str]) -> dict[str, float]:
    """The validation scores of an epoch: `logits` (N, C) against `labels` (N,).

    Returns accuracy and macro_{f1,precision,recall} as `score`, and the `calibrated_loss`.
    """
    scores = score(labels, softmax(logits, axis=1), classes)
    chosen = {name: scores[name] for name in (ACCURACY, MACRO_F1, "macro_precision", "macro_recall")}
    return chosen | {CALIBRATED_LOSS: calibrated_loss(labels, logits)}


def per_species(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Precision, recall, f1, support (cuts) of each species; one without a cut has NaN and support 0."""
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=np.arange(len(classes)), average=None, zero_division=0
    )
    table = pd.DataFrame({"species": classes, "precision": precision, "recall": recall, "f1": f1, "support": support})
    table.loc[table.support == 0, ["precision", "recall", "f1"]] = np.nan
    return table


def report_json(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """The report as in scikit-learn's `classification_report(output_dict=True)`, with None for NaN."""
    table = per_species(labels, predicted, classes)
    report: dict[str, Any] = {
        row.species: {
            "precision": _or_none(row.precision),
            "recall": _or_none(row.recall),
            "f1-score": _or_none(row.f1),
            "support": int(row.support),
        }
        for row in table.itertuples()
    }
    report["accuracy"] = float((labels == predicted).mean())
    for name, average in zip(("macro avg", "weighted avg"), _averages(table), strict=True):
        report[name] = {
            "precision": average["precision"],
            "recall": average["recall"],
            "f1-score": average["f1"],
            "support": len(labels),
        }
    return report


def confusion_pairs(labels: np.ndarray, predicted: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """Each mistaken pair: true, predicted, count (cuts), share_of_true (0..1); the most frequent first."""
    names = np.asarray(classes, dtype=object)
    pairs = pd.DataFrame({"true": names[labels], "predicted": names[predicted]})
    cuts = pairs["true"].value_counts()
    wrong = pairs[pairs["true"] != pairs["predicted"]]
    counted = wrong.groupby(["true", "predicted"]).size().rename("count").reset_index()
    counted["share_of_true"] = counted["count"] / counted["true"].map(cuts).astype(float)
    return counted.sort_values(
        ["count", "share_of_true", "true", "predicted"],
        ascending=[False, False, True, True],
        ignore_index=True,
    )


def calibration_bins(labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Confidence (highest probability) in equal-width bins (lower, upper].

    Columns lower, upper, count, confidence (mean) and accuracy; an empty bin has NaN in the last two.
    """
    confidence = np.asarray(probabilities, dtype=float).max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    index = np.digitize(confidence, edges[1:-1], right=True)
    means = pd.DataFrame({"confidence": confidence, "accuracy": correct}).groupby(index).mean()
    return pd.DataFrame({"lower": edges[:-1], "upper": edges[1:], "count": np.bincount(index, minlength=bins)}).join(
        means
    )


def expected_calibration_error(bins: pd.DataFrame) -> float:
    """ECE of `calibration_bins`: mean |accuracy - confidence|, weighted by the cuts of each bin.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", equation 3.
    """
    gap = (bins.accuracy - bins.confidence).abs().fillna(0)
    return float((gap * bins["count"]).sum() / bins["count"].sum())


def _averages(table: pd.DataFrame) -> tuple[dict[str, float], dict[str, float]]:
    present = table[table.support > 0]
    columns = ["precision", "recall", "f1"]
    species = present[present["species"] != BACKGROUND]
    macro = {name: float((species if len(species) else present)[name].mean()) for name in columns}
    weighted = {name: float(np.average(present[name], weights=present.support)) for name in columns}
    return macro, weighted


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
