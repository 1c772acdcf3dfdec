"""Reading parts of a large file on a server by HTTP ranges."""

from __future__ import annotations

import errno
import io
import time
from collections.abc import Mapping
from typing import Any

import requests

from watkins_ml.core.errors import UserError
from watkins_ml.fetch.http import bounded, chunks, content_range, get, host_of, with_retries

MOST_BYTES = 64_000_000
"""To be read of one file: the directory of a zip has 2 MB, the text columns of a parquet file less."""
MOST_ASKED = 2000
MOST_S = 1800.0


class NoRangesError(UserError):
    """The server gives files only whole."""


class RangeFile(io.RawIOBase):
    """A file on a server, read and sought like one on the disk, each read by one HTTP range.

    Raises:
        NoRangesError: the server gives none.
        UserError: any fault of `with_retries`, another size than `size`, more than MOST_BYTES, MOST_ASKED or MOST_S.
    """

    def __init__(self, name: str, url: str, headers: Mapping[str, str] | None = None, size: int | None = None):
        super().__init__()
        self.name, self._url, self._headers, self._position = name, url, dict(headers or {}), 0
        self._left, self._asked, self._end = MOST_BYTES, 0, time.monotonic() + MOST_S
        self._session = bounded(requests.Session())  # its connection stays open for the next of many small ranges
        self.size = self._ask(0, 1)[1]
        if size is not None and size != self.size:
            raise UserError(
                f"{name}: has {self.size:,} bytes on the server where {size:,} are published; it is being changed or "
                "is not the published file; try again later"
            )

    def close(self) -> None:
        super().close()
        if hasattr(self, "_session"):
            self._session.close()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, "before the beginning of the file")
        self._position = position
        return position

    def read(self, size: int = -1) -> bytes:
        if min(size, self.size - self._position) > self._left:  # before it is given the memory for it
            raise self._too_much()
        return super().read(size if size < 0 else max(0, min(size, self.size - self._position)))

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self.size - self._position)
        if wanted <= 0:
            return 0
        if wanted > self._left:
            raise self._too_much()
        data, size = self._ask(self._position, wanted)
        if size != self.size or len(data) != wanted:
            raise UserError(f"{self.name}: changed on the server while it was read; run the same command again")
        buffer[:wanted] = data
        self._position += wanted
        self._left -= wanted
        return wanted

    def _too_much(self) -> UserError:
        return UserError(
            f"{self.name}: more than {MOST_BYTES // 10**6} MB of it would have to be read to know what is in it, as in "
            "no release of recordings"
        )

    def _ask(self, start: int, count: int) -> tuple[bytes, int]:
        """These bytes (or fewer), and the size of the whole file."""
        self._asked += 1
        if self._asked > MOST_ASKED or time.monotonic() > self._end:
            raise UserError(
                f"{self.name}: more than {MOST_ASKED:,} requests, or {MOST_S / 60:.0f} minutes, to know what is in it; "
                "this is given up"
            )

        def attempt() -> tuple[bytes, int]:
            which = {"Range": f"bytes={start}-{start + count - 1}"}
            with get(self._url, self._headers | which, (200, 206), self._session) as response:
                found = content_range(response)
                if response.status_code != 206 or found is None:
                    raise NoRangesError(f"{self.name}: {host_of(self._url)} gives no ranges of it")
                return b"".join(chunks(response, count)), found[1]

        return with_retries(self.name, attempt)
