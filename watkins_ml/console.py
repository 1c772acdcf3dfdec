"""The terminal: results go to standard output, progress and remarks to standard error."""

from __future__ import annotations

import os

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PLAIN = {"markup": False, "emoji": False, "highlight": False}  # a file may be called `call [noisy] :whale:.wav`

out = Console(**PLAIN, soft_wrap=True)
if not out.is_terminal and "COLUMNS" not in os.environ:
    out.width = 140  # in a file or a pipe nothing has to fit a window
err = Console(**PLAIN, stderr=True, soft_wrap=True)


def progress(transient: bool = False, slow: bool = False) -> Progress:
    """A progress bar with counts, time spent and time left; silent where no terminal is watching.

    With `slow` it judges the time left by the last hours, for steps that take minutes.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=err,
        speed_estimate_period=7200.0 if slow else 30.0,
        transient=transient,
        disable=not err.is_terminal,
    )


def transfer() -> Progress:
    """A progress bar of a download, with bytes, speed and time left; silent where no terminal is watching."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=err,
        disable=not err.is_terminal,
    )
