"""Finding files; writing them so that a reader sees the old or the new content, never half of either."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from watkins_ml.core.errors import ResourceError, UsageError, UserError, sentence
from watkins_ml.core.text import shown

if TYPE_CHECKING:
    import pandas as pd


FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
"""How a disk, a limit of this process or a quota says that no more can be written."""


def files_below(folder: Path, inside: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """All files in a folder and those in it, also behind links to folders, but not where these lead round in circles.

    Hidden ones (`.name`) are left out; a link that leads nowhere counts as a file, as do pipes and devices.

    Args:
        inside: the folders, without links, that this one was found in.

    Raises:
        UserError: a folder cannot be read.
    """
    real = folder.resolve()
    if real in inside:
        return
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if os.path.isdir(entry):  # the entry's own method raises where a link leads to itself
            yield from files_below(Path(entry.path), inside | {real})
        else:
            yield Path(entry.path)


def write_bytes(path: Path, content: bytes | memoryview, durable: bool = True) -> None:
    """Write beside the target, flush to the disk, then rename over it; parents are made.

    Without `durable` the flush is left out: many times faster for thousands of small files, and a
    power cut may leave them empty, so only for what can be noticed and made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")  # as short for a name that is as long as names can be
    try:
        with open(partial, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """UTF-8; what is left in the text of a name that is not UTF-8 becomes `\\udce9`, which JSON reads as it was."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path, frame: pd.DataFrame, float_format: str | None = None) -> None:
    """Write a table that `read_csv` gives back, and in which no text is a formula to a spreadsheet."""
    write_text(path, csv_text(frame, float_format))


def csv_text(frame: pd.DataFrame, float_format: str | None = None) -> str:
    """A table as CSV. Text that a spreadsheet would calculate gets an apostrophe in front, numbers do not."""
    safe = _each_text(frame, guarded)
    texts = (safe.iloc[:, place] for place, kind in enumerate(safe.dtypes) if kind.kind not in _NO_TEXT)
    returns = any("\r" in value for values in (safe.columns, *texts) for value in values if isinstance(value, str))
    quoting = csv.QUOTE_NONNUMERIC if returns else csv.QUOTE_MINIMAL  # which would leave a carriage return unquoted
    return safe.to_csv(index=False, lineterminator="\n", float_format=float_format, quoting=quoting)


def shown_csv(frame: pd.DataFrame) -> str:
    """A table for people, as `csv_text`; its text acts on no terminal either, and each row is one line."""
    return csv_text(_each_text(frame, lambda value: shown(value) if isinstance(value, str) else value))


def read_csv(path: Path | IO, **options: Any) -> pd.DataFrame:
    """As pandas reads it, without the apostrophes of `write_csv`."""
    import pandas as pd

    if isinstance(dtype := options.get("dtype"), dict):
        options["dtype"] = {guarded(name): kind for name, kind in dtype.items()}
    if "usecols" in options:
        options["usecols"] = [guarded(name) for name in options["usecols"]]
    return _each_text(pd.read_csv(path, **options), unguarded)


def _each_text(frame: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """A table with its text changed, names of columns too; text columns keep their type."""
    changed = frame.rename(columns=change)
    for place, kind in enumerate(changed.dtypes):
        if kind.kind not in _NO_TEXT:
            column = changed.iloc[:, place]
            if any(change(value) is not value for value in column):
                changed.isetitem(place, column.map(change, na_action="ignore"))
    return changed


_NO_TEXT = "biufcmM"
"""Kinds of columns that hold numbers or dates."""
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def guarded(value: Any) -> Any:
    """Text as a cell that no spreadsheet takes for a formula; numbers, also as text, as they are."""
    if isinstance(value, str) and _FORMULA.match(value) and not _is_number(value):
        return f"'{value}"
    return value


def unguarded(value: Any) -> Any:
    """What `guarded` was given."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _FORMULA.match(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()  # float() leaves spaces and line breaks away


def write_tensors(path: Path, tensors: Any, durable: bool = True) -> None:
    """Save tensors (or nested containers of them) for `torch.load(..., weights_only=True)`."""
    import torch

    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    write_bytes(path, buffer.getbuffer(), durable)


def printable(path: Path) -> str:
    """A path as text that can be written anywhere, also where a name is not UTF-8 (old archives are in Latin-1)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def check_working_directory() -> None:
    """Refuse to work in a folder that was deleted: libraries would end the process there, or say something else.

    Raises:
        UserError: it is gone, or on a disk that is.
    """
    try:
        os.getcwd()
    except OSError as error:
        raise UserError(
            f"the working directory is not there any more ({error.strerror}; deleted, or its disk unmounted); "
            "go to another folder (cd) and try again"
        ) from None


def check_temporary_files() -> None:
    """See that there is a folder for temporary files, for libraries that would end without one.

    Raises:
        UserError: none can be written.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        raise UserError("no folder for temporary files can be written to; name one in TMPDIR") from None


@contextmanager
def disk_errors(doing: str, then: str) -> Iterator[None]:
    """Turn the disk's own faults (full, read-only, no permission) into one sentence with a way on.

    A `then` of "make room" is for full disks only; for other faults it becomes "correct that".

    Raises:
        ResourceError: begins with `doing` and ends with `then`.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            then = then.replace("make room", "correct that")
        raise ResourceError(f"{doing}: {sentence(error)}; {then}") from None


def check_name(what: str, name: str, hint: str = "") -> None:
    """Refuse a name that could not be a folder's on every system; raises a UsageError that begins with `what`."""
    if not re.fullmatch(r"\w[\w.-]{0,99}", name) or len(name.encode()) > 200:
        raise UsageError(f"{what}: at most 100 letters, digits, - _ and . (it names a folder){hint}")
