"""`watkins evaluate`: the full report of any trained model on prepared data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from watkins_ml.audio.any_settings import differences
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.console import err
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import disk_errors, write_json
from watkins_ml.core.locks import only_writer, reading
from watkins_ml.core.metric_names import THRESHOLD_90
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import as_prepared, cut_windows, open_side
from watkins_ml.dataset.own_input import with_own_input
from watkins_ml.dataset.split import leak_stamp
from watkins_ml.dataset.targets import LABELS
from watkins_ml.inference.resolve import load_classifier
from watkins_ml.models.bundle import MAX_NOVELTY, Classifier
from watkins_ml.models.bundle_files import REFIT
from watkins_ml.models.scoring import window_outputs

if TYPE_CHECKING:
    from watkins_ml.evaluation.labels import LabelsEvaluation
    from watkins_ml.evaluation.result import Evaluation


def evaluate_model(model: str, data_dir: Path, side: str, out: Path) -> tuple[dict[str, float], str]:
    """Write reports, predictions, galleries and plots of `model` on one side of `data_dir` into `out`.

    Returns:
        the scores, with the controls on the test side, and the data's split protocol.

    Raises:
        UserError: the data were prepared for another frontend or other species than the model's, or are prepared
            anew meanwhile; another process writes to `out`.
    """
    from watkins_ml.evaluation.controls import control_predictions, learned_from
    from watkins_ml.evaluation.labels import evaluate_labels
    from watkins_ml.evaluation.labels_controls import labels_controls
    from watkins_ml.evaluation.report import write_controls, write_report
    from watkins_ml.evaluation.result import evaluate
    from watkins_ml.evaluation.spectrum import band_statistics

    data = read_prepared(data_dir)
    classifier = load_classifier(model)
    if not isinstance(settings := classifier.frontend.settings, FrontendSettings):
        data = with_own_input(data, settings, lambda: classifier.frontend)
    _check_fit(classifier, data, model, side)
    split, shown = open_side(data, side), as_prepared(data, side)
    with (
        disk_errors(f"cannot write the report to {out}", "choose another folder with --out"),
        only_writer(out, "watkins evaluate"),
        reading(data_dir, f"watkins evaluate ({out})"),
    ):
        outputs = window_outputs(classifier.network, cut_windows(data, split))
        logits = outputs.by_cut(outputs.logits).numpy()
        labels, is_test = split.labels.numpy(), side == "test"
        threshold, tapes = (classifier.facts.get(THRESHOLD_90), split.frame["tape"]) if is_test else (None, None)
        given = labels, logits, data.classes, classifier.temperature
        if data.task == LABELS:
            evaluation: Evaluation | LabelsEvaluation = evaluate_labels(*given, classifier.label_thresholds, tapes)
        else:
            evaluation = evaluate(*given, threshold, tapes)
        novelty = classifier.predict_outputs(outputs, MAX_NOVELTY).novelty
        write_report(out, side, split.frame, evaluation, shown.spectrograms, data, novelty=novelty)
        scores = dict(evaluation.scores)
        if is_test:
            refit = bool(classifier.facts.get(REFIT))
            learned = [as_prepared(data, name) for name in (("train", "val") if refit else ("train",))]
            if data.task == LABELS and not refit:
                learned.append(as_prepared(data, "val"))  # which gives the thresholds
            spectra = band_statistics([*learned, shown])
            if data.task == LABELS:
                predicted = labels_controls(data.sides, len(data.classes), refit, spectra)["test"]
            else:
                predicted = control_predictions(learned_from(data.sides, refit), split.frame, spectra)
            scores |= write_controls(out, side, split.frame, predicted)
        facts = {
            "model": model,
            "data_digest": data.digest,
            "split_protocol": data.protocol,
            "temperature": classifier.temperature,
            "trained_on": classifier.facts,
        }
        stamp = leak_stamp(data.protocol)
        write_json(out / "reports" / f"{side}_metrics.json", stamp | scores | {"evaluated": facts})
    return scores, data.protocol


def _check_fit(classifier: Classifier, data: PreparedData, model: str, side: str) -> None:
    """Refuse data that the model cannot be tested on; warn of those that it may have been trained on."""
    folder = data.folder.root
    if classifier.frontend.settings != data.input:
        differing = differences(data.input, classifier.frontend.settings)
        raise UserError(f"{folder}: prepared with another frontend than {model}: {differing}")
    if classifier.task != data.task:
        raise UserError(
            f"{folder}: prepared for the task {data.task}, but {model} was trained for {classifier.task}; prepare "
            f"with --task {classifier.task} into another --out"
        )
    if classifier.classes != data.classes:
        unknown = sorted(set(data.classes) - set(classifier.classes))
        lacking = sorted(set(classifier.classes) - set(data.classes))
        what = f"{unknown[0]} is unknown to the model" if unknown else f"{lacking[0]} is not in the data"
        raise UserError(f"{folder}: other species than {model} was trained on ({what})")
    if (digest := classifier.facts.get("data_digest")) == data.digest:
        if side == "val" and classifier.facts.get(REFIT):
            err.print(
                f"{model} was trained on these validation recordings too (train.refit): its scores flatter it",
                style="yellow",
            )
    else:
        err.print(
            f"{model} was trained on another split or other data (digest {digest}, here {data.digest}): unless these "
            "recordings are new to it, its scores here flatter it",
            style="yellow",
        )
