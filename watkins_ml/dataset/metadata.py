"""A table about the recordings (where and when they were made), joined to them by id."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from watkins_ml.audio.formats import AUDIO_SUFFIXES
from watkins_ml.dataset.layout import METADATA_COLUMNS
from watkins_ml.errors import UsageError

ID_COLUMNS = ("cut_id", "clip_id", "id", "path", "file", "filename")
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
        ids["name"] = ids["place"].str.rpartition("/")[2]
        ids.loc[ids.groupby("name")["place"].transform("nunique") > 1, "name"] = None
        found = pd.Series(index=ids.index, dtype=object)
        for column in ("place", "cut_id", "name"):
            shared = ids.groupby(column)["place"].transform("nunique") > 1
            found = found.fillna(ids[column].where(ids[column].isin(self.rows.index) & ~shared))
        found = found.dropna()
        if found.empty:
            raise UsageError(
                f"--metadata {self.source}: no row belongs to a recording; its ids are like "
                f"'{self.rows.index[0]}', the recordings like '{recordings['path'].iloc[0]}'"
            )
        return self.rows.loc[found].set_index(found.index)


def read_metadata(path: Path) -> Metadata:
    """Read a CSV table with a row a recording: an id (the first of ID_COLUMNS), `site` or `fold`, METADATA_COLUMNS.

    Raises:
        UsageError: no such table, no id or site in it, or an id at two sites.
    """
    table = _read(path)
    key = next((name for name in ID_COLUMNS if name in table), None)
    kept = [name for name in METADATA_COLUMNS if name in table]
    if key is None or not {"site", "fold"} & set(kept):
        missing = "site (or fold)" if key else f"id (one of {', '.join(ID_COLUMNS)})"
        raise UsageError(f"--metadata {path}: has no column {missing}; its columns are {', '.join(table)}")
    table[key] = table[key].map(_without_suffix)
    table = table.loc[table[key] != ""]
    if table.empty:
        raise UsageError(f"--metadata {path}: every {key} is empty")
    for column in ("site", "fold"):
        if column not in kept:
            continue
        values = table.drop_duplicates([key, column])
        twice = values.loc[values[key].duplicated(keep=False)].sort_values(key, kind="stable")
        if not twice.empty:
            first, second = twice[column].iloc[:2]
            raise UsageError(
                f"--metadata {path}: {key} {twice[key].iloc[0]} has two {column}s, '{first}' and '{second}'"
            )
    return Metadata(path, table.drop_duplicates(key).set_index(key)[kept])


def _read(path: Path) -> pd.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # rows that are longer than the header
            table = pd.read_csv(path, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig")
    except (OSError, ValueError, pd.errors.ParserWarning) as error:
        what = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise UsageError(f"--metadata {path}: cannot be read as a CSV table ({what})") from None
    table.columns = table.columns.str.strip().str.lower()
    table = table.loc[:, ~table.columns.duplicated()].fillna("")  # rows that are shorter than the header
    return table.apply(lambda column: column.str.strip())


def _without_suffix(name: str) -> str:
    """`Orca/61025001` of `./Orca/61025001.wav` and of the same on Windows."""
    place = PurePosixPath(name.replace("\\", "/"))
    return str(place.with_suffix("") if place.suffix.lower() in AUDIO_SUFFIXES else place) if name else ""
