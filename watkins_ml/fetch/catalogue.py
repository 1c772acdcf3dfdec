"""What is known of each cut besides its sound: place, date and note, from the release that has them.

Only the Hugging Face release of the full cuts carries them, in parquet files beside the audio; a column of such a
file is read by HTTP ranges, so that the table of all 15,248 cuts costs a few megabytes of the ten gigabytes.
"""

from __future__ import annotations

import datetime
import io
import os
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

import pyarrow
from pyarrow import parquet

from watkins_ml.errors import UserError, first_line
from watkins_ml.fetch.http import RangeFile, get_json

FULL_CUTS = "ivangtorre/watkins-marine-mammal-full-cuts"
HUB = "https://huggingface.co"
TEXT_COLUMNS = ("record_number", "observation_date", "location", "note")
READ_AHEAD_BYTES = 1 << 16


def hub() -> str:
    """The address of the Hugging Face Hub: `HF_ENDPOINT` as their own client takes it."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def read_catalogue() -> dict[str, dict[str, str]]:
    """Site, latitude, longitude, date and note of every full cut, by cut id.

    Raises:
        UserError: the hub is out of reach, or its files are not as they were.
    """
    name = "the catalogue of the full cuts"
    about = get_json(name, f"{hub()}/api/datasets/{FULL_CUTS}")
    try:
        version, files = about["sha"], sorted(one["rfilename"] for one in about["siblings"])
    except (TypeError, KeyError):
        raise UserError(f"{name}: {hub()} answers otherwise than expected") from None
    found: dict[str, dict[str, str]] = {}
    for file in files:
        if not file.endswith(".parquet"):
            continue
        url = f"{hub()}/datasets/{FULL_CUTS}/resolve/{version}/{quote(file)}"
        with open_parquet(file, io.BufferedReader(RangeFile(file, url), READ_AHEAD_BYTES)) as table:
            wanted = [column for column in TEXT_COLUMNS if column in table.schema_arrow.names]
            if "record_number" not in wanted:
                raise UserError(f"{name}: {file} has no column record_number")
            for one in table.read(columns=wanted, use_threads=False).to_pylist():
                found[str(one["record_number"]).upper()] = details(one)
    return found


def open_parquet(name: str, file: Any) -> parquet.ParquetFile:
    """A parquet file for reading; raises UserError with `name` for what is none."""
    try:
        return parquet.ParquetFile(file)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise UserError(f"{name}: not a sound parquet file ({first_line(error)})") from None


def details(one: Mapping[str, Any]) -> dict[str, str]:
    """Place, date and note of one row of the release; what it leaves open is an empty text."""
    location = one.get("location")
    location = location if isinstance(location, Mapping) else {"name": location}
    point = _first(location.get("coordinates"))
    point = point if isinstance(point, Mapping) else {}
    return {
        "site": _text(_first(location.get("name"))),
        "latitude": _text(point.get("lat")),
        "longitude": _text(point.get("lon")),
        "date": _text(one.get("observation_date")),
        "note": _text(one.get("note")),
    }


def _first(value: Any) -> Any:
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return next(iter(value), None) if many else value


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, datetime.datetime):
        value = value.date()
    return str(value).strip()
