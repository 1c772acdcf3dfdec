"""The report of an evaluation, written into a run directory: tables, logits, plots, galleries."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from watkins_ml.audio.defaults import SECONDS
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import read_csv, write_bytes, write_csv, write_json
from watkins_ml.core.metric_names import CONTROL
from watkins_ml.core.names import normal
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.evaluation import calibration_plots, metrics, plots
from watkins_ml.evaluation.controls import control_scores, control_table
from watkins_ml.evaluation.cuts import save_cuts
from watkins_ml.evaluation.labels import LabelsEvaluation
from watkins_ml.evaluation.labels_controls import labels_control_scores
from watkins_ml.evaluation.labels_report import write_labels_plots, write_labels_tables
from watkins_ml.evaluation.result import Evaluation
from watkins_ml.training.monitor import kept

DIGITS = "%.6g"
"""How numbers are written in tables for people."""
GALLERY_SIZE = plots.GALLERY_SIDE**2


def write_report(
    run_dir: Path,
    side: str,
    frame: pd.DataFrame,
    evaluation: Evaluation | LabelsEvaluation,
    spectrograms: Sequence[Any] | torch.Tensor,
    data: PreparedData | None = None,
    seed: int = 0,
    seconds: float | None = None,
    novelty: np.ndarray | None = None,
) -> None:
    """Write tables, logits, plots and galleries of one side into `run_dir`.

    `frame` has a row per cut (path, cut_id, species, tape, label: class index), `evaluation` and
    `spectrograms` (N of (1, mels, frames), `seconds` long; default: as `data` says) are in the same order. Only those
    shown are read: the 25 least confident, and 25 at random by `seed`. With the `data` that the side is of, picture and
    sound of each of these and of examples of the most confused pairs are kept for the page, and a table of species.
    `novelty` (N,) stands in the table of predictions.
    """
    predictions = prediction_table(frame, evaluation, novelty)
    if isinstance(evaluation, LabelsEvaluation):
        write_labels_tables(run_dir, side, predictions, evaluation)
        write_labels_plots(run_dir / "plots", side, evaluation)
    else:
        _write_tables(run_dir, side, predictions, evaluation)
        _write_plots(run_dir / "plots", side, predictions, evaluation)
    write_logits(run_dir, side, evaluation.logits)
    galleries = gallery_rows(evaluation.certainty, seed)
    for name, rows in galleries.items():
        shown = predictions.iloc[rows]
        figure = plots.gallery(
            [np.asarray(spectrograms[int(row)]) for row in rows],
            shown.species.tolist(),
            shown.predicted.tolist(),
            shown.confidence.tolist(),
            title=f"{len(rows)} {name.replace('_', ' ')} of {plural(len(frame), f'{side} cut')}",
            seconds=seconds or (SECONDS if data is None else data.frontend.span_s),
        )
        plots.save(figure, run_dir / "galleries" / f"{side}_{name}.png")
    if data is not None:
        save_cuts(run_dir, side, predictions, galleries, evaluation.confusion_pairs, spectrograms, data)
        write_csv(run_dir / "reports" / "species.csv", data.species())


def write_controls(run_dir: Path, side: str, frame: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, float]:
    """Write what the controls score and predict as `reports/<side>_controls.csv` and `preds/<side>_controls.csv`.

    `predictions` are those of `controls.control_predictions` for the cuts of `frame` (path, tape, species); in the
    table of predictions each has the column `control_<name>`.

    Where cuts may hold any number of species (`targets` in `frame`), these are answers as of `labels_controls`.

    Returns:
        `controls.control_scores` of them.
    """
    if "targets" in frame:
        scores, names = labels_control_scores(frame, predictions), ["path", "tape", "species", "targets"]
    else:
        scores, names = control_scores(frame["species"], predictions), ["path", "tape", "species"]
    write_csv(run_dir / "reports" / f"{side}_controls.csv", control_table(scores), DIGITS)
    named = frame[names].join(predictions.add_prefix(CONTROL))
    write_csv(run_dir / "preds" / f"{side}_controls.csv", named)
    return scores


def write_kept(run_dir: Path, epoch: int, epochs: int, monitor: str, refit: bool) -> None:
    """Write `reports/kept.json`: which of how many epochs was kept, and by what (`train.monitor`, `train.refit`)."""
    facts = {"epoch": epoch, "epochs": epochs, "monitor": monitor, "kept": kept(epoch, epochs, monitor, refit)}
    write_json(run_dir / "reports" / "kept.json", facts)


def write_learning_curves(run_dir: Path, history: pd.DataFrame, best_epoch: int) -> None:
    """Write `plots/learning_curves.png`, its star at `best_epoch`."""
    figure = plots.learning_curves({run_dir.name: history}, {run_dir.name: best_epoch})
    plots.save(figure, run_dir / "plots" / "learning_curves.png")


def write_logits(run_dir: Path, side: str, logits: np.ndarray) -> None:
    """Write `preds/<side>_logits.npy`: a row per cut in the order of `preds/<side>.csv`, whose numbers are rounded."""
    content = io.BytesIO()
    np.save(content, logits, allow_pickle=False)
    write_bytes(run_dir / "preds" / f"{side}_logits.npy", content.getbuffer())


def read_logits(run_dir: Path, side: str, shape: tuple[int, int]) -> np.ndarray | None:
    """The logits that `write_logits` wrote, float32 (cuts, species); None in runs of versions that kept none.

    Raises:
        UserError: the file is damaged, or has another shape than its table of predictions.
    """
    path = run_dir / "preds" / f"{side}_logits.npy"
    if not path.exists():
        return None
    try:  # mapped, for the header of a damaged file may announce any size
        logits = np.load(path, mmap_mode="r", allow_pickle=False)
        if logits.shape != shape or logits.dtype != np.float32:
            raise ValueError
        return np.array(logits)
    except (OSError, ValueError, EOFError):
        raise UserError(f"{path}: damaged; take it from MLflow or another copy") from None


def stored_logits(run_dir: Path, side: str, paths: pd.Series, classes: list[str], temperature: float) -> np.ndarray:
    """A run's logits (recordings, species) of the recordings with these paths, in their order.

    Raises:
        UserError: the run's predictions are missing or damaged, or of other recordings or species.
    """
    file = run_dir / "preds" / f"{side}.csv"
    try:
        table = read_csv(file, dtype={"path": str}, keep_default_na=False)
        probabilities = table.rename(columns=normal)[[f"p_{name}" for name in classes]].to_numpy(dtype=float)
        rows = pd.Series(range(len(table)), index=table["path"]).loc[paths].to_numpy()
    except (OSError, ValueError, KeyError):
        raise UserError(
            f"{file}: missing, damaged or of other recordings; take it from MLflow or another copy"
        ) from None
    logits = read_logits(run_dir, side, (len(table), len(classes)))
    if logits is None:  # of an earlier version: from its calibrated probabilities, which are rounded to six digits
        logits = np.log(np.maximum(probabilities, np.finfo(float).tiny)) * temperature
    return logits[rows]


def prediction_table(
    frame: pd.DataFrame, evaluation: Evaluation | LabelsEvaluation, novelty: np.ndarray | None = None
) -> pd.DataFrame:
    """A row per cut: path, cut_id, tape, species, predicted, confidence (0..1), correct, temperature, novelty; and
    targets and answers (see `dataset.targets`) where it may hold any number of species."""
    table = frame[["path", "cut_id", "tape", "species"]].reset_index(drop=True)
    if isinstance(evaluation, LabelsEvaluation):
        table = table.assign(predicted=evaluation.named, confidence=evaluation.confidence, correct=evaluation.correct)
        table = table.assign(targets=evaluation.target_texts, answers=evaluation.answer_texts)
    else:
        predicted = np.asarray(evaluation.classes, dtype=object)[evaluation.predicted]
        correct = predicted == table.species.to_numpy()
        table = table.assign(predicted=predicted, confidence=evaluation.confidence, correct=correct)
    table = table.assign(temperature=evaluation.temperature)
    return table if novelty is None else table.assign(novelty=novelty)


def gallery_rows(confidence: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Positions of the cuts to show: the least confident first, and a random draw in the order of the side."""
    size = min(GALLERY_SIZE, len(confidence))
    return {
        "least_confident": np.argsort(confidence, kind="stable")[:size],
        "random": np.sort(np.random.default_rng(seed).choice(len(confidence), size, replace=False)),
    }


