"""Paths from tables, journals, servers and studies, confined to the folder that they belong to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from watkins_ml.core.errors import UserError
from watkins_ml.core.text import shown


def leads_out(path: str | Path) -> bool:
    """Whether a path, as it is written, is no way down from the folder that it is below; links are not looked at."""
    path = Path(path)
    return path.is_absolute() or bool(path.drive) or ".." in path.parts or "\0" in str(path)


def inside(folder: Path, text: str, source: object) -> Path:
    """The file or folder below `folder` that an entry of a file names, also after following links.

    Args:
        source: where the entry stands; the error names it.

    Raises:
        UserError: the entry is no relative path, or leads out of the folder.
    """
    if not isinstance(text, str) or "\0" in text or not (path := Path(text)).parts:
        raise UserError(f"{source}: {_entry(text)} names no file")
    try:
        home, real = folder.resolve(), (folder / path).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle, a name that is too long
        raise UserError(f"{source}: {_entry(text)} cannot be followed ({_reason(error)})") from None
    if leads_out(path) or not real.is_relative_to(home) or real == home:
        raise UserError(f"{source}: {_entry(text)} leads out of {folder}; nothing outside is read, written or sent")
    return folder / path


def plain_file(folder: Path, text: str, source: object, most: float = float("inf")) -> Path:
    """As `inside`, of a regular file of at most `most` bytes.

    Raises:
        UserError: it is not there, larger, or a folder, a pipe or a device.
    """
    path = inside(folder, text, source)
    try:
        found = path.stat()
    except OSError as error:
        raise UserError(f"{source}: {_entry(text)} cannot be read ({_reason(error)})") from None
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{source}: {_entry(text)} is no regular file but a folder, a pipe or a device")
    if found.st_size > most:
        size = f"{found.st_size / 1e6:,.0f} MB, more than {most / 1e6:,.0f} MB"
        raise UserError(f"{source}: {_entry(text)} has {size}; it is not what this program writes")
    return path


def plain_files(folder: Path, text: str, source: object) -> Iterator[Path]:
    """The regular file that an entry names, or all those in the folder that it names; raises as `plain_file`."""
    path = inside(folder, text, source)
    if not path.is_dir():
        yield plain_file(folder, text, source)
        return
    for root, folders, files in os.walk(path):
        for name in folders:
            inside(folder, os.path.relpath(os.path.join(root, name), folder), source)
        for name in files:
            file = os.path.join(root, name)
            try:
                yield plain_file(folder, os.path.relpath(file, folder), source)
            except UserError:
                if os.path.lexists(file):  # else it was renamed meanwhile
                    raise


def _entry(text: object) -> str:
    return repr(shown(str(text)[:200]))


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or "links in a circle"
