"""Who writes to a folder and who reads from it, so that one process does not change what another one uses.

All are locks of the kernel, which releases them however a process ends; a lock file left behind blocks nothing.
"""

from __future__ import annotations

import errno
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from watkins_ml.core.console import err
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import printable

READERS = ".readers"
"""The folder, in one that is read, with a locked file a reader."""
SHARED = 0o666
"""Mode of lock files: one user's file must not lock out the others who may write to the folder."""
NAMED_WITHIN_S = 5.0
"""Who has just got a lock has not written its name yet."""
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL})
"""What disks without locks answer (some network file systems)."""


@contextmanager
def only_writer(folder: Path, command: str) -> Iterator[None]:
    """Be the only process that writes to a folder, which is created if missing; reading needs no lock.

    Args:
        command: shown to other processes as the one that writes there, for example `watkins prepare`.

    Raises:
        UserError: another process writes there; says which.
        OSError: of the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".writing.lock"
    lock = FileLock(file, mode=SHARED)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(
            f"{printable(folder)}: {_read_holder(file)} is writing there; wait for its end, or give another folder"
        ) from None
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", errno.ENOSYS) not in NO_LOCKS:
            raise
        err.print(f"{printable(folder)}: this disk has no locks; let no other command write there meanwhile")
        yield
        return
    try:
        _write_holder(file, command)
        yield
    finally:
        with suppress(OSError):
            file.write_text("", encoding="utf-8")  # else the next holder's refusals could name this one
        lock.release()


@contextmanager
def reading(folder: Path, command: str) -> Iterator[None]:
    """Tell writers, as long as this lasts, that a folder is being read (see `readers_of`).

    Where this process may not write to the folder, no reader is registered.
    """
    lock = FileLock(folder / READERS / f"{uuid.uuid4().hex}.lock", mode=SHARED)
    file = Path(lock.lock_file)
    try:
        file.parent.mkdir(exist_ok=True)
        with suppress(OSError):  # it belongs to another user, who has done it
            file.parent.chmod(0o777)
        lock.acquire()
        _write_holder(file, command)
    except (OSError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        lock.release()


def readers_of(folder: Path) -> list[str]:
    """Descriptions of the processes that read a folder; lock files of ended processes are removed."""
    found = []
    for file in sorted((folder / READERS).glob("*.lock")):
        lock = FileLock(file, mode=SHARED)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            found.append(_read_holder(file))
        except (OSError, NotImplementedError):
            continue
        else:
            with suppress(OSError):
                file.unlink()
            lock.release()
    return found


def _write_holder(file: Path, command: str) -> None:
    with suppress(OSError):  # a full disk, or a system on which a locked file cannot be written
        since = time.strftime("%Y-%m-%d %H:%M")
        file.write_text(f"{command} (process {os.getpid()} on {socket.gethostname()}, since {since})", encoding="utf-8")


def _read_holder(file: Path) -> str:
    deadline = time.monotonic() + NAMED_WITHIN_S
    with suppress(OSError):
        while time.monotonic() < deadline:
            if name := file.read_text(encoding="utf-8", errors="replace").strip()[:300]:
                return name
            time.sleep(0.05)
    return "another process"
