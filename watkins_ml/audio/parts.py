"""What the decoder is given of a file whose header cannot be believed: the parts that hold the sound."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

ByteOrder = Literal["little", "big"]


@dataclass(frozen=True)
class Plan:
    """How a file is read where its header is wrong, or says nothing of the length."""

    parts: tuple[bytes | range, ...] = ()
    """What the decoder sees, in order: bytes as they are, or places of the file. None: the file itself."""
    raw: dict[str, Any] = field(default_factory=dict)
    """For samples without a header: samplerate, channels, subtype and endian, as soundfile takes them."""
    note: str | None = None
    """What the user has to know: that more was read than the header says, or that there is more than was read."""
    problem: str | None = None
    """Why the recording is not whole."""
    whole: bool = False
    """Whether all of it is there, whatever libsndfile's log says of the header."""
    guessed: bool = False
    """Whether the length that the decoder will give is a guess."""


class Source:
    """Small pieces of an open file; it is read `ahead` bytes at once."""

    def __init__(self, file: BinaryIO):
        self.file, self.ahead = file, 1 << 12
        self.size = file.seek(0, os.SEEK_END)
        self._start, self._buffer = 0, b""

    def at(self, place: int, length: int) -> bytes:
        """`length` bytes from `place` on, fewer where the file ends, none before its beginning."""
        if not 0 <= place < self.size:
            return b""
        if not self._start <= place <= place + length <= self._start + len(self._buffer):
            self.file.seek(place)
            self._start, self._buffer = place, self.file.read(max(length, self.ahead))
        return self._buffer[place - self._start : place - self._start + length]

    def number(self, place: int, length: int, order: ByteOrder, signed: bool = False) -> int:
        """The whole number in `length` bytes; -1 where the file ends before."""
        found = self.at(place, length)
        return int.from_bytes(found, order, signed=signed) if len(found) == length else -1


class Parts:
    """Some parts of a file, one after the other, as a file of their own for the decoder.

    A damaged header can send the decoder before the beginning. It then stays where it is: an exception below the
    decoder would end as a traceback on the terminal.
    """

    def __init__(self, file: BinaryIO, parts: Sequence[bytes | range]):
        self.file, self.parts, self.size = file, parts, sum(map(len, parts))
        self._place = 0

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}.get(whence, 0)
        if place >= 0:
            self._place = place
        return self._place

    def read(self, length: int = -1) -> bytes:
        """As a file gives it: fewer bytes at the end, or where the file was cut meanwhile."""
        wanted = max(0, self.size - self._place) if length < 0 else length
        found, begin = [], 0
        for part in self.parts:
            skip = self._place - begin
            begin += len(part)
            if skip >= len(part) or not wanted:
                continue
            some = self._some(part, skip, min(wanted, len(part) - skip))
            found.append(some)
            self._place += len(some)
            wanted -= len(some)
        return b"".join(found)

    def _some(self, part: bytes | range, skip: int, length: int) -> bytes:
        if isinstance(part, bytes):
            return part[skip : skip + length]
        try:
            self.file.seek(part[skip])
            return self.file.read(length)
        except (OSError, ValueError):
            return b""
