"""Detections as the files that bioacousticians open: CSV, Parquet, Raven selection tables, Audacity labels."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd

from watkins_ml.files import shown_csv, write_bytes, write_text

FORMATS = ("csv", "parquet", "raven", "audacity")


def write_annotations(folder: Path, format: str, found: pd.DataFrame, names: dict[str, str], band: float) -> list[Path]:
    """Write `found`, as `detections` gives it, into `folder`; the files that were written.

    CSV and Parquet are one table of all recordings. Raven and Audacity open a recording with its own file, so each of
    `names` (path of a recording to the name that its file gets, without an ending) has one, also with no detection.
    `band` is the highest frequency (Hz) that the model hears, which a Raven selection needs as its upper edge.
    """
    if format == "csv":
        write_text(folder / "detections.csv", shown_csv(found.round(6)))
        return [folder / "detections.csv"]
    if format == "parquet":
        content = io.BytesIO()
        found.to_parquet(content, index=False)
        write_bytes(folder / "detections.parquet", content.getvalue())
        return [folder / "detections.parquet"]
    of_recording, written = dict(list(found.groupby("path"))), []
    for path, name in names.items():
        rows = of_recording.get(path, found[:0])
        if format == "raven":
            ending, text = "selections", raven_table(rows, band)
        else:
            ending, text = "labels", audacity_labels(rows)
        written.append(folder / format / f"{name}.{ending}.txt")
        write_text(written[-1], text)
    return written


def raven_table(found: pd.DataFrame, band: float) -> str:
    """A selection table of Raven Pro and Lite: tab-separated, a row a selection, channels counted from 1."""
    table = pd.DataFrame(
        {
            "Selection": range(1, len(found) + 1),
            "View": "Spectrogram 1",
            "Channel": found["channel"].clip(lower=1).to_numpy(),
            "Begin Time (s)": found["start_s"].to_numpy(),
            "End Time (s)": found["end_s"].to_numpy(),
            "Low Freq (Hz)": 0.0,
            "High Freq (Hz)": float(band),
            "Begin Path": found["path"].to_numpy(),
            "Species": found["species"].to_numpy(),
            "Confidence": found["probability"].to_numpy(),
        }
    )
    return table.to_csv(sep="\t", index=False, lineterminator="\n", float_format="%.6f")


def audacity_labels(found: pd.DataFrame) -> str:
    """A label track of Audacity: begin and end in seconds and the label, tab-separated, without a header."""
    return "".join(
        f"{row.start_s:.6f}\t{row.end_s:.6f}\t{row.species} {row.probability:.2f}"
        f"{f' channel {row.channel}' if row.channel else ''}\n"
        for row in found.itertuples()
    )
