"""The terminal: results go to standard output, progress and remarks to standard error.

All output passes here, so that text from outside cannot send control characters to the terminal, a character that the
terminal's encoding lacks is written as an escape, and results that cannot be written are an error.
"""

from __future__ import annotations

import os
import sys
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from watkins_ml.core.streams import Standard
from watkins_ml.core.text import shown

PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}
"""A file may be called `call [noisy] :whale:.wav`."""


class _Terminal(Console):
    """Shows a str as one line (`text.shown`), also in the cells of a table; several lines are several of them."""

    def __init__(self, name: str):
        super().__init__(**PLAIN, soft_wrap=True, file=cast(IO[str], Standard(name)))

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(shown(text), **options)

    def write(self, text: str) -> None:
        """Text for a program: as it is, but for characters that the encoding lacks; raises as `finish`."""
        try:
            self.file.write(text)
            self.file.flush()
        except BrokenPipeError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """End silently, as other programs do: the reader that closed the pipe has what it needs."""
        self.quiet = True
        sys.exit(1)


def styled(text: str, style: str) -> Text:
    """A cell of a table in a style of its own."""
    return Text(shown(text), style=style)


out = _Terminal("stdout")
if not out.is_terminal and "COLUMNS" not in os.environ:
    out.width = 140  # in a file or a pipe nothing has to fit a window
err = _Terminal("stderr")


class _Escaped(TextColumn):
    """A column whose text may hold names from outside."""

    def __init__(self, text: str):
        super().__init__(text, markup=False)

    def render(self, task: Task) -> Text:
        return Text(shown(super().render(task).plain))


def progress(transient: bool = False, slow: bool = False) -> Progress:
    """A progress bar with counts, time spent and time left; silent where no terminal is watching.

    With `slow` the time left is estimated from the last two hours, for steps that take minutes.
    """
    columns = MofNCompleteColumn(), TimeElapsedColumn(), *_time_left(), _Escaped("{task.fields[note]}")
    return _bar(*columns, speed_estimate_period=7200.0 if slow else 30.0, transient=transient)


def transfer() -> Progress:
    """A progress bar of a download, with bytes, speed and time left; silent where no terminal is watching."""
    return _bar(DownloadColumn(), TransferSpeedColumn(), *_time_left())


def _bar(*columns: ProgressColumn, **options: Any) -> Progress:
    begin = _Escaped("{task.description}"), BarColumn(bar_width=30)
    return Progress(*begin, *columns, console=err, disable=not err.is_terminal, **options)


def _time_left() -> tuple[ProgressColumn, ...]:
    return TextColumn("left"), TimeRemainingColumn()
