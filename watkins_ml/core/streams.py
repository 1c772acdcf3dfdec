"""Standard output and error with any encoding, on a closed pipe or a full disk, or missing."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

from watkins_ml.core.errors import UserError
from watkins_ml.core.text import ESCAPED

_closed: set[str] = set()
"""Which of them the process was started without."""


class Standard:
    """Standard output or error as it is at the moment: tests and progress bars replace it."""

    def __init__(self, name: str):
        self.name = name

    @property
    def stream(self) -> TextIO:
        stream = getattr(sys, self.name)
        return getattr(stream, "rich_proxied_file", stream)

    @property
    def encoding(self) -> str:
        return getattr(self.stream, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        return self.stream is not None and self.stream.isatty()

    def fileno(self) -> int:
        return self.stream.fileno()

    def write(self, text: str) -> None:
        """Write results or messages; a failure to write messages is ignored.

        Raises:
            BrokenPipeError: the reader of the results has closed the pipe.
            UserError: they cannot be written.
        """
        if text and self.name == "stdout" and self.name in _closed:
            raise UserError("standard output is closed, so the results cannot be shown; send them to a file")
        self._try(lambda: self.stream.write(text))

    def flush(self) -> None:
        """Raises as `write`."""
        self._try(lambda: self.stream.flush())

    def _try(self, writing: Callable[[], object]) -> None:
        try:
            writing()
        except OSError as error:
            _discard(self.stream)
            if self.name == "stderr":
                return
            if isinstance(error, BrokenPipeError):
                raise
            reason = error.strerror or error
            raise UserError(f"cannot write to standard output: {reason}; the results were not shown whole") from None


def _discard(stream: TextIO) -> None:
    """What is in the buffer goes nowhere: the interpreter would fail on it once more at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def open_standard_streams() -> None:
    """Have standard streams take any text, whatever their encoding, and be there where the process has none.

    Without one, the next file that is opened would get its number, and what libraries print would go into it.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            opened = open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8")  # gets the free number
            os.set_inheritable(opened.fileno(), True)
            setattr(sys, name, opened)
            _closed.add(name)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=ESCAPED)


def finish() -> None:
    """Write what is left of the results: at the interpreter's end it would be too late to say that it failed.

    Raises:
        SystemExit: the reader has closed the pipe (status 1, no message).
        UserError: they cannot be written.
    """
    try:
        Standard("stdout").flush()
    except BrokenPipeError:
        sys.exit(1)
