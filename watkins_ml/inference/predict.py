"""Trained models on new recordings: the species of each file, or who calls from when to when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from watkins_ml.audio.decode import AudioError, Recording, SilenceError
from watkins_ml.audio.formats import OTHER_AUDIO, is_audio_name, reason_of_name
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.audio.stream import duration
from watkins_ml.core.console import progress
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import files_below, printable
from watkins_ml.inference.judge import Judged, Listening, judge
from watkins_ml.inference.kept import Kept
from watkins_ml.inference.workers import Workers
from watkins_ml.models.bundle import MAX_NOVELTY, UNKNOWN, Classifier, to_probabilities
from watkins_ml.models.scoring import window_outputs


@dataclass(frozen=True)
class _Whole:
    """What is said of a file as a whole."""

    probabilities: np.ndarray
    novelty: float
    known: bool
    """Whether one of the windows that it was judged by is."""
    settled: bool = True
    """Whether its windows over time would say the same of `known`."""


Said = tuple[_Whole | AudioError, str | None]
"""What is said of a file, or why nothing, and what there is to know of it."""


def find_audio(paths: list[Path]) -> list[Path]:
    """Files as given, folders searched for audio, each file once.

    Raises:
        UserError: a path does not exist, or a folder cannot be read or has no audio.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += _in_folder(path)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file")
    return list({path.resolve(): path for path in reversed(found)}.values())[::-1]


def _in_folder(folder: Path) -> list[Path]:
    files = sorted(files_below(folder))
    found = [path for path in files if is_audio_name(path)]
    if not found:
        other = next((path for path in files if path.suffix.lower() in OTHER_AUDIO), None)
        more = f" that can be read; {printable(other)}: {reason_of_name(other)}" if other else ""
        raise UserError(f"{printable(folder)}: no audio files there{more}")
    return found


def predict_files(
    classifier: Classifier, files: list[Path], top: int = 1, max_novelty: float = MAX_NOVELTY
) -> pd.DataFrame:
    """Classify whole files, those longer than a window by several.

    A file is unknown exactly if each of its windows over time (`judge`) is: silent, or newer than `max_novelty`.
    Otherwise it is judged by those of the windows that training and evaluation judge it by that are known; where none
    of these is, by the known ones of those over time.

    Returns:
        one row a file and rank: path, rank, species, probability, novelty (the mean over the windows that it is judged
        by; the least of an unknown one), `problem` for a file that cannot be read (the columns before are then empty),
        and `note`, what there is to know of one that can. An unknown one has one row without probability, its species
        "unknown".
    """
    answers: list[Said] = []
    with progress(transient=True) as bar:
        task = bar.add_task("Predicting", total=len(files), note="")
        for said in _answers(classifier, files, max_novelty):
            answers.append(said)
            bar.advance(task)
    open_to = [number for number, (said, _) in enumerate(answers) if isinstance(said, _Whole) and not said.settled]
    over_time = judge_recordings(classifier, [files[number] for number in open_to], Listening()) if open_to else ()
    for number, recording in zip(open_to, over_time, strict=True):
        said, note = answers[number]
        answers[number] = _settled(said, recording, max_novelty), note
    rows = [
        {"path": printable(path), **row, "note": note}
        for path, (said, note) in zip(files, answers, strict=True)
        for row in _ranked(classifier.classes, said, top)
    ]
    table = pd.DataFrame(rows, columns=["path", "rank", "species", "probability", "novelty", "problem", "note"])
    return table.astype({"rank": "Int64", "probability": float, "novelty": float})  # whole beside a file without ranks


