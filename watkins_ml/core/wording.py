"""Counts in sentences."""

from __future__ import annotations


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 file`, `2 files`, `15,248 files`; `many` where the plural is more than an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
