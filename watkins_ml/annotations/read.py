"""Selection tables of Raven, label files of Audacity and CSV tables, each read as the rows that it holds."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.annotations.columns import KNOWN, MEANINGS, find_columns, plain
from watkins_ml.core.csv_import import MOST_ROWS, SEPARATORS, import_csv, import_text
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import printable
from watkins_ml.core.names import normal

OPTION = "--annotations"
TEXTS = ("label", "file", "begin_file", "begin_path", "annotator")
NUMBERS = ("start_s", "end_s", "low_hz", "high_hz", "confidence", "channel", "file_offset_s")
COLUMNS = ("row", *TEXTS, *NUMBERS)
PREDICTED = re.compile(r"(.+) ([01]\.\d\d)(?: channel (\d+))? novelty -?\d+\.\d\d")
"""A label as `watkins predict --format audacity` writes it: species, probability and channel."""
NUMBER = re.compile(r"[-+]?(\d+([.,]\d*)?|[.,]\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class SelectionTable:
    """The rows of one file, as they were written."""

    path: Path
    rows: pd.DataFrame
    """COLUMNS: `row` counts from 1; texts are empty and numbers NaN where there is none. `start_s` and `end_s` in
    seconds, frequencies in Hz."""
    kind: str
    """`raven`, `audacity` or `csv`."""
    has_labels: bool = True
    """Whether there is a column of labels."""
    notes: tuple[str, ...] = ()
    """What its owner should know of how it was read."""


def read_selections(path: Path, label_column: str | None = None) -> SelectionTable:
    """Read a table in whatever encoding, with tabs, commas or semicolons and decimal points or commas.

    Args:
        label_column: the heading of the labels, where it is none of the usual ones.

    Raises:
        UsageError: no such file, or it is no table of annotations, too large or damaged; says what to do.
    """
    text, notes = import_text(path, OPTION)
    if (audacity := _audacity_rows(text, path)) is not None:
        return SelectionTable(path, audacity, "audacity", notes=notes)
    table = import_csv(path, _known(label_column), OPTION, may_be_empty=True)
    headings = list(table.rows)
    try:
        found = find_columns(headings, label_column)
    except KeyError:
        raise UsageError(
            f"{OPTION} {printable(path)}: has no column '{label_column}' (--label-column); its columns are "
            f"{', '.join(headings)[:500]}"
        ) from None
    if missing := [meaning for meaning in ("start_s", "end_s") if meaning not in found]:
        raise UsageError(f"{OPTION} {printable(path)}: {_no_times(headings, missing, table.separator)}")
    is_raven = "selection" in found or "view" in found
    rows = _one_row_a_selection(table.rows, found) if is_raven else table.rows
    kind = "raven" if is_raven else "csv"
    return SelectionTable(path, _typed(rows, found), kind, "label" in found, table.notes)


def _known(label_column: str | None) -> tuple[str, ...]:
    if label_column is None or plain(label_column) in {name.replace("_", "") for name in KNOWN}:
        return KNOWN
    return (*KNOWN, normal(label_column.strip()).lower())


def _no_times(headings: list[str], missing: list[str], separator: str) -> str:
    if sum(bool(NUMBER.fullmatch(name)) for name in headings) >= 2:
        return (
            "has no line of headings; name its columns in a first line (file,start_s,end_s,species), or save labels "
            "of Audacity with tabs between them"
        )
    divided = SEPARATORS.get(separator, repr(separator))
    return (
        f"is no table of annotations: no column {' and '.join(missing)} (or {MEANINGS[missing[0]][1]}); its columns "
        f"are {', '.join(headings)[:300]} (divided by {divided})"
    )


def _one_row_a_selection(rows: pd.DataFrame, found: dict[str, str]) -> pd.DataFrame:
    """Raven writes a selection once for each view (waveform, spectrogram): one row of each, with what any view has.

    Rows without a number of their selection, and rows of one number but of other times, stay.
    """
    if "selection" not in found or "view" not in found:
        return rows
    number = rows[found["selection"]]
    key = [number, *(rows[found[name]] for name in ("start_s", "end_s", "channel") if name in found)]
    first = rows.mask(rows == "").groupby([*key], sort=False, dropna=False).transform("first").fillna("")
    merged = rows.where(rows != "", first)
    repeated = pd.concat(key, axis=1, keys=range(len(key))).duplicated()
    return merged[~repeated | (number == "")]


def _typed(rows: pd.DataFrame, found: dict[str, str]) -> pd.DataFrame:
    table = pd.DataFrame({"row": rows.index.to_numpy() + 1}, index=range(len(rows)))
    for name in TEXTS:
        table[name] = rows[found[name]].to_numpy() if name in found else ""
    for name in NUMBERS:
        table[name] = numbers(rows[found[name]]).to_numpy() if name in found else np.nan
    return table.astype({name: object for name in TEXTS})


def numbers(cells: pd.Series) -> pd.Series:
    """Text as numbers, also with a decimal comma; NaN where it is none, or not finite."""
    texts = cells.astype(str).str.strip()
    valid = texts.str.fullmatch(NUMBER.pattern)
    found = pd.to_numeric(texts.where(valid, "nan").str.replace(",", "."), errors="coerce")
    return found.astype(float).where(lambda each: np.isfinite(each))


def _audacity_rows(text: str, path: Path) -> pd.DataFrame | None:
    """The labels of an Audacity track: `start TAB end TAB label`, perhaps a line `\\ TAB low TAB high` after it.

    None where the first line is none of these.
    """
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip()]
    if not _is_label(lines[0].split("\t")):
        return None
    rows: list[dict[str, object]] = []
    for number, line in enumerate(lines, start=1):
        cells = line.split("\t")
        if cells[0].strip() == "\\":
            low, high = (*map(_number, cells[1:3]), np.nan, np.nan)[:2]
            rows[-1] |= {name: hertz if hertz >= 0 else np.nan for name, hertz in (("low_hz", low), ("high_hz", high))}
            continue
        if not _is_label(cells):
            raise UsageError(
                f"{OPTION} {printable(path)}: line {number} is no label of Audacity (start, end and label with tabs "
                "between them), as the lines before it are"
            )
        if len(rows) == MOST_ROWS:
            raise UsageError(f"{OPTION} {printable(path)}: more than {MOST_ROWS:,} labels are none of one recording")
        label = normal(" ".join(cells[2:]).strip())
        row = {"row": len(rows) + 1, "start_s": _number(cells[0]), "end_s": _number(cells[1]), "label": label}
        if own := PREDICTED.fullmatch(label):
            row |= {"label": own[1], "confidence": float(own[2]), "channel": float(own[3] or 0)}
        rows.append(row)
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    texts = table[list(TEXTS)].fillna("").astype(object)
    return table.assign(**{name: texts[name] for name in TEXTS}).astype({name: float for name in NUMBERS})


def _is_label(cells: list[str]) -> bool:
    return len(cells) >= 2 and all(NUMBER.fullmatch(cell.strip()) for cell in cells[:2])


def _number(cell: str) -> float:
    return float(cell.strip().replace(",", ".")) if NUMBER.fullmatch(cell.strip()) else float("nan")
