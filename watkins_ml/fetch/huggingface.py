"""The releases on the Hugging Face Hub: parquet files with the sound of every cut in them (extra `huggingface`).

Their own client lists the files and logs in. It begins a file anew after a kill and does not compare its checksum, so
the files come by `download`. Each becomes recordings and is removed before the next one comes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import pyarrow
from pyarrow import parquet

from watkins_ml.audio.decode import AUDIO_SUFFIXES
from watkins_ml.console import progress, transfer
from watkins_ml.errors import UserError, first_line
from watkins_ml.fetch.catalogue import FULL_CUTS, details, hub, open_parquet, read_catalogue
from watkins_ml.fetch.download import Remote, bytes_there, download
from watkins_ml.fetch.http import PASSING, PassingError, patiently
from watkins_ml.fetch.layout import CITATION, COLUMNS, LICENCE, Folder, Places, Seal, finish, require_room, row
from watkins_ml.fetch.release import Offer, Release
from watkins_ml.fetch.species import find
from watkins_ml.fetch.zips import details_of
from watkins_ml.files import write_bytes, write_csv

DATASETS = {"full": FULL_CUTS, "best-of": "confit/wmms-parquet"}
SPECIES_COLUMNS = ("display_name", "species", "label")
SHARD_COLUMNS = (*COLUMNS[:-2], "named_in_release", "scientific_name_in_release")
ROWS_AT_ONCE = 16
MAGIC = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff"}


def release(which: str = "full") -> Release:
    """`full`, the full cuts; `best-of`, the selection of 1,697 that most papers use."""
    dataset = DATASETS[which]
    page = f"https://huggingface.co/datasets/{dataset}"
    return Release(f"huggingface: {dataset}", page, LICENCE, CITATION, lambda: _look(dataset))


def _look(dataset: str) -> Offer:
    version, shards = _shards(dataset)
    size = sum(shard.size for shard in shards)
    return Offer(version, size, size, lambda folder, about: _run(folder, shards, dataset, about))


def _shards(dataset: str) -> tuple[str, list[Remote]]:
    """The newest revision of a data set and its parquet files, with sizes and checksums."""
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        package = (error.name or "a package").partition(".")[0]
        raise UserError(
            f"{package} is missing, which fetch huggingface needs; pip install 'watkins-ml[huggingface]'"
        ) from None

    def attempt() -> Any:
        try:
            return HfApi(endpoint=hub()).dataset_info(dataset, files_metadata=True, timeout=30)
        except HfHubHTTPError as error:
            if error.response.status_code in PASSING:
                raise PassingError(f"{hub()} answers {error.response.status_code}") from None
            raise UserError(f"{hub()}/datasets/{dataset} cannot be had ({first_line(error)})") from None
        except OfflineModeIsEnabled:
            raise UserError("HF_HUB_OFFLINE is set; unset it to fetch from the Hugging Face Hub") from None
        except HTTPError as error:
            raise PassingError(f"no answer from {hub()} ({first_line(error)})") from None

    about = patiently("the Hugging Face Hub", attempt)
    found = [one for one in about.siblings if one.rfilename.endswith(".parquet")]
    if not found or any(one.size is None for one in found):
        raise UserError(f"{hub()}/datasets/{dataset}: has no parquet files (any more); see its page")

    def remote(file: Any) -> Remote:
        url = hf_hub_url(dataset, file.rfilename, repo_type="dataset", revision=about.sha, endpoint=hub())
        checksum = f"sha256:{file.lfs.sha256}" if file.lfs else None
        headers = {name: value for name, value in build_hf_headers().items() if name.lower() == "authorization"}
        return Remote(file.rfilename, lambda: url, file.size, checksum, headers)

    return about.sha, [remote(file) for file in sorted(found, key=lambda one: one.rfilename)]


def _run(folder: Folder, shards: list[Remote], dataset: str, about: dict[str, str]) -> Seal:
    todo = [shard for shard in shards if not _rows_of(folder, shard).exists()]
    if todo:  # a shard and the recordings from it lie side by side
        there = sum(bytes_there(_target(folder, shard)) for shard in todo)
        sizes = [shard.size for shard in todo]
        require_room(folder, sum(sizes) + max(sizes) - there)
    missing, catalogue = "", {}
    if dataset != FULL_CUTS:
        try:
            catalogue = read_catalogue()
        except UserError as error:
            missing = str(error)
    tables: list[pd.DataFrame] = []
    for number, shard in enumerate(shards, start=1):
        rows, target = _rows_of(folder, shard), _target(folder, shard)
        if not rows.exists():
            _download(shard, target, f"file {number} of {len(shards)}")
            taken = (path for table in tables for path in table["path"])
            write_csv(rows, _convert(folder, shard.name, target, Places(taken), catalogue))
        target.unlink(missing_ok=True)
        tables.append(pd.read_csv(rows, dtype=str, keep_default_na=False))
    whole = pd.concat(tables, ignore_index=True)
    facts = {"sites_missing": missing, "other_scientific_names": _other_names(whole)}
    return finish(folder, whole, about | facts)


def _target(folder: Folder, shard: Remote) -> Path:
    return folder.work / shard.name.replace("/", "-")


def _rows_of(folder: Folder, shard: Remote) -> Path:
    """The table of a shard's recordings: written when all of them are there."""
    return folder.work / "rows" / (shard.name.replace("/", "-") + ".csv")


