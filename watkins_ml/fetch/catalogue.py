"""What is known of each cut besides its sound: place, date and note, from the release that has them.

Only the Hugging Face release of the full cuts carries them, in parquet files beside the audio; a column of such a
file is read by HTTP ranges, so that the table of all 15,248 cuts costs a few megabytes of the ten gigabytes.
"""

from __future__ import annotations

import datetime
import errno
import io
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import pyarrow
from pyarrow import parquet

from watkins_ml.core.errors import UserError, first_line, plain
from watkins_ml.core.masking import masked
from watkins_ml.core.memory import at_most
from watkins_ml.fetch.download import Remote
from watkins_ml.fetch.http import get_json, whole_number
from watkins_ml.fetch.ranges import MOST_S, RangeFile

FULL_CUTS = "ivangtorre/watkins-marine-mammal-full-cuts"
HUB = "https://huggingface.co"
TEXT_COLUMNS = ("record_number", "observation_date", "location", "note")
READ_AHEAD_BYTES = 1 << 16
ROWS_AT_ONCE = 1000
MOST_ROWS = 50_000
"""Of one release; the full cuts are 15,248."""
MOST_FILES = 500
MOST_MEMORY_BYTES = 2 << 30
"""A page of a parquet file may unpack to thousands of times its size."""
MOST_FOOTER_BYTES = 16_000_000


def hub() -> str:
    """The address of the Hugging Face Hub: `HF_ENDPOINT` as their own client takes it."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def list_parquet(name: str, dataset: str, headers: Mapping[str, str] | None = None) -> tuple[str, list[Remote]]:
    """The newest revision of a data set and its parquet files, by name; the Hub's answer is validated.

    Raises:
        UserError (which begins with `name`): the Hub is out of reach, or answers otherwise than expected.
    """
    about = get_json(name, f"{hub()}/api/datasets/{dataset}?blobs=true", headers)
    try:
        version = about["sha"]
        files = {one["rfilename"]: one for one in about["siblings"] if one["rfilename"].endswith(".parquet")}
        if not re.fullmatch(r"[\w.-]{1,64}", version, re.ASCII) or len(files) > MOST_FILES:
            raise ValueError("no revision, or a list without end")
        found = []
        for file, one in sorted(files.items()):
            url = f"{hub()}/datasets/{dataset}/resolve/{version}/{quote(file)}"
            sha256 = (one.get("lfs") or {}).get("sha256")
            checksum = sha256 and f"sha256:{sha256.lower()}"
            found.append(Remote(file, partial(str, url), whole_number(one.get("size")), checksum, headers or {}))
    except (TypeError, KeyError, AttributeError, ValueError):
        raise UserError(f"{name}: {hub()} answers otherwise than expected") from None
    return version, found


def read_catalogue() -> dict[str, dict[str, str]]:
    """Site, latitude, longitude, date and note of every full cut, by cut id.

    Raises:
        UserError: the hub is out of reach, or its files are not as they were.
    """
    name = "the catalogue of the full cuts"
    found: dict[str, dict[str, str]] = {}
    end = time.monotonic() + MOST_S
    for one in list_parquet(name, FULL_CUTS)[1]:
        file = io.BufferedReader(RangeFile(one.name, one.address(), size=one.size), READ_AHEAD_BYTES)
        with open_parquet(one.name, file) as table:
            columns = [column for column in TEXT_COLUMNS if column in table.schema_arrow.names]
            if "record_number" not in columns:
                raise UserError(f"{name}: {one.name} has no column record_number")
            for row in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=columns, use_threads=False):
                for cut in row.to_pylist():
                    found[text_of(cut["record_number"]).upper()] = details(cut)
        if len(found) > MOST_ROWS:
            raise UserError(f"{name}: more than {MOST_ROWS:,} cuts; this is not the archive")
        if time.monotonic() > end:
            raise UserError(f"{name}: takes longer than {MOST_S / 60:.0f} minutes; it is given up")
    return found


def catalogue_if_reachable() -> tuple[dict[str, dict[str, str]], str]:
    """As `read_catalogue`; an empty one with the reason where that fails, since recordings are of use without it."""
    try:
        return read_catalogue(), ""
    except UserError as error:
        return {}, masked(str(error))


@contextmanager
def open_parquet(name: str, file: Any) -> Iterator[parquet.ParquetFile]:
    """A parquet file for reading, with no more memory than its text or a few recordings of it need.

    Raises:
        UserError (which begins with `name`): it is none, is damaged, or needs more.
    """
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())  # the others take address space in advance
    try:
        with (
            at_most(MOST_MEMORY_BYTES),
            parquet.ParquetFile(
                file,
                buffer_size=1 << 20,
                thrift_string_size_limit=MOST_FOOTER_BYTES,
                thrift_container_size_limit=100_000,
            ) as table,
        ):
            if table.metadata.num_rows > MOST_ROWS:
                raise UserError(f"{name}: {table.metadata.num_rows:,} rows, more than {MOST_ROWS:,}; it is no release")
            yield table
    except MemoryError:
        raise UserError(f"{name}: needs more than {MOST_MEMORY_BYTES >> 30} GB of memory; this is no release") from None
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # of the disk, to which rows go
            raise
        raise UserError(f"{name}: not a sound parquet file ({first_line(error)})") from None


def details(one: Mapping[str, Any]) -> dict[str, str]:
    """Place, date and note of one row of the release; what it leaves open is an empty text."""
    location = one.get("location")
    location = location if isinstance(location, Mapping) else {"name": location}
    point = _first(location.get("coordinates"))
    point = point if isinstance(point, Mapping) else {}
    return {
        "site": text_of(_first(location.get("name"))),
        "latitude": text_of(point.get("lat")),
        "longitude": text_of(point.get("lon")),
        "date": text_of(one.get("observation_date")),
        "note": text_of(one.get("note")),
    }


def _first(value: Any) -> Any:
    many = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return next(iter(value), None) if many else value


def text_of(value: Any) -> str:
    """A value of a table as a short text without control characters; empty where there is none."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, datetime.datetime):
        value = value.date()
    return plain(str(value), 1000)
