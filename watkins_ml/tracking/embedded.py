"""The embedded store: an SQLite database with its artifacts beside it, wherever their folder lies today.

MLflow keeps the location of every artifact as an absolute address. A project folder may be moved, copied or mounted
elsewhere, so these addresses are corrected whenever the store is opened at a new place.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from watkins_ml.core.errors import UserError
from watkins_ml.core.names import file_name

EMBEDDED = Path("mlflow")
"""Folder of the embedded store, used where MLFLOW_TRACKING_URI names no server."""
LOCATIONS = {
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}
"""Tables and columns in which MLflow keeps where artifacts are, beside those of experiments."""
LOCK_TIMEOUT_SECONDS = 60.0
"""Seconds to wait for another process that writes to the database."""


def embedded_uri(folder: Path = EMBEDDED) -> str:
    """The address of the store in a folder.

    Raises:
        UserError: its path has a character that a database address cannot hold.
    """
    path = str(folder.resolve() / "mlflow.db")
    if "?" in path or unquote(path) != path:
        raise UserError(
            f"{folder.resolve()}: the store cannot lie below a folder with ? or % and two digits in its name; "
            "rename that folder, or set MLFLOW_TRACKING_URI"
        )
    return f"sqlite:///{path}"


def is_embedded(uri: str) -> bool:
    return uri.startswith("sqlite:")


def database_file(uri: str) -> Path:
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).resolve()


def artifact_folder(uri: str) -> Path:
    """Where an embedded store keeps artifacts: beside its database file."""
    return database_file(uri).parent / "artifacts"


def quieten() -> None:
    """Leave out hints for people who call MLflow themselves."""
    warnings.filterwarnings("ignore", module="mlflow")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what is raised as well


def open_embedded_store(uri: str) -> str:
    """Create the store if there is none, correct its locations, and return the address to open it by.

    That is `uri`, or a copy that refuses to be written where the store cannot be and was moved.

    Raises:
        SQLAlchemyError: it is damaged, or busy for longer than LOCK_TIMEOUT_SECONDS.
    """
    database, here = database_file(uri), artifact_folder(uri).as_uri()
    try:
        if not database.exists():
            _create(database, here)
        _relocate(database, here)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_READONLY:
            return _read_only_copy(database, here)
        raise SQLAlchemyError(str(error)) from error  # as MLflow would, when it came to it
    return uri


def _create(database: Path, artifacts: str) -> None:
    """Create the database atomically; MLflow refuses one whose creation was interrupted."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    quieten()
    (database.parent / "artifacts").mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(".making.lock")):
        if database.exists():  # another process was faster
            return
        scratch = database.with_name(".making")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        store = SqlAlchemyStore(f"sqlite:///{scratch / database.name}", artifacts)
        store.engine.dispose()
        os.replace(scratch / database.name, database)
        shutil.rmtree(scratch)


def _relocate(database: Path, here: str) -> None:
    """Point all locations below the places where this store lay before to `here`, in one transaction."""
    with closing(sqlite3.connect(database, timeout=LOCK_TIMEOUT_SECONDS, isolation_level=None)) as connection:
        if not list(_relocations(connection, here)):
            return
        connection.execute("BEGIN IMMEDIATE")
        for table, column, row, location in list(_relocations(connection, here)):
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (location, row))
        connection.execute("COMMIT")


def _relocations(connection: sqlite3.Connection, here: str) -> Iterator[tuple[str, str, int, str]]:
    """Table, column and row of each location to be changed, and what it becomes.

    What lies at a former place and not here stays as it is: an earlier version went on writing there after a move.
    """
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
        return
    for old in _former_places(connection, here):
        found = connection.execute("SELECT rowid, artifact_location FROM experiments")
        yield from (("experiments", "artifact_location", row, at) for row, at in _replaced(found, old, here))
        for table, columns in LOCATIONS.items():
            known = {column[1] for column in connection.execute(f"PRAGMA table_info({table})")}
            for column in known.intersection(columns):
                found = connection.execute(f"SELECT rowid, {column} FROM {table}")
                for row, at in _replaced(found, old, here):
                    if _path(at).exists() or not _path(old + at.removeprefix(here)).exists():
                        yield table, column, row, at


def _replaced(found: Iterator[tuple[int, str | None]], old: str, here: str) -> Iterator[tuple[int, str]]:
    for row, location in found:
        if location is not None and location.startswith(f"{old}/"):
            yield row, here + location.removeprefix(old)


def _former_places(connection: sqlite3.Connection, here: str) -> set[str]:
    """Where the artifacts of this store have been: an experiment's are in the folder of its name, or of its number.

    A location that only looks like one, such as an experiment's own folder on another disk, is left as it is.
    """
    places = set()
    for number, name, location in connection.execute("SELECT experiment_id, name, artifact_location FROM experiments"):
        for last in (name, file_name(name), str(number)):
            end = (Path("/artifacts") / last).as_uri().removeprefix("file://")
            if not (location or "").startswith("file:///") or not location.endswith(end):
                continue
            place = location.removesuffix(end) + "/artifacts"
            is_own = number == 0 or _path(location.replace(place, here)).exists() or not _path(location).exists()
            if end.startswith("/artifacts/") and place != here and is_own:
                places.add(place)
    return places


def _path(uri: str) -> Path:
    return Path(unquote(urlsplit(uri).path))


@cache
def _read_only_copy(database: Path, here: str) -> str:
    """For a store that cannot be written and lies elsewhere than it says: a copy that only this process reads."""
    folder = Path(tempfile.mkdtemp(prefix="watkins-store-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / database.name
    shutil.copyfile(database, copy)
    _relocate(copy, here)
    with open(copy, "r+b") as file:  # a format version that SQLite reads but never writes: what were sent would be lost
        file.seek(18)
        file.write(b"\x03")
    return f"sqlite:///{copy}"
