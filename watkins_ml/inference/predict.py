"""Trained models on new recordings: the species of each file, or who calls from when to when."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from watkins_ml.audio.decode import AudioError, SilenceError
from watkins_ml.audio.formats import OTHER_AUDIO, is_audio_name, reason_of_name
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.audio.stream import duration
from watkins_ml.console import progress
from watkins_ml.errors import UserError
from watkins_ml.files import files_below, printable
from watkins_ml.inference.judge import Judged, Listening, judge
from watkins_ml.inference.kept import Kept
from watkins_ml.inference.workers import Workers
from watkins_ml.models.bundle import UNKNOWN, Classifier

Said = tuple[tuple | AudioError, str | None]
"""Probabilities and novelty of a file, or why it has none, and what there is to know of it."""


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


def predict_files(classifier: Classifier, files: list[Path], top: int = 1, max_novelty: float = 1.0) -> pd.DataFrame:
    """Classify whole files, those longer than a window by several.

    Returns:
        one row a file and rank: path, rank, species, probability, novelty, `problem` for a file that cannot be
        read (the columns before are then empty), and `note`, what there is to know of one that can. One above
        `max_novelty`, or silent, has one row without probability, its species "unknown".
    """
    rows = []
    with progress(transient=True) as bar:
        task = bar.add_task("Predicting", total=len(files), note="")
        for path, (said, note) in _answers(classifier, files):
            ranked = _ranked(classifier.classes, said, top, max_novelty)
            rows += [{"path": printable(path), **row, "note": note} for row in ranked]
            bar.advance(task)
    table = pd.DataFrame(rows, columns=["path", "rank", "species", "probability", "novelty", "problem", "note"])
    return table.astype({"rank": "Int64", "probability": float, "novelty": float})  # whole beside a file without ranks


def _answers(classifier: Classifier, files: list[Path]) -> Iterator[tuple[Path, Said]]:
    """What is said of each file."""
    workers = Workers(classifier.network)

    def judged(group: list[Path]) -> list[Said]:
        found: list[torch.Tensor | AudioError] = []
        notes: list[str | None] = []
        for path in group:
            notes.append(None)
            try:
                recording = classifier.frontend.read(path, MOST_WINDOWS)
                found.append(classifier.frontend.windows(recording))
                notes[-1] = "; ".join(recording.notes) or None
            except AudioError as error:
                found.append(error)
        with workers.turn:
            said = classifier.answers((each for each in found if torch.is_tensor(each)), workers.batch)
        each_said = zip(*said, strict=True)
        answers = [next(each_said) if torch.is_tensor(each) else each for each in found]
        return list(zip(answers, notes, strict=True))

    groups = (files[at : at + workers.batch] for at in range(0, len(files), workers.batch))
    for group, said in workers.in_order(judged, groups):
        yield from zip(group, said, strict=True)


def _ranked(classes: list[str], said: tuple | AudioError, top: int, max_novelty: float) -> list[dict[str, object]]:
    if isinstance(said, SilenceError):
        return [{"rank": 1, "species": UNKNOWN}]
    if isinstance(said, AudioError):
        return [{"problem": str(said)}]
    probabilities, novelty = said
    if novelty > max_novelty:
        return [{"rank": 1, "species": UNKNOWN, "novelty": novelty}]
    best = enumerate(probabilities.argsort()[::-1][:top], start=1)
    return [
        {"rank": rank, "species": classes[k], "probability": probabilities[k], "novelty": novelty} for rank, k in best
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
