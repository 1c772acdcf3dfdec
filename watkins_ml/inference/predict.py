"""The most probable species of each audio file."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from watkins_ml.audio.decode import AUDIO_SUFFIXES, AudioError
from watkins_ml.console import progress
from watkins_ml.errors import UserError
from watkins_ml.models.bundle import Classifier

BATCH = 32


def find_audio(paths: list[Path]) -> list[Path]:
    """Files as given, folders searched for audio.

    Raises:
        UserError: a path does not exist, or no audio is found at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(each for each in path.rglob("*") if each.suffix.lower() in AUDIO_SUFFIXES)
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file")
    if not found:
        raise UserError(f"{paths[0]}: no audio files there")
    return found


def predict_files(classifier: Classifier, files: list[Path], top: int = 1) -> pd.DataFrame:
    """Classify whole files, each by its central seconds.

    Returns:
        one row a file and rank: path, rank, species, probability, and `problem` for a file that
        cannot be read (the other columns are then empty).
    """
    rows: list[dict[str, object]] = []
    with progress(transient=True) as bar:
        task = bar.add_task("Predicting", total=len(files), note="")
        for start in range(0, len(files), BATCH):
            batch = files[start : start + BATCH]
            rows += _predict_batch(classifier, batch, top)
            bar.advance(task, len(batch))
    table = pd.DataFrame(rows, columns=["path", "rank", "species", "probability", "problem"])
    return table.astype({"rank": "Int64"})  # stays whole beside a file without ranks


def _predict_batch(classifier: Classifier, files: list[Path], top: int) -> list[dict[str, object]]:
    spectrograms, problems = {}, {}
    for path in files:
        try:
            spectrograms[path] = classifier.frontend.file(path)
        except AudioError as error:
            problems[path] = str(error)
    ranked: dict[Path, list[dict[str, object]]] = {path: [{"problem": text}] for path, text in problems.items()}
    if spectrograms:
        probabilities = classifier.probabilities(torch.stack(list(spectrograms.values())))
        for path, row in zip(spectrograms, probabilities, strict=True):
            best = row.argsort()[::-1][:top]
            ranked[path] = [
                {"rank": rank, "species": classifier.classes[label], "probability": float(row[label])}
                for rank, label in enumerate(best, start=1)
            ]
    return [{"path": str(path), **row} for path in files for row in ranked[path]]
