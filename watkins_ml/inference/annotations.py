"""Detections as the files that bioacousticians open: CSV, Parquet, Raven selection tables, Audacity labels."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from watkins_ml.core.files import shown_csv, write_bytes, write_text
from watkins_ml.core.text import shown

WHOLE = {"csv": "detections.csv", "parquet": "detections.parquet"}
"""Formats that are one table of all recordings, and its name."""
SINGLE = {"raven": "selections.txt", "audacity": "labels.txt"}
"""Formats with a file a recording, in a folder of that name, and how these end."""
FORMATS = (*WHOLE, *SINGLE)


class Found(NamedTuple):
    """What was detected in one recording."""

    name: str
    """What its own files are called, without an ending."""
    place: Path
    """Where the recording lies, from the root on."""
    rows: pd.DataFrame
    """As `detections` gives them; a recording without any has a file of its own too."""
    rate: int | None = None
    """Native rate of the recording in Hz."""


def place_of(folder: Path, format: str) -> Path:
    """The file, or the folder of files, of a format."""
    return folder / WHOLE.get(format, format)


def file_of(folder: Path, format: str, name: str) -> Path:
    """The file of one recording in a format that has one for each."""
    return folder / format / f"{name}.{SINGLE[format]}"


def write_whole(folder: Path, format: str, found: Iterable[pd.DataFrame]) -> Path:
    """One table of all recordings; the file that was written."""
    table, path = pd.concat(found, ignore_index=True), place_of(folder, format)
    if format == "csv":
        write_text(path, shown_csv(table.round(6)))
        return path
    content = io.BytesIO()
    table.to_parquet(content, index=False)
    write_bytes(path, content.getvalue())
    return path


def write_single(folder: Path, format: str, found: Found, band: float) -> Path:
    """The file of one recording, which Raven and Audacity open with it; it is returned.

    Args:
        band: the highest frequency (Hz) that the model hears.
    """
    path = file_of(folder, format, found.name)
    write_text(path, raven_table(found, band) if format == "raven" else audacity_labels(found.rows))
    return path


def raven_table(found: Found, band: float) -> str:
    """A sound selection table of Raven Pro and Lite: tab-separated, a row a selection, channels counted from 1.

    `Begin Path` and `File Offset (s)` let Raven find the sound from anywhere. The upper edge of a selection is what the
    model hears, or what the recording holds if that is less: Raven takes none above.
    """
    rows, start = found.rows, found.rows["start_s"].to_numpy()
    high = band if found.rate is None else min(band, found.rate / 2)
    table = pd.DataFrame(
        {
            "Selection": range(1, len(rows) + 1),
            "View": "Spectrogram 1",
            "Channel": rows["channel"].clip(lower=1).to_numpy(),
            "Begin Time (s)": start,
            "End Time (s)": rows["end_s"].to_numpy(),
            "Low Freq (Hz)": 0.0,
            "High Freq (Hz)": float(high),
            "Begin Path": shown(str(found.place)),
            "File Offset (s)": start,
            "Begin File": shown(found.place.name),
            "Species": rows["species"].map(shown).to_numpy(),
            "Confidence": rows["probability"].to_numpy(),
            "Novelty": rows["novelty"].to_numpy(),
        }
    )
    return table.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6f")


def audacity_labels(found: pd.DataFrame) -> str:
    """A label track of Audacity: begin and end in seconds and the label, tab-separated, without a header."""
    return "".join(
        f"{row.start_s:.6f}\t{row.end_s:.6f}\t{shown(row.species)} {row.probability:.2f}"
        f"{f' channel {row.channel}' if row.channel else ''} novelty {row.novelty:.2f}\n"
        for row in found.itertuples()
    )
