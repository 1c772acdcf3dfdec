"""`watkins predict` over time: recordings in, detections out, in the formats in which people go on working."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from watkins_ml.files import disk_errors, printable
from watkins_ml.inference.annotations import write_annotations
from watkins_ml.inference.detections import COLUMNS, Wanted, detections, why_unknown
from watkins_ml.inference.judge import Listening
from watkins_ml.inference.kept import Kept
from watkins_ml.inference.predict import judge_recordings
from watkins_ml.models.bundle import Classifier


@dataclass(frozen=True)
class Annotated:
    """What was found in some recordings."""

    found: pd.DataFrame
    """path, channel, start_s, end_s, species, probability."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why (the rest of) a file could not be read, by path."""
    notes: dict[str, str] = field(default_factory=dict)
    """What the user has to know of a file, though it could be read, by path."""
    unknown: dict[str, str] = field(default_factory=dict)
    """Why nothing was detected in a recording, by path."""
    heard: int = 0
    """How many recordings could be read, or a part of them."""
    written: list[Path] = field(default_factory=list)


def annotate(
    classifier: Classifier,
    files: list[Path],
    wanted: Wanted,
    listening: Listening,
    merge: bool = True,
    kept: Kept | None = None,
    formats: tuple[str, ...] = (),
) -> Annotated:
    """Judge recordings and, with a folder in which answers are `kept`, write their detections there in `formats`.

    Only detections of recordings that are done stay in memory, not what was said of their windows.

    Raises:
        UserError: the disk does not take the files.
    """
    tables, result, heard = [], Annotated(pd.DataFrame(columns=COLUMNS)), 0
    for recording in judge_recordings(classifier, files, listening, kept):
        tables.append(detections(recording, classifier.classes, wanted, merge))
        if recording.note:
            result.notes[printable(recording.path)] = recording.note
        if recording.problem:
            result.problems[printable(recording.path)] = recording.problem
        if tables[-1].empty and len(recording.places):
            result.unknown[printable(recording.path)] = why_unknown(recording, classifier.classes, wanted)
        heard += len(recording.places) > 0
    order = {printable(path): place for place, path in enumerate(files)}  # kept answers came first
    found = pd.concat(tables, ignore_index=True)
    found = found.sort_values("path", key=lambda paths: paths.map(order), kind="stable", ignore_index=True)
    if kept is not None:
        names = {printable(path): kept.name(path) for path in files}
        band = classifier.frontend.settings.sample_rate / 2
        with disk_errors(f"cannot write to {kept.folder}", "make room or choose another --out"):
            for each in formats:
                result.written.extend(write_annotations(kept.folder, each, found, names, band))
    return replace(result, found=found, heard=heard)
