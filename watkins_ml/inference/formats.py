"""Write detections as the files that bioacousticians open: CSV, Parquet, Raven selection tables, Audacity labels."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from watkins_ml.core.files import shown_csv, write_bytes, write_text
from watkins_ml.core.text import shown
from watkins_ml.inference.detections import RecordingDetections, all_rows

WHOLE = {"csv": "detections.csv", "parquet": "detections.parquet"}
"""Formats that are one table of all recordings, and its name."""
SINGLE = {"raven": "selections.txt", "audacity": "labels.txt"}
"""Formats with a file a recording, in a folder of that name, and how these end."""


class Output(NamedTuple):
    """The detections in one recording, and what its own files are called."""

    name: str
    """What its files are called, without an ending."""
    location: Path
    """Where the recording lies, from the root on."""
    detections: RecordingDetections


def file_of(folder: Path, format: str, name: str) -> Path:
    """The file of one recording in a format that has one for each."""
    return folder / format / f"{name}.{SINGLE[format]}"


def write_outputs(
    folder: Path, formats: tuple[str, ...], outputs: list[Output], unchanged: Collection[str], band: tuple[float, float]
) -> list[Path]:
    """Write the tables of a folder's recordings, also in the formats of earlier commands; the files written.

    Args:
        unchanged: names of recordings whose own files stay as they are, since somebody may have edited them.
        band: the lowest and the highest frequency (Hz) that the model uses.
    """
    outputs, written = sorted(outputs, key=lambda each: (each.location.parts, each.name)), []
    for format, name in WHOLE.items():
        if format in formats or (folder / name).exists():
            written.append(_write_whole(folder / name, all_rows([each.detections for each in outputs])))
    for format in SINGLE:
        if format not in formats and not (folder / format).exists():
            continue
        for each in outputs:
            path = file_of(folder, format, each.name)
            if each.name not in unchanged or not path.exists():
                text = raven_table(each, band) if format == "raven" else audacity_labels(each.detections.rows)
                write_text(path, text)
                written.append(path)
    return written


def _write_whole(path: Path, table: pd.DataFrame) -> Path:
    if path.suffix == ".csv":
        write_text(path, shown_csv(table.round(6)))
    else:
        content = io.BytesIO()
        table.to_parquet(content, index=False)
        write_bytes(path, content.getvalue())
    return path


def raven_table(output: Output, band: tuple[float, float]) -> str:
    """A sound selection table of Raven Pro and Lite: tab-separated, a row a selection, channels counted from 1.

    `Begin Path` and `File Offset (s)` let Raven find the sound from anywhere. The edges of a selection are what
    the model uses, within what the recording holds: Raven takes none above.
    """
    rows, rate = output.detections.rows, output.detections.rate
    start = rows["start_s"].to_numpy()
    low_hz, high_hz = (float(hertz if rate is None else min(hertz, rate / 2)) for hertz in band)
    table = pd.DataFrame(
        {
            "Selection": range(1, len(rows) + 1),
            "View": "Spectrogram 1",
            "Channel": rows["channel"].clip(lower=1).to_numpy(),
            "Begin Time (s)": start,
            "End Time (s)": rows["end_s"].to_numpy(),
            "Low Freq (Hz)": low_hz,
            "High Freq (Hz)": high_hz,
            "Begin Path": shown(str(output.location)),
            "File Offset (s)": start,
            "Begin File": shown(output.location.name),
            "Species": rows["species"].map(shown).to_numpy(),
            "Confidence": rows["probability"].to_numpy(),
            "Novelty": rows["novelty"].to_numpy(),
        }
    )
    return table.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6f")


def audacity_labels(rows: pd.DataFrame) -> str:
    """A label track of Audacity: begin and end in seconds and the label, tab-separated, without a header."""
    return "".join(
        f"{row.start_s:.6f}\t{row.end_s:.6f}\t{shown(row.species)} {row.probability:.2f}"
        f"{f' channel {row.channel}' if row.channel else ''} novelty {row.novelty:.2f}\n"
        for row in rows.itertuples()
    )
