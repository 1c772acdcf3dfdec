"""Storage of studies: Optuna's tables in an embedded SQLite file, or in a PostgreSQL that many machines share."""

from __future__ import annotations

import logging
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event, text
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from watkins_ml.core.console import err
from watkins_ml.core.errors import ResourceError, UsageError, UserError, first_line
from watkins_ml.core.masking import masked

EMBEDDED = Path("runs") / "studies.db"
"""The embedded storage, used where neither --storage nor WATKINS_STORAGE names a database."""
TIMEOUT_SECONDS = 900.0
"""So long a study waits for an unavailable database."""
RETRY_SECONDS = 1.0
CREATE_ATTEMPTS = 10
"""So often tables are created again where other programs create them at the same moment."""
CONNECTION = {
    "sqlite": {"timeout": 60},
    "postgresql": {
        "connect_timeout": 10,
        # without these a lost host would be noticed after hours, and hold the lock of a study as long
        "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000,
        "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3",
    },
}  # fmt: skip
UNAVAILABLE = ("terminating connection", "server closed the connection", "connection failed", "onnection refused",
               "the database system is", "connection is closed", "consuming input failed",
               "onnection timed out")  # fmt: skip
"""Parts of a driver's messages about a server that stops or starts."""
TRANSIENT = ("database is locked", "deadlock detected", "could not serialize")
"""Parts of the messages of a busy database."""

Result = TypeVar("Result")


