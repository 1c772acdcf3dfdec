"""The releases on the Hugging Face Hub: parquet files with the sound of every cut in them (extra `huggingface`).

Their own client logs in. It takes lists of any length, begins a file anew after a kill and does not compare its
checksum, so lists come by `get_json` and files by `download`. Each becomes recordings and is removed before the next
one comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from watkins_ml.audio.formats import AUDIO_SUFFIXES
from watkins_ml.core.console import progress
from watkins_ml.core.errors import UserError, plain
from watkins_ml.core.files import read_csv, write_bytes, write_csv
from watkins_ml.fetch.catalogue import (
    FULL_CUTS,
    MOST_ROWS,
    TEXT_COLUMNS,
    catalogue_if_reachable,
    details,
    hub,
    list_parquet,
    open_parquet,
    text_of,
)
from watkins_ml.fetch.download import MOST_BYTES, Remote, bytes_there, download_with_progress
from watkins_ml.fetch.layout import COLUMNS, Folder, Offer, Seal, finish, require_room, row
from watkins_ml.fetch.recording_paths import RecordingPaths
from watkins_ml.fetch.release import Release
from watkins_ml.fetch.species import find
from watkins_ml.fetch.zips import details_of

DATASETS = {"full": FULL_CUTS, "best-of": "confit/wmms-parquet"}
SPECIES_COLUMNS = ("display_name", "species", "label")
SHARD_COLUMNS = (*COLUMNS[:-2], "named_in_release", "scientific_name_in_release")
ROWS_AT_ONCE = 4
MOST_RATIO = 5
"""How many times its size a file's recordings may have: a column may say the same one again and again."""
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff"}


def release(which: str = "full") -> Release:
    """`full`, the full cuts; `best-of`, the selection of 1,697 that most papers use."""
    dataset = DATASETS[which]
    page = f"https://huggingface.co/datasets/{dataset}"
    return Release(f"huggingface: {dataset}", page, lambda: _look(dataset))


def _look(dataset: str) -> Offer:
    version, shards = _shards(dataset)
    size = sum(shard.size or 0 for shard in shards)
    if size > MOST_BYTES:
        raise UserError(f"{hub()}/datasets/{dataset}: announces {size:,} bytes; no release of the archive has so many")
    return Offer(version, size, size, lambda folder, about: _run(folder, shards, dataset, about))


