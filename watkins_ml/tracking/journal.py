"""A journal: an append-only file of entries, one JSON object a line."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

from watkins_ml.core.errors import UserError
from watkins_ml.tracking.records import Entry, parse_entry


def append(path: Path, kind: str, content: dict[str, Any]) -> None:
    """Add one entry; it is on the disk before this returns. Raises a ValueError where no entry is like that."""
    entry = {"kind": kind, "time_ms": int(time.time() * 1000), **content}
    parse_entry(entry)
    with open(path, "ab+") as journal:
        _cut_torn_line(journal)
        journal.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        journal.flush()
        os.fsync(journal.fileno())


def read(path: Path) -> list[Entry]:
    """The entries so far, none where there is no file; a line torn by a kill is not an entry.

    Raises:
        UserError: a whole line is no entry; names it.
    """
    if not path.exists():
        return []
    entries = []
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            entries.append(parse_entry(json.loads(line)))
        except (ValueError, RecursionError):
            raise UserError(
                f"{path}: line {number} is damaged; restore the file from a copy or start a new run"
            ) from None
    return entries


def _cut_torn_line(journal: BinaryIO) -> None:
    """Remove the partial entry that a full disk or a kill left, so that the next one starts on a line of its own."""
    journal.seek(0)
    content = journal.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        journal.truncate(whole)
