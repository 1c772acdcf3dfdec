"""How predictions look in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from watkins_ml.cli.tables import table_of
from watkins_ml.core.console import err, out, styled
from watkins_ml.core.files import printable, shown_csv
from watkins_ml.core.wording import plural

if TYPE_CHECKING:
    from watkins_ml.inference.annotate import Annotated


def _print_notes(notes: dict[str, str]) -> None:
    for path, note in notes.items():
        err.print(f"{path}: {note}", style="yellow")


def print_predictions(predictions: pd.DataFrame, format: str) -> None:
    noted = predictions.dropna(subset="note")
    _print_notes(dict(zip(noted["path"], noted["note"], strict=True)))
    if format == "csv":
        out.write(shown_csv(predictions))
        return
    table = table_of("file", "species", "probability", "novelty")
    for row in predictions.itertuples():
        if isinstance(row.problem, str):
            table.add_row(row.path, styled(row.problem, "red"), "", "")
        else:
            path, novelty = (row.path, _novelty(row.novelty)) if row.rank == 1 else ("", "")
            if math.isnan(row.probability):
                table.add_row(path, styled(row.species, "yellow"), "", novelty)
            else:
                table.add_row(path, row.species, f"{row.probability:.1%}", novelty)
    out.print(table, soft_wrap=False)


def print_annotated(result: Annotated, files: list[Path], format: str) -> None:
    """Detections (or, with `files`, how many went into files), and each file without any with the reason."""
    _print_notes(result.notes)
    if format == "csv":
        out.write(shown_csv(result.found.round(6)))
        for path, problem in result.problems.items():
            err.print(f"{path}: {problem}", style="red")
        return
    if format == "table":
        _print_detections(result, files)
        return
    by_species = result.found.groupby("species").agg(
        detections=("species", "size"), files=("path", "nunique"), surest=("probability", "max")
    )
    table = table_of("species", "detections", "files", "surest")
    for row in by_species.sort_values("detections", ascending=False).itertuples():
        table.add_row(row.Index, f"{row.detections:,}", f"{row.files:,}", f"{row.surest:.1%}")
    out.print(table, soft_wrap=False)
    reasons = Counter(unknown.reason for unknown in result.unknown.values()).most_common()
    out.print(plural(len(files), "file") + "".join(f"; {count} unknown: {reason}" for reason, count in reasons))
    for path, problem in result.problems.items():
        out.print(f"{path}: {problem}", style="red")
    shown = result.written if len(result.written) <= 4 else [result.written[0], "…", result.written[-1]]
    earlier = f" (with {plural(result.others, 'recording')} of earlier commands)" if result.others else ""
    out.print("Written: " + ", ".join(map(str, shown)) + earlier)


def _print_detections(result: Annotated, files: list[Path]) -> None:
    table = table_of("file", "from", "to", "species", "probability", "novelty")
    by_file = dict(list(result.found.groupby("path", sort=False)))
    for path in map(printable, files):
        for number, row in enumerate(by_file.get(path, result.found[:0]).itertuples()):
            channel = f" channel {row.channel}" if row.channel else ""
            name = path if number == 0 else ""
            stretch = _clock(row.start_s), _clock(row.end_s)
            table.add_row(name, *stretch, row.species + channel, f"{row.probability:.1%}", f"{row.novelty:.2f}")
        if path in result.unknown:
            reason, novelty = result.unknown[path]
            table.add_row(path, "", "", styled(f"unknown: {reason}", "yellow"), "", _novelty(novelty))
        if path in result.problems:
            table.add_row(path, "", "", styled(result.problems[path], "red"), "", "")
    out.print(table, soft_wrap=False)


def _novelty(novelty: float) -> str:
    """Empty where there is no sound."""
    return "" if math.isnan(novelty) else f"{novelty:.2f}"


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds and a tenth."""
    tenths = round(10 * seconds)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