def quieten_optuna() -> None:
    """Silence Optuna's messages for people who call it directly."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed")
    logging.getLogger("alembic").setLevel(logging.ERROR)


class DatabaseUnavailableError(ResourceError):
    """The database of a study was unavailable for longer than a study waits."""


class StudyDatabase:
    """One database of studies: Optuna's storage, a lock a study, and retries while a server is unavailable.

    Raises:
        UsageError: the URL is of another kind than SQLite or PostgreSQL.
        UserError: the database cannot be reached or its driver is not installed.
    """

    def __init__(self, url: str | None, heartbeat_seconds: int = 60):
        url = url or f"sqlite:///{EMBEDDED}"
        try:
            parsed = sqlalchemy.make_url(url)
            kind = parsed.get_backend_name()
        except (SQLAlchemyError, ValueError):  # ValueError: a port that is no number
            example = "postgresql+psycopg://user@host/optuna"
            named = masked(url) if "://" in url else "(or WATKINS_STORAGE)"  # a password could not be recognised
            raise UsageError(f"--storage {named}: not a database URL such as {example}") from None
        if "@" in (parsed.host or ""):
            raise UsageError(f"--storage {masked(url)}: write @ in the password as %40")
        if kind not in CONNECTION or (kind == "sqlite" and not parsed.database):
            raise UsageError(f"--storage {masked(url)}: must be a PostgreSQL database or a file (sqlite:///FILE)")
        self.name = masked(url)
        self._file = Path(parsed.database).resolve() if kind == "sqlite" and parsed.database else None
        self.url = url if self._file is None else f"sqlite:///{self._file}"
        self._is_unavailable = False
        self.healthy_since = time.monotonic()
        """When the database was last seen to be available again."""
        quieten_optuna()
        self.storage = self._open(kind, heartbeat_seconds)
        event.listen(self.storage.engine, "do_connect", self._connect)

    def _open(self, kind: str, heartbeat_seconds: int) -> RDBStorage:
        try:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
            # no pool: between two epochs a worker holds no connection, so that hundreds share a server's hundred
            engine: dict[str, Any] = {"connect_args": CONNECTION[kind], "poolclass": sqlalchemy.NullPool}
            with self._lock(sqlalchemy.create_engine(self.url, **engine), "watkins"):  # one command after the other
                return self._tables(engine, heartbeat_seconds)
        except ImportError:
            raise UserError(f"--storage {self.name}: driver is missing; pip install 'watkins-ml[service]'") from None
        except (SQLAlchemyError, StorageInternalError, RuntimeError, OSError) as error:
            raise UserError(f"--storage {self.name}: cannot be used ({_cause(error)})") from None

    def _tables(self, engine: dict[str, Any], heartbeat_seconds: int) -> RDBStorage:
        """Optuna's storage, which makes its tables if they are not there."""
        template = self.url.replace("{", "{{").replace("}", "}}")  # Optuna fills in its schema's version

        attempts = 0
        while True:
            try:
                return RDBStorage(
                    template, engine, heartbeat_interval=heartbeat_seconds, grace_period=3 * heartbeat_seconds
                )
            except SQLAlchemyError as error:
                attempts += 1
                created_meanwhile = isinstance(error, IntegrityError) or "already exists" in str(error)
                if not created_meanwhile or attempts > CREATE_ATTEMPTS:
                    raise
                time.sleep(0.2)  # another program, such as Optuna's dashboard, was creating some of them

    def _connect(self, dialect: Any, record: Any, arguments: Any, parameters: Any) -> Any:
        """Connect as SQLAlchemy would, but wait for a server that does not answer."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                connection = dialect.connect(*arguments, **parameters)
            except dialect.loaded_dbapi.OperationalError as error:
                if time.monotonic() > deadline:
                    raise
                self._wait(error)
                continue
            if self._is_unavailable:
                self._is_unavailable = False
                err.print(f"Study database {self.name} is available again")
            return connection

    def _wait(self, error: BaseException) -> None:
        if not self._is_unavailable:
            self._is_unavailable = True
            err.print(
                f"Study database {self.name} is unavailable ({first_line(error)}); waiting for it", style="yellow"
            )
        time.sleep(RETRY_SECONDS)
        self.healthy_since = time.monotonic()

    def retry(self, operation: Callable[[], Result]) -> Result:
        """Run `operation` on the database, again where the connection broke or the database was busy.

        Raises:
            DatabaseUnavailableError: it stays unavailable.
            ResourceError: it cannot write: read only, no permission, full disk.
        """
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while True:
            try:
                return operation()
            except (DBAPIError, StorageInternalError) as error:
                if not _is_transient(error):
                    raise ResourceError(f"--storage {self.name}: {_cause(error)}") from None
                if time.monotonic() > deadline:
                    raise DatabaseUnavailableError(
                        f"--storage {self.name}: does not answer ({_cause(error)})"
                    ) from None
                self.healthy_since = time.monotonic()
                time.sleep(RETRY_SECONDS)

    @contextmanager
    def exclusive(self, study: str) -> Iterator[Callable[[], None]]:
        """Hold this study's lock, which excludes all other processes on all machines.

        Yields:
            a function that raises if the lock was lost meanwhile, together with its server.
        """
        with self._lock(self.storage.engine, f"watkins {study}") as assert_still_exclusive:
            yield assert_still_exclusive

    @contextmanager
    def _lock(self, engine: sqlalchemy.Engine, name: str) -> Iterator[Callable[[], None]]:
        """As `exclusive`: the lock of this name in PostgreSQL, or the one lock of an SQLite file."""
        if self._file is not None:
            with FileLock(f"{self._file}.lock"):
                yield lambda: None
            return
        with _advisory_lock(engine, name) as connection:
            yield lambda: connection.execute(text("SELECT 1")).close()


@contextmanager
def _advisory_lock(engine: sqlalchemy.Engine, name: str) -> Iterator[sqlalchemy.Connection]:
    """PostgreSQL's advisory lock, which ends with its session."""
    key = {"key": zlib.crc32(name.encode())}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
        try:
            yield connection
        finally:
            if not connection.invalidated:
                try:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                except DBAPIError:  # the session ended, and the lock with it
                    connection.invalidate()


def _is_transient(error: BaseException) -> bool:
    """Whether an error may not occur again: the connection broke, or the database was busy."""
    first = _first(error)
    lost = isinstance(first, DBAPIError) and first.connection_invalidated
    return lost or any(sign in str(first) for sign in (*TRANSIENT, *UNAVAILABLE))


def _cause(error: BaseException) -> str:
    """The driver's message, without what SQLAlchemy and Optuna add."""
    error = _first(error)
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def _first(error: BaseException) -> BaseException:
    """The first database error behind `error`, or `error` itself.

    After one, Optuna reads the trials once more in the same transaction, and reports that this failed.
    """
    first = error
    earlier: BaseException | None = error
    while earlier is not None:
        if isinstance(earlier, DBAPIError):
            first = earlier
        earlier = earlier.__cause__ or (None if earlier.__suppress_context__ else earlier.__context__)
    return first
