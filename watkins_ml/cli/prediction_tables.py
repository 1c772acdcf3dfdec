"""How predictions look in the terminal."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import pandas as pd

from watkins_ml.cli.tables import table_of
from watkins_ml.core.console import err, out, styled
from watkins_ml.core.files import printable, shown_csv
from watkins_ml.core.wording import plural

if TYPE_CHECKING:
    from watkins_ml.inference.pipeline import PipelineResult


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


def print_detections(result: PipelineResult, format: str) -> None:
    """Detections (or, with `files`, how many went into files), and each file without any with the reason."""
    _print_notes({printable(each.path): each.note for each in result.recordings if each.note})
    if format == "table":
        _print_table(result)
        return
    problems = {printable(each.path): each.problem for each in result.recordings if each.problem}
    if format == "csv":
        out.write(shown_csv(result.rows.round(6)))
    else:
        _print_summary(result)
    for path, problem in problems.items():
        (err if format == "csv" else out).print(f"{path}: {problem}", style="red")
    if format == "files":
        shown = result.written if len(result.written) <= 4 else [result.written[0], "…", result.written[-1]]
        earlier = f" (with {plural(result.earlier, 'recording')} of earlier commands)" if result.earlier else ""
        out.print("Written: " + ", ".join(map(str, shown)) + earlier)


def _print_summary(result: PipelineResult) -> None:
    by_species = result.rows.groupby("species").agg(
        detections=("species", "size"), files=("path", "nunique"), surest=("probability", "max")
    )
    table = table_of("species", "detections", "files", "surest")
    for row in by_species.sort_values("detections", ascending=False).itertuples():
        table.add_row(row.Index, f"{row.detections:,}", f"{row.files:,}", f"{row.surest:.1%}")
    out.print(table, soft_wrap=False)
    reasons = Counter(each.unknown.told for each in result.recordings if each.unknown).most_common()
    files = plural(len(result.recordings), "file")
    out.print(files + "".join(f"; {count} {reason}" for reason, count in reasons))


def _print_table(result: PipelineResult) -> None:
    table = table_of("file", "from", "to", "species", "probability", "novelty")
    for recording in result.recordings:
        path = printable(recording.path)
        for number, row in enumerate(recording.rows.itertuples()):
            channel = f" channel {row.channel}" if row.channel else ""
            stretch = path if number == 0 else "", _clock(row.start_s), _clock(row.end_s)
            table.add_row(*stretch, row.species + channel, f"{row.probability:.1%}", f"{row.novelty:.2f}")
        if recording.unknown:
            table.add_row(
                path, "", "", styled(recording.unknown.told, "yellow"), "", _novelty(recording.unknown.novelty)
            )
        if recording.problem:
            table.add_row(path, "", "", styled(recording.problem, "red"), "", "")
    out.print(table, soft_wrap=False)


def _novelty(novelty: float) -> str:
    """Empty where there is no sound."""
    return "" if math.isnan(novelty) else f"{novelty:.2f}"


def _clock(seconds: float) -> str:
    """Hours, minutes, seconds and a tenth."""
    tenths = round(10 * seconds)
    return f"{tenths // 36_000}:{tenths // 600 % 60:02d}:{tenths // 10 % 60:02d}.{tenths % 10}"
