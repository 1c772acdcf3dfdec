"""Atomic writes: a reader sees the old file or the whole new one, never a part."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`: on success it takes the place of `path`, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write `frame` as UTF-8 CSV without its index, floats with six significant digits."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, encoding="utf-8", float_format="%.6g")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented, strictly valid JSON (NaN is refused)."""
    with replacing(path) as temporary:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")
