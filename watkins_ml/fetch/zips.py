"""A release that is one zip of class folders: the Internet Archive's and Kaggle's."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from watkins_ml.core.console import progress
from watkins_ml.core.errors import plain
from watkins_ml.core.files import read_csv, write_json
from watkins_ml.fetch.catalogue import catalogue_if_reachable, read_catalogue
from watkins_ml.fetch.download import Remote, bytes_there, download_with_progress
from watkins_ml.fetch.layout import (
    COLUMNS,
    DETAILS,
    LONGEST_DETAIL,
    Folder,
    Offer,
    Seal,
    bytes_in,
    finish,
    require_room,
    row,
    write_table,
)
from watkins_ml.fetch.ranges import NoRangesError, RangeFile
from watkins_ml.fetch.recording_paths import RecordingPaths
from watkins_ml.fetch.species import find
from watkins_ml.fetch.unpack import open_zip, recordings_in, unpack_member

USUAL_RATIO = 1.6
"""Bytes of recordings a byte of zip: what 10.6 GB of cuts and their zip of 6.7 GB give."""


@dataclass(frozen=True)
class Member:
    """A recording in a zip: its file, the species as the release calls it, and the year where a folder tells it."""

    file: zipfile.ZipInfo
    spelling: str
    year: str


def members_of(name: str, archive: zipfile.ZipFile, archive_bytes: int) -> list[Member]:
    """The recordings of a checked zip that lie in a species folder, with or without folders of years in it."""
    found = []
    for file in recordings_in(name, archive, archive_bytes):
        folders = PurePosixPath(file.filename.replace("\\", "/")).parts[:-1]
        years = [folder for folder in folders if folder.isdigit()]
        named = [folder for folder in folders if not folder.isdigit()]
        if named:
            known = next((folder for folder in reversed(named) if find(folder)), named[-1])
            found.append(Member(file, plain(known, 100), years[-1][:4] if years else ""))
    return found


def unpacked_bytes(remote: Remote) -> int | None:
    """How much a zip on a server holds, from its directory at the end; None where the server gives no ranges.

    Raises:
        UserError: a hostile or damaged zip, before it was downloaded.
    """
    try:
        file = RangeFile(remote.name, remote.address(), remote.headers, remote.size)
    except NoRangesError:
        return None
    with open_zip(remote.name, file) as archive:
        return sum(member.file_size for member in recordings_in(remote.name, archive, file.size))


def offer_of_zip(remote: Remote, version: str) -> Offer:
    """A release that is one zip; raises as `unpacked_bytes`."""
    room = unpacked_bytes(remote)
    if room is None:
        room = round(USUAL_RATIO * (remote.size or 0))
    return Offer(version, remote.size, room, lambda folder, facts: fetch_zip(folder, remote, facts, room))


def fetch_zip(folder: Folder, remote: Remote, facts: dict[str, Any], room: int) -> Seal:
    """Download, verify and unpack a zip into the layout, with what the catalogue knows of its cuts.

    Args:
        facts: what the seal says of the release.
        room: bytes of recordings that it unpacks to.

    Raises:
        UserError: no room, or any fault of the download or the zip.
    """
    target = folder.work / "release.zip"
    unpacked = bytes_in(folder.staged)
    require_room(folder, max((remote.size or 0) - bytes_there(target), 0) + max(room - unpacked, 0))
    download_with_progress(remote, target, remote.name)
    catalogue, missing = catalogue_if_reachable()
    with open_zip(remote.name, target) as archive:
        members = members_of(remote.name, archive, target.stat().st_size)
        require_room(folder, max(sum(member.file.file_size for member in members) - unpacked, 0))
        rows = _unpack(folder, archive, members, catalogue)
    return finish(folder, pd.DataFrame(rows, columns=COLUMNS), facts | {"sites_missing": missing})


def _unpack(
    folder: Folder, archive: zipfile.ZipFile, members: list[Member], catalogue: dict[str, dict[str, str]]
) -> list[dict[str, str]]:
    places, rows = RecordingPaths(), []
    with progress() as bar:
        task = bar.add_task("Unpacking recordings", total=len(members), note="")
        for member in members:
            path = places.of(member.spelling, member.file.filename)
            unpack_member(archive, member.file, folder.staged / path)
            rows.append(row(path, member.spelling, details_of(path, catalogue, member.year)))
            bar.advance(task)
    return rows


def details_of(path: str, catalogue: dict[str, dict[str, str]], year: str = "") -> dict[str, str]:
    """What the catalogue says of a recording, found by its cut id; the year where it knows no date."""
    known = catalogue.get(Path(path).stem.partition("~")[0].upper(), {})
    return known | {"date": known.get("date") or year}


def add_sites(folder: Folder, seal: Seal) -> Seal:
    """Bring places, dates and notes into the table of a complete folder that was fetched without them.

    Raises:
        UserError: the catalogue is still out of reach.
    """
    catalogue = read_catalogue()
    rows = read_csv(folder.metadata, dtype=str, keep_default_na=False)
    known = [details_of(one.path, catalogue, one.date) for one in rows.itertuples()]
    for name in DETAILS:
        rows[name] = [plain(one.get(name, ""), LONGEST_DETAIL) for one in known]
    kept = ("release", "page", "version", "licence", "citation", "bytes", "other_scientific_names")
    new = write_table(folder.metadata, rows, {name: getattr(seal, name) for name in kept})
    write_json(folder.seal, new.model_dump())
    return new
