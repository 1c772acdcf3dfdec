"""The output of `watkins fetch`: a folder a species, a table of the recordings, and a seal that both are complete.

OUT/recordings/RissosDolphin/58004001.wav
OUT/metadata.csv     a row a recording: for `watkins prepare --metadata`
OUT/release.json     where it is from; written last, so without it nothing is complete
OUT/.fetch/          downloads and recordings until then
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError
from rich.filesize import decimal

from watkins_ml.core.errors import UsageError, UserError, plain
from watkins_ml.core.files import write_bytes, write_csv, write_json, write_text
from watkins_ml.core.wording import plural
from watkins_ml.dataset.prepare import DEFAULT_GROUP_REGEX
from watkins_ml.fetch.species import find

LICENCE = "free for personal and academic use, not for commercial use"
CITATION = (
    "Watkins Marine Mammal Sound Database, Woods Hole Oceanographic Institution and the New Bedford Whaling Museum"
)
DETAILS = ("site", "latitude", "longitude", "date", "note")
LONGEST_DETAIL = 1000
COLUMNS = ("path", "species", "scientific_name", "family", *DETAILS, "tape", "named_in_release")
WATKINS_ID = r"\d{5}[0-9A-Za-z]{3}(~\d+)?"
TAPE_RULES = {
    DEFAULT_GROUP_REGEX: WATKINS_ID,
    r"^(\d+_[A-Z]+_\d+)_": r"\d+_[A-Z]+_\d+_\d+(~\d+)?",
    r"^(.+?)(?:~\d+)?$": r".+",
}
"""`--group-regex` by the file names that it is right for: cut ids, numbered halves of cuts, and names without a
tape, where each recording counts as its own tape."""


class Seal(BaseModel):
    """The content of `release.json` in a complete folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    release: str
    page: str
    version: str
    licence: str
    citation: str
    recordings: int
    species: int
    tapes: int
    group_regex: str
    bytes: int
    with_site: int
    sites_missing: str = ""
    """Why the table has no sites, where that may be mended by running the command again."""
    unknown_species: tuple[str, ...] = ()
    """Folders of the release that `species.csv` does not have."""
    other_scientific_names: dict[str, str] = {}
    """What the release calls species otherwise than `species.csv`, older names aside."""


class Folder:
    """Paths inside one OUT."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self.recordings = self.root / "recordings"
        self.metadata = self.root / "metadata.csv"
        self.seal = self.root / "release.json"
        self.work = self.root / ".fetch"
        self.staged = self.work / "recordings"
        """Recordings until they are complete."""
        self.staged_seal = self.work / "release.json"
        """Written when everything is there and only has to be moved."""


@dataclass(frozen=True)
class Offer:
    """What a host has of a release, found out before anything is downloaded."""

    version: str
    """Another one makes a new release: what was fetched of the one before is dropped."""
    download_bytes: int | None
    recording_bytes: int
    run: Callable[[Folder, dict[str, Any]], Seal]
    """Fetches it into a folder that is this process's alone; takes what the seal records of the release."""


def read_seal(folder: Folder, release: str) -> Seal | None:
    """What is complete in a folder; None if nothing is yet.

    Raises:
        UsageError: the folder holds another release, or recordings that no `watkins fetch` has put there.
        UserError: some of its recordings were removed.
    """
    if folder.root.exists() and not folder.root.is_dir():
        raise UsageError(f"--out {folder.root}: a file; name a folder")
    if not folder.seal.exists():
        if folder.recordings.exists() and not folder.staged_seal.exists():
            raise UsageError(f"--out {folder.root}: has other recordings in it; choose another folder")
        return None
    seal = _parse(folder.seal)
    if seal.release != release:
        raise UsageError(f"--out {folder.root}: holds {seal.release}; choose another folder for {release}")
    found = sum(1 for path in folder.recordings.rglob("*") if path.is_file())
    if found < seal.recordings:
        raise UserError(
            f"{folder.recordings}: {seal.recordings - found:,} of {plural(seal.recordings, 'recording')} removed; "
            f"remove {folder.root} and fetch again"
        )
    return seal


