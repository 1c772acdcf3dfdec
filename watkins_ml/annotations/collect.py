"""All tables of a set of recordings as one typed table of calls, with what was listened to and what was rejected."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.annotations.checks import clipped, with_reasons
from watkins_ml.annotations.mapping import BACKGROUND, DROPPED, UNCERTAIN, LabelMapping, read_mapping
from watkins_ml.annotations.placing import PlacedTable, TableIndex, place_rows, read_index
from watkins_ml.annotations.read import NUMBER, OPTION, SelectionTable, read_selections
from watkins_ml.annotations.recordings import LongRecording, RecordingNames
from watkins_ml.annotations.reviewed import SPAN, WORDS, check_reviewed, read_reviewed
from watkins_ml.audio.stream import MIXED
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import files_below, printable
from watkins_ml.core.names import normal, spelled

SUFFIXES = (".txt", ".csv", ".tsv")
CALL = [*SPAN, "species", "low_hz", "high_hz", "confidence", "annotator", "source"]
"""Columns of a call: recording (path), start_s, end_s (seconds), channel (0: all), species, band in Hz (NaN: unknown),
confidence (NaN: unknown), annotator, and where it stands (`table row N`)."""
NO_LABEL = "no label"
NOT_MAPPED = "label not in the mapping"


@dataclass(frozen=True)
class AnnotationOptions:
    """How tables are to be read."""

    label_column: str | None = None
    """The heading of the labels, where it is none of the usual ones."""
    label: str | None = None
    """Of rows without a label, or with a number (a score) for one."""
    labels: Path | None = None
    """A table of label,species; see `mapping`."""
    table_index: Path | None = None
    """A table of table,recording; see `placing`."""
    reviewed: str = "spans"
    """`all`, `spans`, `none` or the path of a table of spans; see `reviewed`."""

    @property
    def files(self) -> list[Path]:
        """Tables about tables, which are no selection tables."""
        of_spans = [] if self.reviewed in WORDS else [Path(self.reviewed)]
        return [path for path in (self.labels, self.table_index, *of_spans) if path is not None]


@dataclass(frozen=True)
class Annotations:
    """What was written down of recordings."""

    calls: pd.DataFrame
    """CALL, of one species each."""
    uncertain: pd.DataFrame
    """SPAN of what was heard and has no usable label: neither a call of a species nor silence."""
    reviewed: pd.DataFrame
    """SPAN that somebody has listened through: what has no call there has none."""
    rejected: pd.DataFrame
    """path (the table and its row), species (the label) and reason."""
    described: frozenset[str]
    """Recordings that a table is about."""
    tables: int
    digest: str
    """Of the content of all tables and how they are read."""
    notes: tuple[str, ...] = ()


def collect(place: Path, recordings: list[LongRecording], options: AnnotationOptions, but: tuple[Path, ...] = ()
            ) -> Annotations:  # fmt: skip
    """Read the tables in a folder (or one table) and match them with recordings.

    Args:
        but: further files in the folder that are none of these tables.

    Raises:
        UsageError: a table cannot be read or matched, see `read`, `placing`, `mapping` and `reviewed`; or none of
            their rows is about any of the recordings.
    """
    check_reviewed(options.reviewed)
    mapping, index, names = read_mapping(options.labels), read_index(options.table_index), RecordingNames(recordings)
    files = _tables(place, (*options.files, *but))
    below = place if place.is_dir() else place.parent
    reviewed_by = options.reviewed if options.reviewed in WORDS else "table"
    digest = hashlib.sha256(repr((options.label_column, options.label, reviewed_by)).encode())
    parts, described, notes, rejected = list[pd.DataFrame](), set[str](), list[str](), list[pd.DataFrame]()
    for file in files:
        table = read_selections(file, options.label_column)
        placed = place_rows(table, below, names, index.of(file, below))
        parts.append(_described(table, placed, spelled(file.relative_to(below)), index, below, options))
        described |= placed.recordings
        notes += [f"{printable(file)}: {note}" for note in table.notes]
    for file in (*files, *options.files):
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    rows = pd.concat(parts, ignore_index=True)
    if not described:
        first = f"'{rows['named'].iloc[0]}'" if len(rows) and rows["named"].iloc[0] else f"like {files[0].name}"
        raise UsageError(
            f"{OPTION} {printable(place)}: no table is about a recording; theirs are {first}, the recordings are like "
            f"{recordings[0].path}; a CSV of table,recording (--table-index) can say which belong together"
        )
    rows = with_reasons(_mapped(rows, mapping), {r.path: r.duration_s for r in recordings},
                        {r.path: r.channels for r in recordings})  # fmt: skip
    reviewed, no_spans = read_reviewed(options.reviewed, names, {r.path: r.duration_s for r in recordings}, described)
    rejected += [_rejected(rows), no_spans]
    rows = clipped(rows, {r.path: r.duration_s for r in recordings})
    calls, uncertain, background = _divided(rows)
    if options.reviewed != "none":
        reviewed = pd.concat([reviewed, background], ignore_index=True)
    return Annotations(calls, uncertain, reviewed, pd.concat(rejected, ignore_index=True), frozenset(described),
                       len(files), digest.hexdigest()[:16], tuple(notes))  # fmt: skip


def _tables(place: Path, but: tuple[Path, ...]) -> list[Path]:
    if not place.exists():
        raise UsageError(f"{OPTION} {printable(place)}: no such file or folder; give a table or a folder of tables")
    if not place.is_dir():
        return [place]
    others = {path.resolve() for path in but}
    found = [f for f in sorted(files_below(place)) if f.suffix.lower() in SUFFIXES and f.resolve() not in others]
    if not found:
        raise UsageError(
            f"{OPTION} {printable(place)}: no tables there; expected files with a suffix {', '.join(SUFFIXES)}"
        )
    return found


def _described(
    table: SelectionTable, placed: PlacedTable, name: str, index: TableIndex, below: Path, options: AnnotationOptions
) -> pd.DataFrame:
    """The rows of a table with label, source and channel; labels that are missing are those of the table."""
    label = index.of(table.path, below).label or options.label
    if not table.has_labels and not label and len(placed.rows):
        raise UsageError(
            f"{OPTION} {printable(table.path)}: no column of labels is found; name it (--label-column), or give the "
            "label of all rows (--label, or a column label in --table-index)"
        )
    rows = placed.rows.assign(source=[f"{name} row {row}" for row in placed.rows["row"]])
    if label:
        rows["label"] = rows["label"].mask((rows["label"] == "") | rows["label"].str.fullmatch(NUMBER.pattern), label)
    rows["channel"] = rows["channel"].fillna(0).clip(lower=0, upper=1 << 16).astype(int)
    return rows


def _mapped(rows: pd.DataFrame, mapping: LabelMapping) -> pd.DataFrame:
    """With `species` (None where the label is unknown) and the reasons that come of labels and names."""
    known = {label: mapping.of(label) for label in rows["label"].unique()}
    species = pd.Series([known[label] for label in rows["label"]], index=rows.index, dtype=object)
    reason = pd.Series("", index=rows.index, dtype=object)
    reason[species.isna()] = NOT_MAPPED
    reason[species == DROPPED] = "dropped by the mapping"
    reason[rows["label"] == ""] = NO_LABEL
    unknown = rows["recording"].isna()
    reason[unknown] = "unknown recording: " + rows["named"].where(rows["named"] != "", "none has the table's name")
    species[(species == DROPPED) | (rows["label"] == "")] = None
    return rows.assign(species=species.where(species.notna(), None), reason=reason)


def _rejected(rows: pd.DataFrame) -> pd.DataFrame:
    left_out = rows[rows["reason"] != ""]
    return pd.DataFrame({"path": left_out["source"], "species": left_out["label"].map(normal),
                         "reason": left_out["reason"]})  # fmt: skip


def _divided(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Calls, spans of uncertain ones, and spans of background.

    A row that was rejected for its label still tells that something was heard there.
    """
    usable, reason = rows[rows["reason"] == ""], rows["reason"]
    heard = rows[reason.isin([NO_LABEL, NOT_MAPPED]) | reason.str.startswith("contradictory")]
    heard = heard[(heard["end_s"] > heard["start_s"])]
    uncertain = pd.concat([usable[usable["species"] == UNCERTAIN], heard])[SPAN]
    background = usable.loc[usable["species"] == BACKGROUND, SPAN]
    calls = usable.loc[~usable["species"].isin([UNCERTAIN, BACKGROUND]), CALL]
    order = ["recording", "start_s", "end_s", "species"]
    return (
        calls.sort_values(order, ignore_index=True),
        uncertain.sort_values(order[:3], ignore_index=True),
        background.sort_values(order[:3], ignore_index=True),
    )


def spans_heard(table: pd.DataFrame, channel: int) -> np.ndarray:
    """(n, 2) seconds of what counts for a channel: in a mix everything does, and what names no channel does in all."""
    heard = table if channel == MIXED else table[table["channel"].isin([MIXED, channel])]
    return heard[["start_s", "end_s"]].to_numpy(dtype=np.float64)
