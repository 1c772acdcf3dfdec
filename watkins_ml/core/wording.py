"""Counts and differences in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def plural(count: int, one: str, many: str | None = None) -> str:
    """`1 file`, `2 files`, `15,248 files`; `many` where the plural is more than an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`lr was 0.1, now 0.2` for each key whose value differs or is missing on one side, in order."""
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return [f"{key} was {before.get(key)}, now {now.get(key)}" for key in keys]
