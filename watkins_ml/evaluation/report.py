"""The full report of one model on one split, written into its run directory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from watkins_ml.core.files import read_csv, write_csv, write_json
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.evaluation import metrics, plots, selective
from watkins_ml.evaluation.controls import control_table
from watkins_ml.evaluation.cuts import keep_cuts
from watkins_ml.evaluation.intervals import score_intervals

DIGITS = "%.6g"
"""How numbers are written in tables for people."""
GALLERY_SIZE = plots.GALLERY_SIDE**2


def write_report(
    run_dir: Path,
    split: str,
    frame: pd.DataFrame,
    probabilities: np.ndarray,
    classes: list[str],
    spectrograms: Sequence[Any],
    seed: int = 0,
    seconds: float = 4.0,
    uncalibrated: np.ndarray | None = None,
    threshold: float | None = None,
    data: PreparedData | None = None,
) -> dict[str, float]:
    """Write tables, plots and galleries of `split` into `run_dir`; return `metrics.score`.

    With `uncalibrated`, the probabilities (N, C) before temperature scaling, the scores have `ece_uncalibrated` too;
    with a `threshold` of confidence that was found elsewhere, what `selective.at_threshold` says of it.

    `frame` has a row per cut (path, cut_id, species, tape, label: class index), `probabilities` (N, C) and
    `spectrograms` (N of (1, mels, frames), `seconds` long) are in the same order. Only the spectrograms shown
    are read: the 25 least confident, and 25 at random by `seed`. With the `data` that the split is of, picture and
    sound of each of these and of examples of the most confused pairs are kept for the page, and a table of species.
    """
    labels = frame.label.to_numpy()
    scores = metrics.score(labels, probabilities, classes)
    if uncalibrated is not None:
        bins = metrics.calibration_bins(labels, uncalibrated)
        scores["ece_uncalibrated"] = metrics.expected_calibration_error(bins)
    if threshold is not None:
        scores |= selective.at_threshold(labels, probabilities, threshold)
    predictions = prediction_table(frame, probabilities, classes)
    _write_tables(run_dir, split, frame, predictions, probabilities, classes)

    predicted = probabilities.argmax(axis=1)
    pictures = run_dir / "plots"
    plots.save(plots.confusion_matrix(labels, predicted, classes), pictures / f"{split}_confusion_matrix.png")
    plots.save(plots.stripplot(predictions), pictures / f"{split}_stripplot.png")
    figure = plots.reliability(labels, probabilities, uncalibrated)
    plots.save(figure, pictures / f"{split}_reliability.png")
    figure = plots.risk_coverage(selective.risk_coverage(labels, probabilities), threshold)
    plots.save(figure, pictures / f"{split}_risk_coverage.png")

    galleries = gallery_rows(predictions.confidence.to_numpy(), seed)
    for name, rows in galleries.items():
        shown = predictions.iloc[rows]
        figure = plots.gallery(
            [np.asarray(spectrograms[int(row)]) for row in rows],
            shown.species.tolist(),
            shown.predicted.tolist(),
            shown.confidence.tolist(),
            title=f"{len(rows)} {name.replace('_', ' ')} of {plural(len(frame), f'{split} cut')}",
            seconds=seconds,
        )
        plots.save(figure, run_dir / "galleries" / f"{split}_{name}.png")
    if data is not None:
        pairs = metrics.confusion_pairs(labels, predicted, classes)
        keep_cuts(run_dir, split, predictions, galleries, pairs, spectrograms, data)
        write_csv(run_dir / "reports" / "species.csv", data.species())
    return scores


def write_controls(run_dir: Path, split: str, scores: dict[str, float]) -> dict[str, float]:
    """Write what metadata alone scores, as `controls.controls` gives it, as `reports/<split>_controls.csv`."""
    write_csv(run_dir / "reports" / f"{split}_controls.csv", control_table(scores), DIGITS)
    return scores


def interval_scores(run_dir: Path, split: str) -> dict[str, float]:
    """Bounds of the 95 % intervals over tapes of a written report: `{accuracy,macro_f1}_{low,high}`, if it has two."""
    names = ["path", "tape", "species", "predicted"]
    predictions = read_csv(run_dir / "preds" / f"{split}.csv", usecols=names, dtype=str, keep_default_na=False)
    found = score_intervals(predictions)
    bounds = {f"{name}_{end}": getattr(found[name], end) for name in found for end in ("low", "high")}
    return {key: value for key, value in bounds.items() if value == value}


def write_learning_curves(run_dir: Path, history: pd.DataFrame, best_epoch: int) -> None:
    """Write `plots/learning_curves.png`, its star at `best_epoch`."""
    figure = plots.learning_curves({run_dir.name: history}, {run_dir.name: best_epoch})
    plots.save(figure, run_dir / "plots" / "learning_curves.png")


def prediction_table(frame: pd.DataFrame, probabilities: np.ndarray, classes: list[str]) -> pd.DataFrame:
    """A row per cut: path, cut_id, tape, species, predicted, confidence (0..1), correct."""
    predicted = np.asarray(classes, dtype=object)[probabilities.argmax(axis=1)]
    table = frame[["path", "cut_id", "tape", "species"]].reset_index(drop=True)
    return table.assign(
        predicted=predicted,
        confidence=probabilities.max(axis=1),
        correct=predicted == table.species.to_numpy(),
    )


def gallery_rows(confidence: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Positions of the cuts to show: the least confident first, and a random draw in split order."""
    size = min(GALLERY_SIZE, len(confidence))
    return {
        "least_confident": np.argsort(confidence, kind="stable")[:size],
        "random": np.sort(np.random.default_rng(seed).choice(len(confidence), size, replace=False)),
    }


def _write_tables(
    run_dir: Path,
    split: str,
    frame: pd.DataFrame,
    predictions: pd.DataFrame,
    probabilities: np.ndarray,
    classes: list[str],
) -> None:
    labels, predicted = frame.label.to_numpy(), probabilities.argmax(axis=1)
    reports = run_dir / "reports"
    write_csv(reports / f"{split}_classification_report.csv", metrics.per_species(labels, predicted, classes), DIGITS)
    pairs = metrics.confusion_pairs(labels, predicted, classes)
    write_csv(reports / f"{split}_confusion_pairs.csv", pairs, DIGITS)
    report = metrics.report_json(labels, predicted, classes)
    write_json(reports / f"{split}_classification_report.json", report)

    columns = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in classes])
    write_csv(run_dir / "preds" / f"{split}.csv", pd.concat([predictions, columns], axis=1), DIGITS)

    second = np.argsort(probabilities, axis=1)[:, -2]
    mistakes = predictions.assign(
        second_choice=np.asarray(classes, dtype=object)[second],
        second_confidence=probabilities[np.arange(len(second)), second],
    )
    mistakes = mistakes[~mistakes.correct].sort_values("confidence", ascending=False, kind="stable")
    write_csv(run_dir / "misclassified" / f"{split}.csv", mistakes, DIGITS)
