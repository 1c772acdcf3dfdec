"""`watkins predict` over time: recordings in, detections out, in the formats in which people go on working."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pandas as pd

from watkins_ml.core.files import printable
from watkins_ml.inference.annotations import FORMATS, WHOLE, Found, file_of, place_of, write_single, write_whole
from watkins_ml.inference.detections import Unknown, Wanted, detections, no_detections, why_unknown
from watkins_ml.inference.judge import Listening
from watkins_ml.inference.kept import Kept
from watkins_ml.inference.predict import judge_recordings
from watkins_ml.models.bundle import Classifier


@dataclass(frozen=True)
class Annotated:
    """What was found in some recordings."""

    found: pd.DataFrame
    """As `detections` gives it, recordings in the order in which they were given."""
    problems: dict[str, str] = field(default_factory=dict)
    """Why (the rest of) a file could not be read, by path."""
    notes: dict[str, str] = field(default_factory=dict)
    """What the user has to know of a file, though it could be read, by path."""
    unknown: dict[str, Unknown] = field(default_factory=dict)
    """Why nothing was detected in a recording, by path."""
    heard: int = 0
    """How many recordings could be read, or a part of them."""
    written: list[Path] = field(default_factory=list)
    others: int = 0
    """How many recordings of earlier commands are in the folder, and so in its tables, too."""


def annotate(
    classifier: Classifier,
    files: list[Path],
    wanted: Wanted,
    listening: Listening,
    merge: bool = True,
    kept: Kept | None = None,
    formats: tuple[str, ...] = (),
) -> Annotated:
    """Judge recordings and, with a folder in which answers are `kept`, write its tables of detections in `formats`.

    These are of all recordings that the folder keeps. Only detections of recordings that are done stay in memory, not
    what was said of their windows.

    Raises:
        UserError: the disk does not take the files.
    """
    tables, rates, result = {}, {}, Annotated(no_detections())
    for recording in judge_recordings(classifier, files, listening, kept):
        path, name = recording.path, printable(recording.path)
        table = detections(recording, classifier.classes, wanted, merge)
        if recording.note:
            result.notes[name] = recording.note
        if recording.problem:
            result.problems[name] = recording.problem
        if len(recording.places):
            tables[path], rates[path] = table, recording.rate
            if table.empty:
                result.unknown[name] = why_unknown(recording, classifier.classes, wanted)
    found = [result.found, *(tables[path] for path in files if path in tables)]  # kept answers came first
    result = replace(result, found=pd.concat(found, ignore_index=True), heard=len(tables))
    if kept is None:
        return result
    mine = [Found(kept.name(path), path.absolute(), table, rates[path]) for path, table in tables.items()]
    band = classifier.frontend.settings.sample_rate / 2
    settings = asdict(wanted) | {"species": sorted(wanted.species), "merge": merge}
    with kept.tables_as(settings | {"max_novelty": str(wanted.max_novelty)}) as same:
        others = _others(kept, {each.name for each in mine}, classifier, wanted, merge)
        written = _write(kept.folder, formats, mine, others, band, same)
    return replace(result, written=written, others=len(others))


def _others(kept: Kept, names: set[str], classifier: Classifier, wanted: Wanted, merge: bool) -> list[Found]:
    """What is detected in the recordings that earlier commands judged."""
    return [
        Found(name, place, detections(judged, classifier.classes, wanted, merge), judged.rate)
        for name, place, judged in kept.others(names)
    ]


def _write(
    folder: Path, formats: tuple[str, ...], mine: list[Found], others: list[Found], band: float, same: bool
) -> list[Path]:
    """Write the tables of a folder's recordings, also in the formats of earlier commands, so that none is left behind.

    The files of the `others` stay as they are (somebody may have gone on with them) if they follow the `same`
    thresholds.
    """
    ordered = sorted([*mine, *others], key=lambda each: (each.place.parts, each.name))
    names, written = {each.name for each in mine}, []
    for each in FORMATS:
        if each not in formats and not place_of(folder, each).exists():
            continue
        if each in WHOLE:
            written.append(write_whole(folder, each, [no_detections(), *(found.rows for found in ordered)]))
            continue
        for found in ordered:
            if not same or found.name in names or not file_of(folder, each, found.name).exists():
                written.append(write_single(folder, each, found, band))
    return written