def _write_tables(run_dir: Path, side: str, predictions: pd.DataFrame, evaluation: Evaluation) -> None:
    reports, probabilities = run_dir / "reports", evaluation.probabilities
    write_csv(reports / f"{side}_classification_report.csv", evaluation.per_species, DIGITS)
    write_csv(reports / f"{side}_confusion_pairs.csv", evaluation.confusion_pairs, DIGITS)
    report = metrics.report_json(evaluation.labels, evaluation.predicted, evaluation.classes)
    write_json(reports / f"{side}_classification_report.json", report)

    columns = pd.DataFrame(probabilities, columns=[f"p_{name}" for name in evaluation.classes])
    write_csv(run_dir / "preds" / f"{side}.csv", pd.concat([predictions, columns], axis=1), DIGITS)

    second = np.argsort(probabilities, axis=1)[:, -2]
    mistakes = predictions.assign(
        second_choice=np.asarray(evaluation.classes, dtype=object)[second],
        second_confidence=probabilities[np.arange(len(second)), second],
    )
    mistakes = mistakes[~mistakes.correct].sort_values("confidence", ascending=False, kind="stable")
    write_csv(run_dir / "misclassified" / f"{side}.csv", mistakes, DIGITS)


def _write_plots(folder: Path, side: str, predictions: pd.DataFrame, evaluation: Evaluation) -> None:
    labels, threshold = evaluation.labels, evaluation.threshold
    drawn = {
        "confusion_matrix": plots.confusion_matrix(labels, evaluation.predicted, evaluation.classes),
        "stripplot": plots.stripplot(predictions),
        "reliability": calibration_plots.reliability(labels, evaluation.probabilities, evaluation.uncalibrated),
        "risk_coverage": calibration_plots.risk_coverage(
            evaluation.risk_coverage, None if isinstance(threshold, np.ndarray) else threshold
        ),
    }
    for name, figure in drawn.items():
        plots.save(figure, folder / f"{side}_{name}.png")
