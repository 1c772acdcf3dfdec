"""Resumable download of one file by HTTP ranges; the target appears only when it is complete and verified.

No more is written than the size that the publisher, or else the server, announced. Until it is verified a file is
called `NAME.part`, and `NAME.part.json` records which content it is the beginning of.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from watkins_ml.core.console import transfer
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_json
from watkins_ml.fetch.http import (
    SLOWEST_BYTES,
    TooLongError,
    TransientError,
    chunks,
    content_range,
    get,
    whole_number,
    with_retries,
)

MOST_BYTES = 100 * 10**9
"""Of one file, ten times the largest release; what announces more, or nothing and has more, is none."""
CHECKSUMS = {"sha256": 64, "sha1": 40, "md5": 32}
"""Hexadecimal digits by kind."""

OnBytes = Callable[[int], None]
"""Is called with how many bytes of the file there are now."""


@dataclass(frozen=True)
class Remote:
    """A file on a server, and the checksum and size that its publisher gives."""

    name: str
    address: Callable[[], str]
    """Its URL; asked for again for every request, since signed addresses expire."""
    size: int | None = None
    """In bytes; None if it is not published."""
    checksum: str | None = None
    """As `sha256:…`, `sha1:…` or `md5:…`, in lower-case hexadecimal; None if none is published."""
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a malformed listing; raises a UserError."""
        if not self.name.isprintable() or not 0 < len(self.name) <= 200:
            raise UserError(f"{self.name[:200]!r}: no name of a file; the host answers otherwise than expected")
        kind, _, digits = (self.checksum or f"md5:{'0' * 32}").partition(":")
        if not re.fullmatch(f"[0-9a-f]{{{CHECKSUMS.get(kind, 0)}}}", digits):
            raise UserError(f"{self.name}: the host publishes no {kind} of it but {digits[:80]!r}; try again later")
        if self.size is not None and not 0 <= self.size <= MOST_BYTES:
            raise UserError(
                f"{self.name}: the host announces {self.size:,} bytes; no release of the archive has more than "
                f"{MOST_BYTES:,}, so nothing of it is fetched"
            )


def part_of(target: Path) -> Path:
    """Where the beginning of an unfinished download lies."""
    return target.with_name(target.name + ".part")


def bytes_there(target: Path) -> int:
    """How much of a download is on the disk, finished or not."""
    return next((path.stat().st_size for path in (target, part_of(target)) if path.exists()), 0)


def download(remote: Remote, target: Path, on_bytes: OnBytes = lambda count: None) -> None:
    """Download to `target`, which appears whole and verified; one that is there already is left as it is.

    A beginning is gone on with if it is of the same published checksum, or, where none is published, if the server
    says by `If-Range` that the file has not changed since. A checksum that does not fit after a continued download
    is tried once more from the first byte.

    Raises:
        UserError: not to be had, or not as published; a beginning that may be used stays, any other goes.
        OSError: of the disk.
    """
    if target.exists():
        return
    part = part_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    _drop_another(remote, part)
    for last in (False, True):
        continued = _complete(remote, part, on_bytes)
        problem = _problem(remote, part)
        if problem is None:
            break
        _drop(part)
        if last or not continued:
            raise UserError(
                f"{remote.name}: {problem}, so the file on the server is damaged or not the one that was published; "
                "nothing of it is kept; try again another day or take another release (watkins fetch --help)"
            )
    os.replace(part, target)
    _state(part).unlink(missing_ok=True)


def download_with_progress(remote: Remote, target: Path, title: str) -> None:
    """`download` with a progress bar."""
    with transfer() as bar:
        task = bar.add_task(f"Downloading {title}", total=remote.size, completed=bytes_there(target))
        download(remote, target, lambda count: bar.update(task, completed=count))


def _drop_another(remote: Remote, part: Path) -> None:
    """Remove a beginning that is not of this content, or that may not be."""
    known = _known(part)
    same = known and known["checksum"] == remote.checksum and remote.size in (None, known["size"])
    if not same or (remote.checksum is None and known["validator"] is None):
        _drop(part)


