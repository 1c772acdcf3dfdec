"""Tables that people hand us, as spreadsheets write them: any separator, encoding and heading, read as text."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import printable, unguarded
from watkins_ml.core.names import normal

if TYPE_CHECKING:
    from _csv import Reader

MOST_BYTES = 1 << 26
MOST_ROWS = 1_000_000
MOST_COLUMNS = 1_000
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "upright bars"}
SAVE = "save it as 'CSV UTF-8'"
NO_TEXT = {
    b"PK\x03\x04": f"a workbook of a spreadsheet program (.xlsx, .ods) and no CSV table; open it there and {SAVE}",
    b"\xd0\xcf\x11\xe0": f"an old workbook of Excel (.xls) and no CSV table; open it there and {SAVE}",
    b"%PDF": "a PDF document and no CSV table",
    b"PAR1": f"a Parquet file and no CSV table; {SAVE}",
    b"\x1f\x8b": "packed with gzip; unpack it first",
    b"{": "JSON and no CSV table",
}
MARKS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip


@dataclass(frozen=True)
class ImportedTable:
    """What a file holds."""

    rows: pd.DataFrame
    """Every value is text without spaces around it, empty where there is none; headings in lower case, with `_`."""
    separator: str
    notes: tuple[str, ...] = ()
    """What its owner should know of how it was read."""


def import_csv(path: Path, known: Iterable[str], option: str = "", may_be_empty: bool = False) -> ImportedTable:
    """Read a table with a heading, from a spreadsheet or a program.

    Args:
        known: the headings that are looked for; they decide which separator it has. `Cut ID` counts as `cut_id`.
        option: what the sentence of an error begins with, before the file.
        may_be_empty: whether a table may have headings only.

    Raises:
        UsageError: no such file, or it is no table, too large, damaged, or empty; says what to do.
    """
    text, notes = import_text(path, option)
    try:
        separator, lines = _separator(text, set(known))
        rows = _frame(csv.reader(lines, delimiter=separator, strict=True), set(known), may_be_empty)
        return ImportedTable(rows, separator, notes)
    except _NoTableError as error:
        raise UsageError(f"{option} {printable(path)}: {error}".strip()) from None


def import_text(path: Path, option: str = "") -> tuple[str, tuple[str, ...]]:
    """The text of a table in any encoding, and what its owner should know of how it was read; raises as `import_csv`,
    which knows the other arguments."""
    try:
        return _text(_content(path))
    except _NoTableError as error:
        raise UsageError(f"{option} {printable(path)}: {error}".strip()) from None


class _NoTableError(Exception):
    """Why a file cannot be read, in words."""


def _content(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise _NoTableError("not a file" if not path.is_dir() else "a folder and no CSV table")
        with open(path, "rb") as file:
            content = file.read(min(os.fstat(file.fileno()).st_size, MOST_BYTES) + 1)  # room for so much is taken
    except OSError as error:
        raise _NoTableError(f"cannot be read as a CSV table ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise _NoTableError(f"more than {MOST_BYTES >> 20} MB are no table of recordings; leave out what is not needed")
    for begin, what in NO_TEXT.items():
        if content.startswith(begin):
            raise _NoTableError(f"this is {what}")
    if re.match(rb"\s*<(!doctype|html|\?xml)", content[:200], re.IGNORECASE):
        raise _NoTableError("this is a web page or XML and no CSV table")
    return content


def _text(content: bytes) -> tuple[str, tuple[str, ...]]:
    mark = next((mark for mark in MARKS if content.startswith(mark)), b"")
    encoding, notes = MARKS.get(mark), list[str]()
    if encoding is None and b"\0" in content[:1000]:  # UTF-16 without its mark: every second byte of plain letters is 0
        encoding = "utf-16-le" if content[1:2] == b"\0" else "utf-16-be"
    try:
        text = content[len(mark) :].decode(encoding or "utf-8")
    except UnicodeDecodeError:
        if encoding is not None:
            raise _NoTableError(f"damaged, or no CSV table; open it in a spreadsheet program and {SAVE}") from None
        of_mac = b"\r" in content and b"\n" not in content
        try:
            text = content.decode("mac-roman" if of_mac else "cp1252")
        except UnicodeDecodeError:
            raise _NoTableError(f"its encoding is unknown; open it in a spreadsheet program and {SAVE}") from None
        kind = "an old Mac" if of_mac else "Windows in Western Europe"
        notes.append(f"its letters are read as those of {kind}; if names look wrong, {SAVE}")
    if "\0" in text:
        raise _NoTableError(f"damaged, or no CSV table (it holds zero bytes); open it and {SAVE}")
    if not text.strip():
        raise _NoTableError("empty; a table has a line of headings and a row for each recording")
    return text, tuple(notes)


def _separator(text: str, known: set[str]) -> tuple[str, io.StringIO]:
    """What divides the cells, and the lines from the heading on: the separator with which most headings are known."""
    text = text.lstrip("\r\n")
    if given := re.match(r'"?sep=(.)"?[ \t]*(\r\n|\r|\n)', text):  # a line that Excel writes for itself
        return given[1], io.StringIO(text[given.end() :], newline="")
    first = re.split(r"[\r\n]", text, maxsplit=1)[0]

    def knows(separator: str) -> tuple[int, int]:
        try:
            cells = next(csv.reader([first], delimiter=separator), [])
        except csv.Error:
            cells = []
        return len({_heading(cell, known) for cell in cells} & known), len(cells)

    return max(SEPARATORS, key=knows), io.StringIO(text, newline="")


def _heading(cell: str, known: set[str]) -> str:
    """A heading in lower case; one that differs from a known one only in spaces and such is that one."""
    plain = normal(unguarded(cell.strip())).lower()
    letters = re.sub(r"[\W_]+", "", plain)
    return next((name for name in known if name.replace("_", "") == letters), plain)


def _rows(reader: Reader) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error:
        raise _NoTableError(f"line {reader.line_num}: a quotation mark that is not closed, or none of a pair") from None


def _frame(reader: Reader, known: set[str], may_be_empty: bool) -> pd.DataFrame:
    headings: list[str] | None = None
    rows: list[list[str]] = []
    for row in _rows(reader):
        cells = [normal(unguarded(cell.strip())) for cell in row]
        while cells and not cells[-1]:  # columns that a spreadsheet adds
            cells.pop()
        if not cells:
            continue
        if headings is None:
            headings = [_heading(cell, known) for cell in row[: len(cells)]]
            if len(headings) > MOST_COLUMNS:
                raise _NoTableError(f"{len(headings):,} columns are no table of recordings")
            continue
        if len(cells) > len(headings):
            raise _NoTableError(
                f"line {reader.line_num} has {len(cells)} cells where the heading has {len(headings)}; a cell that "
                f"holds the separator has to stand in quotation marks"
            )
        if len(rows) == MOST_ROWS:
            raise _NoTableError(f"more than {MOST_ROWS:,} rows are no table of recordings; leave out the others")
        rows.append(cells + [""] * (len(headings) - len(cells)))
    if not rows and not (may_be_empty and headings):
        raise _NoTableError("has no rows below its headings")
    table = pd.DataFrame(rows, columns=headings, dtype=object)
    return table.loc[:, ~table.columns.duplicated() & (table.columns != "")]
