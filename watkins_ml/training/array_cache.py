"""A folder of large arrays that are dear to compute: bounded in size, shared by processes, safe to lose.

An entry is `KEY.npy` and `KEY.json`, which says what it is and seals it. Whoever reads an entry needs no lock; one
process at a time makes room and computes, and the others wait for what it makes.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from watkins_ml.core.console import err
from watkins_ml.core.files import write_json

MARGIN = 10**9
"""Bytes of the disk that are left to checkpoints and to everybody else."""
OVERHEAD = 4096
"""Bytes that an entry takes beside its numbers, rounded up."""


class NoRoomError(Exception):
    """The limit or the disk is too small; says which."""


class Entry(NamedTuple):
    """One array as the accounts see it."""

    path: Path
    size: int
    """Bytes."""
    used: int
    """When it was last used, ns since 1970."""


@dataclass(frozen=True)
class ArrayCache:
    """Float32 arrays in `folder`, which take `limit` bytes at most: those used longest ago make room for new ones."""

    folder: Path
    limit: int

    def get(
        self, facts: dict[str, Any], shape: tuple[int, ...], compute: Callable[[], Iterable[np.ndarray]]
    ) -> np.ndarray:
        """The array that `facts` describe, mapped into memory (what is written to it stays in this process).

        Args:
            facts: all that its numbers depend on, in JSON's types.
            compute: gives the array piece by piece along its first axis; called only if no sound one is stored.

        Raises:
            NoRoomError: it does not fit into the limit or onto the disk.
            OSError, NotImplementedError: the folder cannot be written to, or not be locked.
        """
        facts = {**facts, "shape": list(shape)}
        path = self.folder / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]}.npy"
        array = _open(path, facts)
        if array is None:
            self.folder.mkdir(exist_ok=True)
            with _locked(self.folder):
                array = _open(path, facts)  # another process may have made it while this one waited
                if array is None:
                    self._make_room(path, size_of(shape))
                    _write(path, facts, compute())
                    array = _open(path, facts)
        if array is None:
            raise OSError(f"{path.name} cannot be read back")
        with suppress(OSError):  # a folder that is only read has no order of use
            os.utime(path)
        return array

    def _make_room(self, path: Path, size: int) -> None:
        """Make sure that folder and disk can take `size` bytes at `path`.

        A training that has mapped an entry keeps it, and its disk space, until it ends.
        """
        # A damaged entry, and what killed processes left: a living one would have the lock
        for stale in (path, *self.folder.glob("*.partial")):
            stale.unlink(missing_ok=True)
        entries = []
        for kept in self.folder.glob("*.npy"):
            status = kept.stat()
            entries.append(Entry(kept, status.st_size + OVERHEAD, status.st_mtime_ns))
        room = shutil.disk_usage(self.folder).free + sum(entry.size for entry in entries) - MARGIN
        if size > self.limit:
            raise NoRoomError(f"{in_words(size)} exceed the limit of {in_words(self.limit)}")
        if size > room:
            raise NoRoomError(f"{in_words(size)} would leave less than {in_words(MARGIN)} of the disk free")
        for entry in to_drop(entries, size, min(self.limit, room)):
            entry.path.with_suffix(".json").unlink(missing_ok=True)
            entry.path.unlink()


def to_drop(entries: list[Entry], size: int, room: int) -> list[Entry]:
    """The entries to give up, least recently used first, so that the others and `size` more bytes fit into `room`."""
    taken = size + sum(entry.size for entry in entries)
    dropped = []
    for entry in sorted(entries, key=lambda entry: entry.used):
        if taken <= room:
            break
        taken -= entry.size
        dropped.append(entry)
    return dropped


def size_of(shape: tuple[int, ...]) -> int:
    """Bytes that an entry takes on disk."""
    return 4 * int(np.prod(shape, dtype=np.int64)) + OVERHEAD


def in_words(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _locked(folder: Path) -> AbstractContextManager:
    lock = FileLock(folder / ".lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        err.print(f"Waiting for another process that computes what {folder} will hold")
        return lock.acquire()


def _open(path: Path, facts: dict[str, Any]) -> np.ndarray | None:
    """An entry, read once to see that it is sound; None: missing or damaged."""
    try:
        stored = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        array = np.load(path, mmap_mode="c")
        sound = array.dtype == np.float32 and array.shape == tuple(facts["shape"])
        return array if sound and stored == {**facts, "crc32": zlib.crc32(array.data)} else None
    except Exception:  # numpy meets broken bytes with many kinds of error
        return None


def _write(path: Path, facts: dict[str, Any], pieces: Iterable[np.ndarray]) -> None:
    """Write an entry whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    crc32 = 0
    try:
        with open(partial, "wb") as file:
            header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": tuple(facts["shape"])}
            np.lib.format.write_array_header_1_0(file, header)
            for piece in pieces:
                crc32 = zlib.crc32(piece.data, crc32)
                file.write(piece.data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        write_json(path.with_suffix(".json"), {**facts, "crc32": crc32})
    except BaseException:
        for half in (partial, path):
            half.unlink(missing_ok=True)
        raise