def _answers(classifier: Classifier, files: list[Path], max_novelty: float) -> Iterator[Said]:
    """What is said of each file by the windows that training and evaluation judge it by."""
    workers = Workers(classifier.network)

    def judged(group: list[Path]) -> list[Said]:
        found: list[Recording | AudioError] = []
        for path in group:
            try:
                found.append(classifier.frontend.read(path, MOST_WINDOWS))
            except AudioError as error:
                found.append(error)
        recordings = [each for each in found if isinstance(each, Recording)]
        cuts = [classifier.frontend.windows(recording) for recording in recordings]
        with workers.turn:
            outputs = window_outputs(classifier.network, cuts, workers.batch)
        said = classifier.predict_outputs(outputs, max_novelty)
        of_windows = (classifier.window_novelty(outputs) <= max_novelty).split(outputs.counts)
        wholes = (
            _Whole(probabilities, novelty, bool(known.any()), _is_settled(recording, known))
            for recording, probabilities, novelty, known in zip(recordings, *said, of_windows, strict=True)
        )
        return [
            (next(wholes), "; ".join(each.notes) or None) if isinstance(each, Recording) else (each, None)
            for each in found
        ]

    groups = (files[at : at + workers.batch] for at in range(0, len(files), workers.batch))
    for _, said in workers.in_order(judged, groups):
        yield from said


def _is_settled(recording: Recording, known: torch.Tensor) -> bool:
    """Whether windows over time can only agree: there are no others, or a known one is among them.

    The first of them begins with the file, and the last ends with it.
    """
    ends = recording.starts[0] == 0, recording.starts[-1] + len(recording.waveform) == recording.frames
    return not recording.windows or (ends[0] and bool(known[0])) or (ends[1] and bool(known[-1]))


def _settled(said: _Whole, recording: Judged, max_novelty: float) -> _Whole:
    """What is said of a whole file once its windows over time are known."""
    known = recording.novelties <= max_novelty
    if not known.any():
        sounding = recording.novelties[~np.isnan(recording.novelties)]
        return replace(said, known=False, novelty=sounding.min() if len(sounding) else said.novelty)
    if said.known:
        return said
    logits = np.log(np.maximum(recording.probabilities[known].astype(float), np.finfo(float).tiny))
    probabilities = to_probabilities(torch.from_numpy(logits.mean(axis=0, keepdims=True)))[0]
    return _Whole(probabilities, float(recording.novelties[known].mean()), known=True)


def _ranked(classes: list[str], said: _Whole | AudioError, top: int) -> list[dict[str, object]]:
    if isinstance(said, SilenceError):
        return [{"rank": 1, "species": UNKNOWN}]
    if isinstance(said, AudioError):
        return [{"problem": str(said)}]
    if not said.known:
        return [{"rank": 1, "species": UNKNOWN, "novelty": said.novelty}]
    best = enumerate(said.probabilities.argsort()[::-1][:top], start=1)
    return [
        {"rank": rank, "species": classes[k], "probability": said.probabilities[k], "novelty": said.novelty}
        for rank, k in best
    ]


def judge_recordings(
    classifier: Classifier, files: list[Path], listening: Listening, kept: Kept | None = None
) -> Iterator[Judged]:
    """Judge every window of each file, showing how far it is and how many times faster than the recordings.

    What is `kept` of a file already is taken from there, at the end; what is new is kept once the file is done.
    """
    left = [path for path in files if kept is None or kept.read(path) is None]
    lengths = {path: duration(path) for path in left}
    heard, started = 0.0, time.perf_counter()
    with progress(transient=True) as bar:
        task = bar.add_task("Listening, s", total=round(sum(lengths.values())), note="")

        def show(path: Path | None, end_s: float) -> None:
            seconds = heard + end_s
            speed = seconds / (time.perf_counter() - started)
            bar.update(task, completed=round(seconds), note=f"{speed:.0f} times real time")

        for recording in judge(classifier, left, listening, show):
            if kept is not None:
                kept.write(recording)
            heard += lengths[recording.path]
            show(None, 0.0)
            yield recording
    for path in files:
        if path not in lengths:  # unless it has changed just now
            yield kept.read(path) or next(judge(classifier, [path], listening))