def _shards(dataset: str) -> tuple[str, list[Remote]]:
    """The newest revision of a data set and its parquet files, with sizes and checksums."""
    try:
        from huggingface_hub.constants import HF_HUB_OFFLINE
        from huggingface_hub.utils import build_hf_headers
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise UserError(
            f"{package} is missing, which fetch huggingface needs; pip install 'watkins-ml[huggingface]'"
        ) from None
    if HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set; unset it to fetch from the Hugging Face Hub")
    headers = {name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"}
    version, found = list_parquet("the Hugging Face Hub", dataset, headers)
    if not found or any(one.size is None for one in found):
        raise UserError(f"{hub()}/datasets/{dataset}: has no parquet files (any more); see its page")
    return version, found


def _run(folder: Folder, shards: list[Remote], dataset: str, about: dict[str, str]) -> Seal:
    todo = {number: shard for number, shard in enumerate(shards, start=1) if not _rows_of(folder, number).exists()}
    if todo:  # a shard and the recordings from it lie side by side
        there = sum(bytes_there(_target(folder, number)) for number in todo)
        sizes = [shard.size or 0 for shard in todo.values()]
        require_room(folder, sum(sizes) + max(sizes) - there)
    catalogue, missing = ({}, "") if dataset == FULL_CUTS else catalogue_if_reachable()
    tables: list[pd.DataFrame] = []
    for number, shard in enumerate(shards, start=1):
        rows, target = _rows_of(folder, number), _target(folder, number)
        if not rows.exists():
            download_with_progress(shard, target, f"file {number} of {len(shards)}")
            taken = (path for table in tables for path in table["path"])
            write_csv(rows, _convert(folder, shard.name, target, RecordingPaths(taken), catalogue))
        target.unlink(missing_ok=True)
        tables.append(read_csv(rows, dtype=str, keep_default_na=False))
        if sum(map(len, tables)) > MOST_ROWS:
            raise UserError(f"{about['release']}: more than {MOST_ROWS:,} recordings; this is not the archive")
    whole = pd.concat(tables, ignore_index=True)
    facts = {"sites_missing": missing, "other_scientific_names": _other_names(whole)}
    return finish(folder, whole, about | facts)


def _target(folder: Folder, number: int) -> Path:
    """Where a file lies; by its number, as its name is the host's."""
    return folder.work / f"{number:05d}.parquet"


def _rows_of(folder: Folder, number: int) -> Path:
    """The table of a file's recordings: written when all of them are there."""
    return folder.work / "rows" / f"{number:05d}.csv"


def _convert(
    folder: Folder, name: str, shard: Path, places: RecordingPaths, catalogue: dict[str, dict[str, str]]
) -> pd.DataFrame:
    """Write the recordings of a shard; their rows, with the scientific name that the release gives."""
    rows, left = [], MOST_RATIO * shard.stat().st_size
    with open_parquet(name, shard) as table, progress() as bar:
        task = bar.add_task(f"Unpacking {name}", total=table.metadata.num_rows, note="")
        for one in _read(name, table):
            bar.advance(task)
            sound = one["audio"]
            if not sound or not sound["bytes"]:
                continue
            left -= len(sound["bytes"])
            if left < 0:
                raise UserError(f"{name}: unpacks to more than {MOST_RATIO} times its size; this is no release")
            spelling, file = one["spelling"], _file_name(one, sound)
            path = places.of(spelling, file)
            target = folder.staged / path
            if not target.exists() or target.stat().st_size != len(sound["bytes"]):
                write_bytes(target, sound["bytes"], durable=False)
            known = details(one) if "record_number" in one else details_of(path, catalogue)
            named = {"scientific_name_in_release": text_of(one.get("scientific_name"))}
            rows.append(row(path, spelling, known) | named)
    return pd.DataFrame(rows, columns=SHARD_COLUMNS)


def _read(name: str, table: parquet.ParquetFile) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries, with the species' name as `spelling`."""
    schema = table.schema_arrow
    species = next((column for column in SPECIES_COLUMNS if column in schema.names), None)
    if species is None or "audio" not in schema.names:
        columns = plain(", ".join(schema.names))
        raise UserError(f"{name}: has no columns audio and species; its columns are {columns}")
    sound = schema.field("audio").type
    if not pyarrow.types.is_struct(sound) or not pyarrow.types.is_binary(sound.field("bytes").type):
        raise UserError(f"{name}: its column audio holds no files")
    classes = _class_names(schema, species)
    wanted = [column for column in ("audio", species, "scientific_name", *TEXT_COLUMNS) if column in schema.names]
    for batch in table.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted, use_threads=False):
        for one in batch.to_pylist():
            value = one[species]
            number = isinstance(value, int) and not isinstance(value, bool)
            if number and not 0 <= value < len(classes):
                raise UserError(f"{name}: cannot be read (its notes have no species {value}); see the release's page")
            yield one | {"spelling": plain(str(classes[value] if number else value), 100)}


def _class_names(schema: pyarrow.Schema, column: str) -> list[str]:
    """The names behind a column of class numbers, which the `datasets` library keeps in the file's own notes."""
    try:
        notes = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return [str(one) for one in notes["info"]["features"][column]["names"]][:MOST_ROWS]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def _file_name(one: Mapping[str, Any], sound: Mapping[str, Any]) -> str:
    """A cut id with the suffix of its format."""
    given = PurePosixPath(text_of(sound.get("path")).replace("\\", "/"))
    magic = next((suffix for sign, suffix in MAGIC.items() if sound["bytes"].startswith(sign)), ".wav")
    suffix = given.suffix.lower() if given.suffix.lower() in AUDIO_SUFFIXES else magic
    return f"{text_of(one.get('record_number')) or given.stem or 'recording'}{suffix}"


def _other_names(rows: pd.DataFrame) -> dict[str, str]:
    """Scientific names of the release that are neither the table's nor an older name of the same species."""
    found = {}
    for spelling, named in rows[["named_in_release", "scientific_name_in_release"]].drop_duplicates().to_numpy():
        species = find(spelling)
        if species and named and named not in (species.scientific_name, *species.older_names):
            found[spelling] = named
    return found
