"""What a run says of its network: the reports of validation and test, and what is found on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from torch import nn

from watkins_ml.core.distributed import current
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_json
from watkins_ml.core.metric_names import BEST_EPOCH, BEST_VAL, MACRO_F1, TEMPERATURE, TEST, THRESHOLD_90
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.loading import Side, as_prepared, cut_windows, open_side
from watkins_ml.models.scoring import cut_logits
from watkins_ml.runs.controls import report_controls
from watkins_ml.runs.network_input import Inputs
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.monitor import best_epoch

if TYPE_CHECKING:
    from watkins_ml.evaluation.labels import LabelsEvaluation
    from watkins_ml.evaluation.result import Evaluation

THRESHOLDS = "reports/thresholds.json"
"""By species the probability from which on it is answered, where a recording may hold any number of them."""


def report_validation(
    network: nn.Module, inputs: Inputs, run: RunDirectory, monitor: str, refit: bool = False
) -> dict[str, float]:
    """Fit the temperature, write the validation report and the learning curves; the metrics, also in `metrics.json`.

    `monitor` is the run's `train.monitor`, by which `network` is that of the best epoch; `refit` says whether another
    one will be tested (`train.refit`).
    """
    from watkins_ml.evaluation.report import write_kept, write_learning_curves, write_report

    history, (data, _, val) = run.read_history(), inputs
    best = best_epoch(history, monitor)
    evaluation, found = validated(
        run.root, val.labels.numpy(), side_logits(network, data, val), data.classes, val.frame["tape"]
    )
    write_report(
        run.root, "val", val.frame, evaluation, as_prepared(data, "val").spectrograms, seconds=data.frontend.span_s
    )
    metrics: dict[str, float] = {BEST_EPOCH: best} | found
    metrics |= {BEST_VAL + name: value for name, value in ({MACRO_F1: 0.0} | evaluation.scores).items()}
    write_kept(run.root, best, len(history), monitor, refit)
    write_learning_curves(run.root, history, best)
    run.write_metrics(metrics)
    return metrics


def report_test(
    network: nn.Module,
    data: PreparedData,
    run: RunDirectory,
    known: dict[str, float],
    loaded: tuple[Side, Side] | None = None,
    refit: bool = False,
) -> dict[str, float]:
    """Read the test side, here for the only time: its report, and the controls beside it.

    `known` are the metrics of `report_validation`, with the temperature and the threshold that validation gave;
    `loaded` are training and validation side, if they have been read; `refit` says that it learned from both.

    Returns:
        the new metrics, which `metrics.json` has beside the `known` ones.
    """
    from watkins_ml.evaluation.report import write_report

    side = open_side(data, "test")
    logits = side_logits(network, data, side)
    evaluation = tested(run.root, side.labels.numpy(), logits, data.classes, known, side.frame["tape"])
    write_report(run.root, "test", side.frame, evaluation, as_prepared(data, "test").spectrograms, data)
    metrics = {TEST + name: value for name, value in evaluation.scores.items()}
    metrics |= report_controls(run.root, data, refit, loaded)
    run.write_metrics(known | metrics)
    return metrics


def validated(
    run_dir: Path, labels: np.ndarray, logits: np.ndarray, classes: list[str], tapes: pd.Series
) -> tuple[Evaluation | LabelsEvaluation, dict[str, float]]:
    """What a model scores on validation, with the temperature and the threshold that are found there.

    `labels` as of `loading.Side.labels`. The thresholds of species that may be in a recording together are written
    into the run directory instead (THRESHOLDS).
    """
    from watkins_ml.evaluation.labels import evaluate_labels, fit_labels_temperature

    if labels.ndim == 1:
        return validated_species(labels, logits, classes, tapes)
    temperature = fit_labels_temperature(labels, logits)
    evaluation = evaluate_labels(labels, logits, classes, temperature)
    write_json(run_dir / THRESHOLDS, dict(zip(classes, evaluation.thresholds.tolist(), strict=True)))
    return evaluation, {TEMPERATURE: temperature}


def validated_species(
    labels: np.ndarray, logits: np.ndarray, classes: list[str], tapes: pd.Series
) -> tuple[Evaluation, dict[str, float]]:
    """`validated` for class indices (N,)."""
    from watkins_ml.evaluation.calibration import fit_temperature
    from watkins_ml.evaluation.result import evaluate
    from watkins_ml.evaluation.selective import threshold_at

    evaluation = evaluate(labels, logits, classes, temperature := fit_temperature(labels, logits, tapes))
    found = {TEMPERATURE: temperature}
    if (threshold := threshold_at(evaluation.risk_coverage)) is not None:
        found[THRESHOLD_90] = threshold
    return evaluation, found


def tested(
    run_dir: Path, labels: np.ndarray, logits: np.ndarray, classes: list[str], known: dict[str, float], tapes: pd.Series
) -> Evaluation | LabelsEvaluation:
    """What a model scores on test, with what `validated` has found (`known`) and intervals over tapes."""
    from watkins_ml.evaluation.labels import evaluate_labels
    from watkins_ml.evaluation.result import evaluate

    # a study that an earlier version began knows neither
    temperature, threshold = known.get(TEMPERATURE, 1.0), known.get(THRESHOLD_90)
    if labels.ndim == 2:
        return evaluate_labels(labels, logits, classes, temperature, read_label_thresholds(run_dir, classes), tapes)
    return evaluate(labels, logits, classes, temperature, threshold, tapes)


def read_label_thresholds(run_dir: Path, classes: list[str]) -> np.ndarray:
    """The thresholds that `validated` wrote, float64 (species,).

    Raises:
        UserError: they are missing, or of other species.
    """
    path = run_dir / THRESHOLDS
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return np.array([float(found[name]) for name in classes])
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{path}: missing or damaged; take it from MLflow or another copy") from None


def side_logits(network: nn.Module, data: PreparedData, side: Side) -> np.ndarray:
    """Of each cut, (cuts, species); all processes of a training call this for the same sides in the same order."""
    return cut_logits(network, cut_windows(data, side), group=current()).numpy()
