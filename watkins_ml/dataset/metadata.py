"""A table about the recordings (where and when they were made), joined to them by id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from watkins_ml.audio.formats import AUDIO_SUFFIXES
from watkins_ml.core.console import err
from watkins_ml.core.csv_import import SEPARATORS, import_csv
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import printable
from watkins_ml.core.names import normal
from watkins_ml.dataset.layout import METADATA_COLUMNS

ID_COLUMNS = ("cut_id", "clip_id", "id", "path", "file", "filename")
COORDINATES = ("latitude", "longitude")
"""What may name the recording of a row; the first of them that a table has counts."""


@dataclass(frozen=True)
class Metadata:
    """A table by id, without audio suffixes; every value is text, empty where unknown."""

    source: Path
    rows: pd.DataFrame

    def of(self, recordings: pd.DataFrame) -> pd.DataFrame:
        """The rows of the recordings (columns path, cut_id) that have one, by path.

        An id is a recording's path in the audio folder, its file's name or its cut id, with or without the suffix.
        A name that files of several folders share names none of them.

        Raises:
            UsageError: the table has no row for any of them.
        """
        ids = recordings.set_index("path")[["cut_id"]].assign(place=list(map(_without_suffix, recordings["path"])))
        ids["name"] = [_without_suffix(path.rpartition("/")[2]) for path in recordings["path"]]
        ids["cut_id"] = ids["cut_id"].str.replace("\\", "/")  # as in `_without_suffix`
        ids.loc[ids.groupby("name")["place"].transform("nunique") > 1, "name"] = None
        found = pd.Series(index=ids.index, dtype=object)
        for column in ("place", "cut_id", "name"):
            shared = ids.groupby(column)["place"].transform("nunique") > 1
            found = found.fillna(ids[column].where(ids[column].isin(self.rows.index) & ~shared))
        found = found.dropna()
        if found.empty:
            raise UsageError(
                f"--metadata {self.source}: no row belongs to a recording; its ids are like "
                f"'{self.rows.index[0]}', the recordings like '{recordings['path'].iloc[0]}'{self._lost_zeros(ids)}"
            )
        if lost := self._lost_zeros(ids.drop(found.index), found):
            err.print(f"--metadata {printable(self.source)}: not all ids belong to a recording{lost}", style="yellow")
        return self.rows.loc[found].set_index(found.index)

    def _lost_zeros(self, ids: pd.DataFrame, found: Iterable[str] = ()) -> str:
        """Which id is that of a recording without its leading zeros, as a spreadsheet program leaves numbers."""
        left = {name.lstrip("0"): name for name in ids["name"].dropna() if name.isdigit() and name.startswith("0")}
        lost = [each for each in self.rows.index.difference(list(found)) if each in left and each != left[each]]
        if not lost:
            return ""
        return (
            f"; {len(lost)} lack the zeros that a name begins with ({lost[0]} for {left[lost[0]]}), which spreadsheets "
            "drop: format that column as text there and enter them again"
        )


def read_metadata(path: Path) -> Metadata:
    """Read a CSV table with a row a recording: an id (the first of ID_COLUMNS), `site` or `fold`, METADATA_COLUMNS.

    Raises:
        UsageError: no such table, no id or site in it, or an id at two sites.
    """
    foreign = import_csv(path, (*ID_COLUMNS, *METADATA_COLUMNS), "--metadata")
    table = foreign.rows
    for note in foreign.notes:
        err.print(f"--metadata {printable(path)}: {note}", style="yellow")
    for column in set(COORDINATES) & set(table):
        table[column] = table[column].str.replace(r"^([-+]?\d+),(\d+)$", r"\1.\2", regex=True)  # decimal commas
    key = next((name for name in ID_COLUMNS if name in table), None)
    columns = [name for name in METADATA_COLUMNS if name in table]
    if key is None or not {"site", "fold"} & set(columns):
        missing = "site (or fold)" if key else f"id (one of {', '.join(ID_COLUMNS)})"
        divided = SEPARATORS.get(foreign.separator, repr(foreign.separator))
        raise UsageError(
            f"--metadata {path}: has no column {missing}; its columns are {', '.join(table)[:500]} "
            f"(divided by {divided})"
        )
    _warn_of_ids(path, table, key)
    table[key] = table[key].map(_without_suffix)
    table = table.loc[table[key] != ""]
    if table.empty:
        raise UsageError(f"--metadata {path}: every {key} is empty")
    for column in ("site", "fold"):
        if column not in columns:
            continue
        values = table.drop_duplicates([key, column])
        twice = values.loc[values[key].duplicated(keep=False)].sort_values(key, kind="stable")
        if not twice.empty:
            first, second = twice[column].iloc[:2]
            raise UsageError(
                f"--metadata {path}: {key} {twice[key].iloc[0]} has two {column}s, '{first}' and '{second}'"
            )
    return Metadata(path, table.drop_duplicates(key).set_index(key)[columns])


def _warn_of_ids(path: Path, table: pd.DataFrame, key: str) -> None:
    """Say what a spreadsheet program has made of the ids."""
    numbers = table.loc[table[key].str.fullmatch(r"\d([.,]\d+)?[eE]\+?\d+"), key]
    if len(numbers):
        err.print(
            f"--metadata {printable(path)}: {len(numbers)} of its ids were made numbers by a spreadsheet program, as "
            f"{numbers.iloc[0]}, and belong to no recording; format that column as text there and enter them again",
            style="yellow",
        )


def _without_suffix(name: str) -> str:
    """`Orca/61025001` of `./Orca/61025001.wav` and of the same on Windows."""
    place = PurePosixPath(normal(name).replace("\\", "/"))
    return str(place.with_suffix("") if place.suffix.lower() in AUDIO_SUFFIXES else place) if name else ""
