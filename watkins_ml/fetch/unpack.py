"""Extracting audio from an untrusted zip: paths, sizes and checksums are all checked."""

from __future__ import annotations

import errno
import io
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from watkins_ml.audio.formats import is_audio_name
from watkins_ml.core.errors import UserError, first_line, plain

MOST_MEMBERS = 50_000
"""Releases have 15,567 at most."""
MOST_DIRECTORY_BYTES = 8_000_000
"""Of the list of members, which `zipfile` reads at once; that of a release has 2 MB."""
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Others may need gigabytes to unpack a small file."""
MOST_RATIO = 30
"""How many times its own size an archive of recordings may unpack to; silence packs better, whole archives do not."""
MOST_MEMBER_BYTES = 1 << 32
BLOCK_BYTES = 1 << 20
LOCAL_HEADER_BYTES = 30
DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, ValueError, RuntimeError,
)  # fmt: skip
"""What `zipfile` says of one."""


@contextmanager
def open_zip(name: str, file: BinaryIO | io.RawIOBase | Path) -> Iterator[zipfile.ZipFile]:
    """A zip for reading; what is none, or is damaged while it is read, raises UserError with `name`."""
    with ExitStack() as opened:
        if isinstance(file, Path):
            file = opened.enter_context(open(file, "rb", buffering=0))
        try:
            yield opened.enter_context(zipfile.ZipFile(cast(BinaryIO, _Bounded(file))))
        except DAMAGE as error:
            raise UserError(f"{name}: not a sound zip file ({first_line(error)}); nothing of it is used") from None
        except OSError as error:
            if error.errno != errno.EINVAL:  # a place before the beginning of the file; others are the disk's
                raise
            raise UserError(f"{name}: not a sound zip file; nothing of it is used") from None


class _Bounded:
    """A file of which at most MOST_DIRECTORY_BYTES are read at once, as `zipfile` does for the list of members."""

    def __init__(self, file: BinaryIO | io.RawIOBase):
        self._file: Any = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        if size > MOST_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a list of files of {size:,} bytes, more than {MOST_DIRECTORY_BYTES:,}")
        return self._file.read(MOST_DIRECTORY_BYTES if size < 0 else size)


def recordings_in(name: str, archive: zipfile.ZipFile, archive_bytes: int) -> list[zipfile.ZipInfo]:
    """The audio files of an archive, by path; other files are left where they are.

    Raises:
        UserError: a member that would lie outside its folder, a link, a password, or a zip bomb; the whole archive
            is then not to be trusted, and nothing of it is unpacked.
    """
    members = archive.infolist()

    def refuse(why: str) -> UserError:
        return UserError(f"{name}: {why}; this is not a release of recordings, nothing of it was unpacked")

    if len(members) > MOST_MEMBERS:
        raise refuse(f"holds {len(members):,} files, more than {MOST_MEMBERS:,}")
    for member in members:
        if fault := _fault(member):
            raise refuse(f"'{plain(member.filename, 100)}' {fault}")
    total = sum(member.file_size for member in members)
    if total > MOST_RATIO * archive_bytes:
        raise refuse(f"{archive_bytes:,} bytes that unpack to {total:,}, as a zip bomb does")
    in_order = sorted(members, key=lambda member: member.header_offset)
    for one, following in pairwise(in_order):
        end = one.header_offset + LOCAL_HEADER_BYTES + len(one.filename.encode()) + one.compress_size
        if end > following.header_offset:
            raise refuse(f"'{plain(one.filename, 100)}' overlaps another file, as in a zip bomb")
    audio = [member for member in members if _is_recording(member)]
    return sorted(audio, key=lambda member: member.filename)


def _fault(member: zipfile.ZipInfo) -> str | None:
    path = member.filename
    parts = path.replace("\\", "/").split("/")
    if path.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in member.orig_filename:
        return "leads outside the folder"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "is a link"
    if member.flag_bits & 1:
        return "is locked with a password"
    if member.compress_type not in METHODS:
        return "is packed by another method than deflate"
    if member.file_size > MOST_MEMBER_BYTES:
        return f"would have {member.file_size:,} bytes"
    return None


def _is_recording(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return not member.is_dir() and not hidden and is_audio_name(path)


def unpack_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member, whole or not at all; one that an earlier call has written is left as it is.

    Raises:
        UserError (from `open_zip`): its content is not what the archive's checksum says.
    """
    if target.exists() and _crc(target) == member.CRC and target.stat().st_size == member.file_size:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with archive.open(member) as source, open(partial, "wb") as file:
            while block := source.read(BLOCK_BYTES):  # never beyond `file_size`, and checked at its end
                file.write(block)
            if file.tell() != member.file_size:
                raise zipfile.BadZipFile(f"'{plain(member.filename, 100)}' has {file.tell():,} bytes")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            crc = zlib.crc32(block, crc)
    return crc
