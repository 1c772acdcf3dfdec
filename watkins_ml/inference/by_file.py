"""`watkins predict --by file`: one answer for each recording as a whole, however long."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.audio.decode import AudioError, Recording, SilenceError
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.audio.stream import examined_whole
from watkins_ml.core.console import progress
from watkins_ml.core.files import printable
from watkins_ml.dataset.targets import LABELS
from watkins_ml.inference.scores import WindowScores, score_with_progress
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.inference.worker_pool import WorkerPool
from watkins_ml.models.bundle import MAX_NOVELTY, UNKNOWN, Classifier, to_probabilities
from watkins_ml.models.scoring import window_outputs

COLUMNS = ["path", "rank", "species", "probability", "novelty", "temperature", "problem", "note"]


@dataclass(frozen=True)
class _FilePrediction:
    """The prediction for a file as a whole."""

    probabilities: np.ndarray
    """Empty where there is nothing to hear."""
    novelty: float
    known: bool
    """Whether one of the windows that it was made from is."""
    note: str | None = None
    """What the user has to know of the file."""
    final: bool = True
    """Whether its windows over time can only agree."""


def predict_files(
    classifier: Classifier,
    files: list[Path],
    top: int = 1,
    max_novelty: float = MAX_NOVELTY,
    options: WindowOptions | None = None,
) -> pd.DataFrame:
    """Classify whole files, those longer than a window by several.

    Of a model that answers any number of species (task `labels`) a file has those that any of its known windows over
    time has, each by its highest probability there; the first `top` of those above their thresholds, and one row
    "background" where none is. Of others:

    A file is unknown exactly if each of its windows over time (`score_recordings` with `options`) is: silent, or newer
    than `max_novelty`. Otherwise it is classified by those of the windows of training and evaluation that are known;
    where none of these is, or where they name a species that no known window over time names, by the known ones over
    time (see `_over_time`). Without a limit the windows of evaluation have the last word.

    Returns:
        one row a file and rank: path, rank, species, probability, novelty (the mean over the windows that it is
        classified by; the least of an unknown one), the model's temperature, `problem` for a file that cannot be read
        (the columns between are then empty), and `note`, what there is to know of one that can. An unknown one has one
        row without probability, its species "unknown".
    """
    options = options or WindowOptions()
    if classifier.task == LABELS:
        answers = [_of_labels(scores, max_novelty) for scores in score_with_progress(classifier, files, options)]
        return _table(classifier, files, answers, top)
    predictions: list[_FilePrediction | AudioError] = []
    with progress(transient=True) as bar:
        task = bar.add_task("Predicting", total=len(files), note="")
        for prediction in _predict(classifier, files, max_novelty, options):
            predictions.append(prediction)
            bar.advance(task)
    open_ones = {n: each for n, each in enumerate(predictions) if isinstance(each, _FilePrediction) and not each.final}
    over_time = score_with_progress(classifier, [files[n] for n in open_ones], options) if open_ones else ()
    for (number, prediction), scores in zip(open_ones.items(), over_time, strict=True):
        predictions[number] = _finalized(prediction, scores, max_novelty)
    return _table(classifier, files, predictions, top)


def _table(
    classifier: Classifier, files: list[Path], predictions: list[_FilePrediction | AudioError], top: int
) -> pd.DataFrame:
    thresholds = classifier.label_thresholds if classifier.task == LABELS else None
    rows = [
        {"path": printable(path), "note": getattr(prediction, "note", None)}
        | row
        | ({} if isinstance(prediction, AudioError) else {"temperature": classifier.temperature})
        for path, prediction in zip(files, predictions, strict=True)
        for row in _ranked(classifier.classes, prediction, top, thresholds)
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    numbers = dict.fromkeys(("probability", "novelty", "temperature"), float)
    return table.astype({"rank": "Int64"} | numbers)  # whole beside a file without ranks


def _predict(
    classifier: Classifier, files: list[Path], max_novelty: float, options: WindowOptions
) -> Iterator[_FilePrediction | AudioError]:
    """The prediction for each file by the windows of training and evaluation, or why it cannot be read."""
    pool = WorkerPool(classifier.network)
    silent = _FilePrediction(np.empty(0), math.nan, known=False, final=False)  # there may be sound between its windows

    def predict(batch: list[Path]) -> list[_FilePrediction | AudioError]:
        read = [_read(classifier, path) for path in batch]
        recordings = [each for each in read if isinstance(each, Recording)]
        cuts = [classifier.frontend.windows(recording) for recording in recordings]
        with pool.device_lock:
            outputs = window_outputs(classifier.network, cuts, pool.batch_size)
        predicted = classifier.predict_outputs(outputs, max_novelty)
        named = outputs.logits.argmax(dim=1) if recordings else torch.empty(0)
        windows = classifier.window_novelty(outputs) <= max_novelty, named
        made = [
            _FilePrediction(
                probabilities,
                novelty,
                bool(known.any()),
                "; ".join(each.notes) or None,
                _is_final(each, known, species == probabilities.argmax(), classifier, options),
            )
            for each, probabilities, novelty, known, species in zip(
                recordings, *predicted, *(part.split(outputs.counts) for part in windows), strict=True
            )
        ]
        if max_novelty == math.inf:
            made = [replace(each, final=True) for each in made]
        answers = iter(made)
        return [
            next(answers) if isinstance(each, Recording) else silent if isinstance(each, SilenceError) else each
            for each in read
        ]

    batches = (files[at : at + pool.batch_size] for at in range(0, len(files), pool.batch_size))
    for _, predictions in pool.map(predict, batches):
        yield from predictions


def _read(classifier: Classifier, path: Path) -> Recording | AudioError:
    try:
        return classifier.frontend.read(path, MOST_WINDOWS)
    except AudioError as error:
        return error


def _is_final(
    recording: Recording, known: torch.Tensor, agreeing: torch.Tensor, classifier: Classifier, options: WindowOptions
) -> bool:
    """Whether windows over time can only agree: there are no others, or one that is known and agrees is among them.

    The first of them begins with the file, and the last ends with it. `known` and `agreeing` are of the recording's own
    windows: whether each is, and whether it names the species that all together name.
    """
    if recording.notes or (options.each_channel and recording.channels > 1):
        return False
    if not recording.windows:
        return examined_whole(recording.frames, recording.sample_rate, classifier.frontend.settings.seconds)
    ends = recording.starts[0] == 0, recording.starts[-1] + len(recording.waveform) == recording.frames
    counting = known & agreeing
    return (ends[0] and bool(counting[0])) or (ends[1] and bool(counting[-1]))


def _finalized(prediction: _FilePrediction, scores: WindowScores, max_novelty: float) -> _FilePrediction:
    """The prediction for a whole file once the scores of its windows over time are there."""
    known = scores.novelty <= max_novelty
    if not known.any():
        sounding = scores.novelty[~np.isnan(scores.novelty)]
        return replace(prediction, known=False, novelty=sounding.min() if len(sounding) else math.nan)
    named = scores.probabilities[known].argmax(axis=1)
    if prediction.known and prediction.probabilities.argmax() in named:
        return prediction
    return replace(_over_time(scores, known, named), note=prediction.note or scores.note or None)


def _over_time(scores: WindowScores, known: np.ndarray, named: np.ndarray) -> _FilePrediction:
    """The mean (of logits) over the known windows that name one species: of all named ones that of the highest mean."""
    logits = np.log(np.maximum(scores.probabilities[known].astype(float), np.finfo(float).tiny))
    species = max(np.unique(named), key=lambda label: logits[:, label].mean())
    chosen = named == species
    probabilities = to_probabilities(torch.from_numpy(logits[chosen].mean(axis=0, keepdims=True)))[0]
    return _FilePrediction(probabilities, float(scores.novelty[known][chosen].mean()), known=True)


def _of_labels(scores: WindowScores, max_novelty: float) -> _FilePrediction | AudioError:
    """The prediction for a file from its windows over time, of which each species has its most probable one."""
    if scores.problem is not None and not len(scores.spans):
        return AudioError(scores.problem)
    known = scores.novelty <= max_novelty
    sounding = scores.novelty[~np.isnan(scores.novelty)]
    if not known.any():
        novelty = float(sounding.min()) if len(sounding) else math.nan
        return _FilePrediction(np.empty(0), novelty, known=False, note=scores.note or None)
    probabilities = scores.probabilities[known].astype(float).max(axis=0)
    return _FilePrediction(probabilities, float(scores.novelty[known].mean()), known=True, note=scores.note or None)


def _ranked(
    classes: list[str], prediction: _FilePrediction | AudioError, top: int, thresholds: np.ndarray | None
) -> list[dict[str, object]]:
    if isinstance(prediction, AudioError):
        return [{"problem": str(prediction)}]
    if not prediction.known:
        return [{"rank": 1, "species": UNKNOWN, "novelty": prediction.novelty}]
    probabilities = prediction.probabilities
    ranked = [k for k in probabilities.argsort()[::-1] if thresholds is None or probabilities[k] >= thresholds[k]]
    if not ranked:
        return [{"rank": 1, "species": BACKGROUND, "novelty": prediction.novelty}]
    return [
        {"rank": rank, "species": classes[k], "probability": probabilities[k], "novelty": prediction.novelty}
        for rank, k in enumerate(ranked[:top], start=1)
    ]