def _complete(remote: Remote, part: Path, on_bytes: OnBytes) -> bool:
    """Fetch what is missing, in as many requests as it takes; whether a beginning was gone on with.

    The count of attempts restarts only after SLOWEST_BYTES more than ever before, so that a server that starts again,
    or sends single bytes, is not asked forever.
    """
    starts: list[int] = []
    most = _size(part)

    def attempt() -> None:
        starts.append(_size(part))
        _fetch_rest(remote, part, on_bytes)

    def progressed() -> bool:
        nonlocal most
        if _size(part) < most + SLOWEST_BYTES:
            return False
        most = _size(part)
        return True

    with_retries(remote.name, attempt, progressed)
    return any(starts)


def _fetch_rest(remote: Remote, part: Path, on_bytes: OnBytes) -> None:
    """One request for what is missing, written as it comes."""
    have, known = _size(part), _known(part)
    if have and have == known.get("size"):
        return
    if have and remote.checksum is None and known.get("validator") is None:
        _drop(part)
        have = 0
    headers = dict(remote.headers)
    if have:
        headers["Range"] = f"bytes={have}-"
        if (
            remote.checksum is None
        ):  # a checksum decides where there is one: mirrors have other ETags for the same content
            headers["If-Range"] = known["validator"]
    with get(remote.address(), headers, accepted=(200, 206, 416)) as response:
        start, total = _place(remote, response, part, have)
        if start == 0:
            _drop(part)
            write_json(_state(part), {"checksum": remote.checksum, "size": total, "validator": _validator(response)})
        _write(remote, response, part, start, total, on_bytes)
    if total is not None and _size(part) < total:
        raise TransientError(f"the connection broke off after {_size(part):,} of {total:,} bytes")


def _place(remote: Remote, response: requests.Response, part: Path, have: int) -> tuple[int, int | None]:
    """Where in the file a response begins, and how long the file is (None where unknown).

    Raises:
        TransientError: the server cannot go on from here; the beginning is given up.
        UserError: another length than published.
    """
    if response.status_code == 200:
        start, total = 0, whole_number(response.headers.get("Content-Length"))
    else:
        start, total = content_range(response) or (-1, None)
        if start != have:
            _drop(part)
            raise TransientError(f"the server does not go on at byte {have:,}")
    if total is not None and remote.size is not None and total != remote.size:
        raise UserError(
            f"{remote.name}: has {total:,} bytes on the server where {remote.size:,} are published; it is being "
            "changed or is not the published file; try again later"
        )
    if total is not None and total > MOST_BYTES:
        raise UserError(f"{remote.name}: has {total:,} bytes on the server, more than any release; nothing is kept")
    return start, remote.size if total is None else total


def _write(
    remote: Remote, response: requests.Response, part: Path, start: int, total: int | None, on_bytes: OnBytes
) -> None:
    """Append an answer as it comes, up to the announced size; a beginning of what is longer is given up."""
    most = MOST_BYTES if total is None else total
    try:
        with open(part, "r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            for block in chunks(
                response, most - start
            ):  # as it arrives, so that nothing received is lost when the connection breaks
                file.write(block)
                start += len(block)
                on_bytes(start)
            file.flush()
            os.fsync(file.fileno())
    except TooLongError:
        _drop(part)
        raise UserError(
            f"{remote.name}: the server sends more than the {most:,} bytes that were announced; nothing of it is kept"
        ) from None


def _problem(remote: Remote, part: Path) -> str | None:
    """Why a complete download is not what was published."""
    size = _size(part)
    if remote.size is not None and size != remote.size:
        return f"{size:,} bytes came where {remote.size:,} are published"
    if remote.checksum is None:
        return None
    kind, expected = remote.checksum.split(":")
    with open(part, "rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    return None if found == expected else f"its {kind} is {found} where {expected} is published"


def _validator(response: requests.Response) -> str | None:
    """Identifies this version of the content: a strong ETag or the time of the last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified") or None


def _known(part: Path) -> dict[str, Any]:
    """The state recorded when the download began; empty where it is damaged."""
    try:
        known = json.loads(_state(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) and {"checksum", "size", "validator"} <= set(known) else {}


def _state(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _drop(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)
