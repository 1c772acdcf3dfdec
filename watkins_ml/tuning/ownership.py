"""Which worker of this machine has which trial, by files beside the trials' run directories."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from watkins_ml.core.files import write_text


class TrialLocks:
    """One lock a trial, held by its worker, and a marker file that a killed worker leaves behind."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.place = _place(folder)
        """Identifies the folder wherever it is mounted; processes that share it share the locks."""

    def acquire(self, run: str) -> FileLock:
        """Take the lock of a trial that no worker has; the kernel releases it however the worker ends."""
        lock = self._lock(run)
        lock.acquire()
        return lock

    def mark(self, run: str) -> None:
        """Write the marker; a worker that is killed leaves it behind."""
        self._marker(run).write_text(_command(), encoding="utf-8")

    def release(self, run: str, lock: FileLock) -> None:
        """Release a trial. Needs neither disk space nor the database, since either may have failed."""
        with suppress(OSError):
            self._marker(run).unlink(missing_ok=True)
        lock.release()

    def is_free(self, run: str) -> bool:
        """Whether no worker has the trial."""
        lock = self._lock(run)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def was_abandoned(self, run: str) -> bool:
        """Whether the worker released the trial before it ended, or was killed together with its command."""
        try:
            return not _is_alive(self._marker(run).read_text(encoding="utf-8"))
        except OSError:
            return True

    def _lock(self, run: str) -> FileLock:
        return FileLock(self.folder / f".{run}.lock")

    def _marker(self, run: str) -> Path:
        return self.folder / f".{run}.working"


def _place(folder: Path) -> str:
    """The folder's identifier, created by the first process that uses it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".place"
    with FileLock(folder / ".place.lock"):
        if not file.exists() or not file.read_text():
            write_text(file, uuid.uuid4().hex)
        return file.read_text()


def _command() -> str:
    """The process of this worker's command; its start time distinguishes it from a later process of the same id."""
    process = psutil.Process(os.getppid())
    return f"{process.pid} {process.create_time()}"


def _is_alive(command: str) -> bool:
    number, _, started = command.partition(" ")
    try:
        return str(psutil.Process(int(number)).create_time()) == started
    except (psutil.Error, ValueError):
        return False
