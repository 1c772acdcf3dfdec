"""Where a study is kept: Optuna's tables in an embedded SQLite file, or in a PostgreSQL that many machines share."""

from __future__ import annotations

import logging
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from watkins_ml.console import err
from watkins_ml.errors import UsageError, UserError, first_line

EMBEDDED = Path("runs") / "studies.db"
"""The embedded storage, used where neither --storage nor WATKINS_STORAGE names a database."""
PATIENCE = 900.0
"""Seconds that a study waits for its database to come back."""
CONNECTION = {
    "sqlite": {"timeout": 60},
    "postgresql": {
        "connect_timeout": 10,
        # a machine that lost its power must not hold the lock of a study for hours
        "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
    },
}

Result = TypeVar("Result")


def quieten_optuna() -> None:
    """Leave out what Optuna tells people who call it themselves."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
    logging.getLogger("alembic").setLevel(logging.ERROR)


class StudyDatabase:
    """One database of studies: Optuna's storage, a lock a study, and patience with a server that is away.

    Raises:
        UsageError: the URL is of another kind than SQLite or PostgreSQL.
        UserError: the database cannot be reached or its driver is not installed.
    """

    def __init__(self, url: str | None, heartbeat_seconds: int = 60):
        url = url or f"sqlite:///{EMBEDDED}"
        try:
            parsed = sqlalchemy.make_url(url)
            kind = parsed.get_backend_name()
        except SQLAlchemyError:
            example = "postgresql+psycopg://user@host/optuna"
            raise UsageError(f"--storage {url}: not a database URL such as {example}") from None
        if kind not in CONNECTION or (kind == "sqlite" and not parsed.database):
            raise UsageError(f"--storage {_public(parsed)}: must be a PostgreSQL database or a file (sqlite:///FILE)")
        self.name = _public(parsed)
        self._file = Path(parsed.database).resolve() if kind == "sqlite" else None
        self.url = url if self._file is None else f"sqlite:///{self._file}"
        self.healthy_since = time.monotonic()
        """When the database last came back from an absence that was noticed here."""
        quieten_optuna()
        self.storage = self._open(kind, heartbeat_seconds)
        event.listen(self.storage.engine, "do_connect", self._connect)

    def _open(self, kind: str, heartbeat_seconds: int) -> RDBStorage:
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._creation():
                return self._tables(kind, heartbeat_seconds)
        except ImportError:
            raise UserError(f"--storage {self.name}: driver is missing; pip install 'watkins-ml[service]'") from None
        except (SQLAlchemyError, StorageInternalError, RuntimeError, OSError) as error:
            raise UserError(f"--storage {self.name}: cannot be used ({_cause(error)})") from None

    def _tables(self, kind: str, heartbeat_seconds: int) -> RDBStorage:
        """Optuna's storage, which makes its tables if they are not there."""
        engine = {"connect_args": CONNECTION[kind], "pool_pre_ping": True}
        heartbeat = {"heartbeat_interval": heartbeat_seconds, "grace_period": 3 * heartbeat_seconds}
        try:
            return RDBStorage(self.url, engine, **heartbeat)
        except SQLAlchemyError as error:
            if "already exists" not in str(error):
                raise
            return RDBStorage(self.url, engine, **heartbeat)  # another program was making some of them just now

    @contextmanager
    def _creation(self) -> Iterator[None]:
        """Several commands that start at once make the tables one after the other."""
        if self._file is not None:
            with FileLock(f"{self._file}.lock"):
                yield
            return
        parameters = CONNECTION["postgresql"]
        engine = sqlalchemy.create_engine(self.url, connect_args=parameters, poolclass=sqlalchemy.NullPool)
        with _advisory_lock(engine, "watkins"):
            yield

    def _connect(self, dialect, record, arguments, parameters):
        """Connect as SQLAlchemy would, but wait for a server that does not answer now."""
        deadline = None
        while True:
            try:
                connection = dialect.connect(*arguments, **parameters)
            except dialect.loaded_dbapi.OperationalError as error:
                deadline = self._wait(error, deadline)
                continue
            if deadline is not None:
                err.print(f"Study database {self.name} is back")
                self.healthy_since = time.monotonic()
            return connection

    def _wait(self, error: Exception, deadline: float | None) -> float:
        if deadline is None:
            err.print(f"Study database {self.name} is away ({first_line(error)}); waiting for it", style="yellow")
            deadline = time.monotonic() + PATIENCE
        if time.monotonic() > deadline:
            raise error
        time.sleep(1.0)
        return deadline

    def again(self, operation: Callable[[], Result]) -> Result:
        """Do something with the database; once more where the server went away in the middle of it.

        Raises:
            UserError: it stays away.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return operation()
            except (DBAPIError, StorageInternalError) as error:
                if time.monotonic() > deadline:
                    raise UserError(f"--storage {self.name}: does not answer ({_cause(error)})") from None
                self.healthy_since = time.monotonic()
                time.sleep(1.0)

    @contextmanager
    def exclusive(self, study: str) -> Iterator[Callable[[], None]]:
        """Be the only process, on all machines, inside this block of this study.

        Yields:
            a function that raises if the lock was lost meanwhile, with the server that kept it.
        """
        if self._file is not None:
            with FileLock(f"{self._file}.lock"):
                yield lambda: None
            return
        with _advisory_lock(self.storage.engine, f"watkins {study}") as connection:
            yield lambda: connection.execute(text("SELECT 1"))


@contextmanager
def _advisory_lock(engine: sqlalchemy.Engine, name: str) -> Iterator[sqlalchemy.Connection]:
    """PostgreSQL's own lock of a session; it ends with the session, however that ends."""
    key = {"key": zlib.crc32(name.encode())}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        try:
            yield connection
        finally:
            if not connection.invalidated:
                try:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                except DBAPIError:  # the server went, and the lock with it
                    connection.invalidate()


def _public(url: sqlalchemy.URL) -> str:
    return url.render_as_string(hide_password=True)


def _cause(error: BaseException) -> str:
    """What the driver says, without SQLAlchemy's and Optuna's words around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(getattr(error, "orig", None) or error)
