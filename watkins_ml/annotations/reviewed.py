"""Which spans of recordings somebody has listened through: only there does no annotation mean no call."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.annotations.columns import KNOWN, find_columns
from watkins_ml.annotations.read import numbers
from watkins_ml.annotations.recordings import RecordingNames
from watkins_ml.core.csv_import import import_csv
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import printable

SPAN = ["recording", "start_s", "end_s", "channel"]
WORDS = ("all", "spans", "none")


def check_reviewed(reviewed: str) -> None:
    """Raise a UsageError unless it is one of WORDS or a file."""
    if reviewed not in WORDS and not Path(reviewed).exists():
        raise UsageError(f"--reviewed {reviewed}: neither all, spans or none, nor a table that is there")


def read_reviewed(
    reviewed: str, names: RecordingNames, durations: dict[str, float], described: set[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spans (SPAN; channel 0: all channels) that were listened through, and the rows of a table that are none.

    Args:
        reviewed: `all` (every recording that a table is about, from beginning to end), `spans` (only what the
            tables themselves label as background), `none`, or the path of a CSV table: file, and start_s and end_s,
            which are those of the recording where they are empty.
        durations: seconds by recording.
        described: recordings that a table is about.

    Raises:
        UsageError: no such table, it has no column of recordings, or two recordings have one name.
    """
    nothing = pd.DataFrame(columns=["path", "species", "reason"], dtype=object)
    if reviewed in WORDS:
        whole = sorted(described) if reviewed == "all" else []
        return _spans([(path, 0.0, durations[path]) for path in whole]), nothing
    path = Path(reviewed)
    rows = import_csv(path, KNOWN, "--reviewed").rows
    found = find_columns(list(rows), None)
    if "file" not in found:
        raise UsageError(f"--reviewed {printable(path)}: has no column file; it needs file,start_s,end_s")
    spans, rejected = [], []
    for number, row in enumerate(rows.to_dict("records"), start=1):
        name = row[found["file"]]
        recording = names.named(name, f"--reviewed {printable(path)}")
        given = [_seconds(row.get(found.get(column, ""), "")) for column in ("start_s", "end_s")]
        start, end = given[0] or 0.0, 0.0
        reason = "unknown recording: " + name if recording is None else ""
        if recording is not None:
            start = max(start, 0.0)
            end = recording.duration_s if given[1] is None else min(given[1], recording.duration_s)
            reason = "" if end > start else "a span of no length, or beyond the end"
        if reason or recording is None:
            rejected.append({"path": f"{path.name} row {number}", "species": "", "reason": reason})
        else:
            spans.append((recording.path, start, end))
    return _spans(spans), pd.DataFrame(rejected, columns=nothing.columns, dtype=object)


def _seconds(cell: str) -> float | None:
    """None where there is none; NaN, which no span has, where it is no number."""
    return float(numbers(pd.Series([cell]))[0]) if cell else None


def _spans(spans: list[tuple[str, float, float]]) -> pd.DataFrame:
    table = pd.DataFrame(spans, columns=SPAN[:3]).astype({"start_s": np.float64, "end_s": np.float64})
    return table.assign(channel=0)