@contextmanager
def working(folder: Folder, source: dict[str, str] | None) -> Iterator[None]:
    """The folder for this process alone; what an earlier call staged of another `source` is dropped.

    Raises:
        UserError: another `watkins fetch` is at work there.
    """
    folder.work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.work / "lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"--out {folder.root}: another watkins fetch is at work there; wait for it") from None
    try:
        if source is not None:
            _drop_other_sources(folder, source)
        yield
    finally:
        lock.release()
    if folder.seal.exists():
        shutil.rmtree(folder.work)


def _drop_other_sources(folder: Folder, source: dict[str, str]) -> None:
    note = folder.work / "source.json"
    if note.exists() and note.read_text(encoding="utf-8") == json.dumps(source):
        return
    for path in folder.work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()
    write_text(note, json.dumps(source))


def require_room(folder: Folder, needed: int) -> None:
    """Check the free disk space before the download begins.

    Raises:
        UserError: fewer than `needed` bytes, and a twentieth more, are free.
    """
    needed += needed // 20
    free = shutil.disk_usage(folder.root).free
    if free < needed:
        raise UserError(
            f"--out {folder.root}: needs {decimal(needed)} of free disk and has {decimal(free)}; make room or choose a "
            "folder on another disk, then run the same command again"
        )


def row(path: str, spelling: str, details: dict[str, str]) -> dict[str, str]:
    """A recording's row of the table, but for its tape: names from the table of species, the rest as published."""
    species = find(spelling)
    return {
        "path": path,
        "species": path.split("/")[0],
        "scientific_name": species.scientific_name if species else "",
        "family": species.family if species else "",
        **{name: plain(str(details.get(name) or ""), LONGEST_DETAIL) for name in DETAILS},
        "named_in_release": spelling,
    }


def tape_rule(paths: pd.Series) -> str:
    """The `--group-regex` that finds the tape in these files' names."""
    stems = paths.str.rpartition("/")[2].str.rpartition(".")[0]
    return next(rule for rule, fits in TAPE_RULES.items() if stems.str.fullmatch(fits).all())


def finish(folder: Folder, rows: pd.DataFrame, facts: dict[str, Any]) -> Seal:
    """Put the staged recordings and their table (`row`s) where they belong, and seal them; `facts` go into the seal.

    Raises:
        UserError: there is no recording.
    """
    if rows.empty:
        raise UserError(f"{facts['release']}: has no recordings in species folders; see {facts['page']}")
    wanted = set(rows["path"])
    for file in list(folder.staged.rglob("*")):
        if file.is_file() and file.relative_to(folder.staged).as_posix() not in wanted:  # half-written by a killed call
            file.unlink()
    seal = write_table(folder.metadata, rows, facts | {"bytes": bytes_in(folder.staged)})
    write_json(folder.staged_seal, seal.model_dump())
    return complete(folder)


def write_table(path: Path, rows: pd.DataFrame, facts: dict[str, Any]) -> Seal:
    """Write the metadata table; the seal that describes it."""
    rule = tape_rule(rows["path"])
    stems = rows["path"].str.rpartition("/")[2].str.rpartition(".")[0]
    rows = rows.assign(tape=stems.map(lambda stem: _tape(rule, stem))).sort_values("path", ignore_index=True)
    write_csv(path, rows[list(COLUMNS)])
    return Seal(
        **facts,
        recordings=len(rows),
        species=int(rows["species"].nunique()),
        tapes=int(rows["tape"].nunique()),
        group_regex=rule,
        with_site=int((rows["site"] != "").sum()),
        unknown_species=tuple(sorted(rows.loc[rows["scientific_name"] == "", "named_in_release"].unique())),
    )


def _tape(rule: str, stem: str) -> str:
    match = re.search(rule, stem)
    assert match is not None  # each rule matches every name
    return match[match.re.groups and 1]


def complete(folder: Folder) -> Seal:
    """Move what is staged and complete; after a kill in between the next call continues."""
    if folder.staged.exists():
        os.replace(folder.staged, folder.recordings)
    write_bytes(folder.seal, folder.staged_seal.read_bytes())
    return _parse(folder.seal)


def _parse(path: Path) -> Seal:
    try:
        return Seal.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path}: cannot be read; remove the folder and fetch again") from None


def bytes_in(root: Path) -> int:
    """What the files in a folder take; 0 where there is none."""
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