def _download(shard: Remote, target: Path, which: str) -> None:
    with transfer() as bar:
        task = bar.add_task(f"Downloading {which}", total=shard.size, completed=bytes_there(target))
        download(shard, target, lambda count: bar.update(task, completed=count))


def _convert(
    folder: Folder, name: str, shard: Path, places: Places, catalogue: dict[str, dict[str, str]]
) -> pd.DataFrame:
    """Write the recordings of a shard; their rows, with the scientific name that the release gives."""
    rows = []
    with open_parquet(name, shard) as table, progress() as bar:
        task = bar.add_task(f"Unpacking {name}", total=table.metadata.num_rows, note="")
        for one in _read(name, table):
            bar.advance(task)
            sound = one.get("audio") or {}
            if not sound.get("bytes"):
                continue
            spelling, file = one["spelling"], _file_name(one, sound)
            path = places.of(spelling, file)
            target = folder.staged / path
            if not target.exists() or target.stat().st_size != len(sound["bytes"]):
                write_bytes(target, sound["bytes"], durable=False)
            known = details(one) if "record_number" in one else details_of(path, catalogue)
            named = {"scientific_name_in_release": one.get("scientific_name") or ""}
            rows.append(row(path, spelling, known) | named)
    return pd.DataFrame(rows, columns=SHARD_COLUMNS)


def _read(name: str, table: parquet.ParquetFile) -> Iterator[dict[str, Any]]:
    """Rows as dictionaries, with the species' name as `spelling`."""
    columns = table.schema_arrow.names
    species = next((column for column in SPECIES_COLUMNS if column in columns), None)
    if species is None or "audio" not in columns:
        raise UserError(f"{name}: has no columns audio and species; its columns are {', '.join(columns)}")
    classes = _class_names(table.schema_arrow, species)
    try:
        for batch in table.iter_batches(batch_size=ROWS_AT_ONCE):
            for one in batch.to_pylist():
                value = one[species]
                yield one | {"spelling": classes[value] if isinstance(value, int) else str(value)}
    except (pyarrow.ArrowException, OSError, IndexError) as error:
        raise UserError(f"{name}: cannot be read ({first_line(error)}); remove it and fetch again") from None


def _class_names(schema: pyarrow.Schema, column: str) -> list[str]:
    """The names behind a column of class numbers, which the `datasets` library keeps in the file's own notes."""
    try:
        notes = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return list(notes["info"]["features"][column]["names"])
    except (ValueError, KeyError, TypeError):
        return []


def _file_name(one: Mapping[str, Any], sound: Mapping[str, Any]) -> str:
    """A cut id with the suffix of its format."""
    given = PurePosixPath(str(sound.get("path") or "").replace("\\", "/"))
    magic = next((suffix for sign, suffix in MAGIC.items() if sound["bytes"].startswith(sign)), ".wav")
    suffix = given.suffix.lower() if given.suffix.lower() in AUDIO_SUFFIXES else magic
    return f"{one.get('record_number') or given.stem or 'recording'}{suffix}"


def _other_names(rows: pd.DataFrame) -> dict[str, str]:
    """Scientific names of the release that are neither the table's nor an older name of the same species."""
    found = {}
    for spelling, named in rows[["named_in_release", "scientific_name_in_release"]].drop_duplicates().to_numpy():
        species = find(spelling)
        if species and named and named not in (species.scientific_name, *species.older_names):
            found[spelling] = named
    return found
