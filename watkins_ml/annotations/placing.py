"""Which recording each row of a table is about, and when in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from watkins_ml.annotations.read import OPTION, SelectionTable
from watkins_ml.annotations.recordings import LongRecording, RecordingNames
from watkins_ml.core.csv_import import import_csv
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import printable
from watkins_ml.core.names import normal


@dataclass(frozen=True)
class IndexEntry:
    """What a CSV of tables says of one of them; empty where it says nothing."""

    recording: str = ""
    label: str = ""


@dataclass(frozen=True)
class TableIndex:
    """The tables of such a CSV, by their path below the folder of tables, or by their name."""

    entries: dict[str, IndexEntry]

    def of(self, table: Path, below: Path) -> IndexEntry:
        place = table.relative_to(below).as_posix() if table.is_relative_to(below) else table.name
        return self.entries.get(normal(place)) or self.entries.get(normal(table.name)) or IndexEntry()


def read_index(path: Path | None) -> TableIndex:
    """Read a CSV with the column `table`, and `recording` (whose it is) or `label` (of its rows without one).

    Raises:
        UsageError: no such table, neither column, or a table that stands in it twice with different entries.
    """
    if path is None:
        return TableIndex({})
    rows = import_csv(path, ("table", "recording", "label"), "--table-index").rows
    if "table" not in rows or not {"recording", "label"} & set(rows):
        raise UsageError(f"--table-index {printable(path)}: needs the columns table,recording (and perhaps label)")
    entries: dict[str, IndexEntry] = {}
    for row in rows.to_dict("records"):
        name = normal(PurePosixPath(row["table"].replace("\\", "/")).as_posix())
        entry = IndexEntry(row.get("recording", ""), row.get("label", ""))
        if entries.setdefault(name, entry) != entry:
            raise UsageError(f"--table-index {printable(path)}: {name} stands in it twice, with different entries")
    return TableIndex(entries)


@dataclass(frozen=True)
class PlacedTable:
    """The rows of a table with the recording of each."""

    rows: pd.DataFrame
    """As `SelectionTable.rows`, with times inside the recording, `recording` (its path; None where unknown) and
    `named` (as the table has it)."""
    recordings: set[str]
    """Those that the table is about, also where it has no row of them."""


def place_rows(table: SelectionTable, below: Path, names: RecordingNames, entry: IndexEntry) -> PlacedTable:
    """Find the recording of each row: as the index says, as a column of the table says, or by the table's name.

    Rows of Raven that have a `File Offset (s)` begin so many seconds into their `Begin File`; else `Begin Time (s)`
    counts from the beginning of the only file.

    Raises:
        UsageError: the index names a recording that is not there, several recordings have one name, or times count
            from the first of several files.
    """
    source, rows = f"{OPTION} {printable(table.path)}", table.rows
    if table.kind == "raven":
        rows = _in_their_files(rows, source)
    if entry.recording:
        found = names.named(entry.recording, f"--table-index {printable(table.path)}")
        if found is None:
            raise UsageError(f"--table-index: '{entry.recording}' (of {printable(table.path)}) is no recording there")
        return _all_of(rows, found)
    columns = ["begin_path", "begin_file"] if table.kind == "raven" else ["file"]
    named = _first_text(rows, columns)
    if table.kind != "audacity" and (named != "").any():
        recording = _of_cells(rows, columns, names, source)
        if recording.notna().any() or named.nunique() > 1:
            return PlacedTable(rows.assign(recording=recording, named=named), set(recording.dropna()))
        # else the recording was perhaps renamed together with its table
    of_table = names.of_table(table.path, below, source)
    return _all_of(rows, of_table) if of_table else PlacedTable(rows.assign(recording=None, named=named), set())


def _in_their_files(rows: pd.DataFrame, source: str) -> pd.DataFrame:
    offset = rows["file_offset_s"]
    if offset.notna().all():
        return rows.assign(start_s=offset, end_s=offset + (rows["end_s"] - rows["start_s"]))
    files = sorted({_last(name) for column in ("begin_file", "begin_path") for name in rows[column]} - {""})
    if len(files) > 1:
        raise UsageError(
            f"{source}: its times count from the first of several files ({files[0]}, {files[1]}); add the measurement "
            "'File Offset (s)' to the table in Raven and save it again"
        )
    return rows


def _last(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _first_text(rows: pd.DataFrame, columns: list[str]) -> pd.Series:
    named = pd.Series("", index=rows.index, dtype=object)
    for column in columns:
        named = named.where(named != "", rows[column])
    return named


def _of_cells(rows: pd.DataFrame, columns: list[str], names: RecordingNames, source: str) -> pd.Series:
    """The path of each row's recording, as the first column says that names one; None where none does."""
    recording = pd.Series(None, index=rows.index, dtype=object)
    for column in columns:
        missing = recording.isna()
        cells = {cell: names.named(cell, source) for cell in rows.loc[missing, column].unique() if cell}
        paths = {cell: place.path for cell, place in cells.items() if place}
        recording[missing] = [paths.get(cell) for cell in rows.loc[missing, column]]
    return recording


def _all_of(rows: pd.DataFrame, recording: LongRecording) -> PlacedTable:
    return PlacedTable(rows.assign(recording=recording.path, named=recording.path), {recording.path})
