"""`watkins predict --by file`: one answer for each recording as a whole, however long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from watkins_ml.audio.decode import AudioError, Recording, SilenceError
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.core.console import progress
from watkins_ml.core.files import printable
from watkins_ml.inference.scores import WindowScores, score_with_progress
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.inference.worker_pool import WorkerPool
from watkins_ml.models.bundle import MAX_NOVELTY, UNKNOWN, Classifier, to_probabilities
from watkins_ml.models.scoring import window_outputs


@dataclass(frozen=True)
class _FilePrediction:
    """The prediction for a file as a whole."""

    probabilities: np.ndarray
    novelty: float
    known: bool
    """Whether one of the windows that it was made from is."""
    note: str | None = None
    """What the user has to know of the file."""
    final: bool = True
    """Whether its windows over time would agree on `known`."""


def predict_files(
    classifier: Classifier, files: list[Path], top: int = 1, max_novelty: float = MAX_NOVELTY
) -> pd.DataFrame:
    """Classify whole files, those longer than a window by several.

    A file is unknown exactly if each of its windows over time (`score_recordings`) is: silent, or newer than
    `max_novelty`. Otherwise it is classified by those of the windows of training and evaluation that are known; where
    none of these is, by the known ones of those over time.

    Returns:
        one row a file and rank: path, rank, species, probability, novelty (the mean over the windows that it is
        classified by; the least of an unknown one), `problem` for a file that cannot be read (the columns before are
        then empty), and `note`, what there is to know of one that can. An unknown one has one row without probability,
        its species "unknown".
    """
    predictions: list[_FilePrediction | AudioError] = []
    with progress(transient=True) as bar:
        task = bar.add_task("Predicting", total=len(files), note="")
        for prediction in _predict(classifier, files, max_novelty):
            predictions.append(prediction)
            bar.advance(task)
    open_ones = {n: each for n, each in enumerate(predictions) if isinstance(each, _FilePrediction) and not each.final}
    over_time = score_with_progress(classifier, [files[n] for n in open_ones], WindowOptions()) if open_ones else ()
    for (number, prediction), scores in zip(open_ones.items(), over_time, strict=True):
        predictions[number] = _finalized(prediction, scores, max_novelty)
    rows = [
        {"path": printable(path), **row, "note": getattr(prediction, "note", None)}
        for path, prediction in zip(files, predictions, strict=True)
        for row in _ranked(classifier.classes, prediction, top)
    ]
    table = pd.DataFrame(rows, columns=["path", "rank", "species", "probability", "novelty", "problem", "note"])
    return table.astype({"rank": "Int64", "probability": float, "novelty": float})  # whole beside a file without ranks


def _predict(classifier: Classifier, files: list[Path], max_novelty: float) -> Iterator[_FilePrediction | AudioError]:
    """The prediction for each file by the windows of training and evaluation, or why it cannot be read."""
    pool = WorkerPool(classifier.network)

    def predict(batch: list[Path]) -> list[_FilePrediction | AudioError]:
        read = [_read(classifier, path) for path in batch]
        recordings = [each for each in read if isinstance(each, Recording)]
        cuts = [classifier.frontend.windows(recording) for recording in recordings]
        with pool.device_lock:
            outputs = window_outputs(classifier.network, cuts, pool.batch_size)
        predicted = classifier.predict_outputs(outputs, max_novelty)
        known_windows = (classifier.window_novelty(outputs) <= max_novelty).split(outputs.counts)
        made = (
            _FilePrediction(
                probabilities, novelty, bool(known.any()), "; ".join(each.notes) or None, _final(each, known)
            )
            for each, probabilities, novelty, known in zip(recordings, *predicted, known_windows, strict=True)
        )
        return [next(made) if isinstance(each, Recording) else each for each in read]

    batches = (files[at : at + pool.batch_size] for at in range(0, len(files), pool.batch_size))
    for _, predictions in pool.map(predict, batches):
        yield from predictions


def _read(classifier: Classifier, path: Path) -> Recording | AudioError:
    try:
        return classifier.frontend.read(path, MOST_WINDOWS)
    except AudioError as error:
        return error


def _final(recording: Recording, known: torch.Tensor) -> bool:
    """Whether windows over time can only agree: there are no others, or a known one is among them.

    The first of them begins with the file, and the last ends with it.
    """
    ends = recording.starts[0] == 0, recording.starts[-1] + len(recording.waveform) == recording.frames
    return not recording.windows or (ends[0] and bool(known[0])) or (ends[1] and bool(known[-1]))


def _finalized(prediction: _FilePrediction, scores: WindowScores, max_novelty: float) -> _FilePrediction:
    """The prediction for a whole file once the scores of its windows over time are there."""
    known = scores.novelty <= max_novelty
    if not known.any():
        sounding = scores.novelty[~np.isnan(scores.novelty)]
        return replace(prediction, known=False, novelty=sounding.min() if len(sounding) else prediction.novelty)
    if prediction.known:
        return prediction
    logits = np.log(np.maximum(scores.probabilities[known].astype(float), np.finfo(float).tiny))
    probabilities = to_probabilities(torch.from_numpy(logits.mean(axis=0, keepdims=True)))[0]
    return _FilePrediction(probabilities, float(scores.novelty[known].mean()), known=True, note=prediction.note)


def _ranked(classes: list[str], prediction: _FilePrediction | AudioError, top: int) -> list[dict[str, object]]:
    if isinstance(prediction, SilenceError):
        return [{"rank": 1, "species": UNKNOWN}]
    if isinstance(prediction, AudioError):
        return [{"problem": str(prediction)}]
    if not prediction.known:
        return [{"rank": 1, "species": UNKNOWN, "novelty": prediction.novelty}]
    probabilities = prediction.probabilities
    return [
        {"rank": rank, "species": classes[k], "probability": probabilities[k], "novelty": prediction.novelty}
        for rank, k in enumerate(probabilities.argsort()[::-1][:top], start=1)
    ]
