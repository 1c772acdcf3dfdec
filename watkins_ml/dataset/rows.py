"""The sound of a row of a data set: a whole recording, or a window of a longer one."""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from watkins_ml.audio.decode import Recording
from watkins_ml.audio.stretches import read_stretch
from watkins_ml.dataset.layout import WINDOW_COLUMNS, PreparedData

if TYPE_CHECKING:
    from watkins_ml.audio.files import FileFrontend


class Rows:
    """Reads the rows of prepared data by their path."""

    def __init__(self, data: PreparedData):
        self._data = data

    @cached_property
    def _windows(self) -> dict[str, tuple[float, float, int]]:
        if not self._data.of_windows:
            return {}
        table = pd.concat([frame[["path", *WINDOW_COLUMNS]] for frame in self._data.sides.values()])
        times = zip(table["start_s"], table["end_s"], table["channel"], strict=True)
        return dict(zip(table["path"], times, strict=True))

    def file(self, path: str) -> Path:
        """The file that holds the sound of a row."""
        return self._data.recording(path)

    def read(self, path: str, frontend: FileFrontend, most_windows: int = 1) -> Recording:
        """What `frontend.read` gives of the file of a row, or the row's own part of a longer one.

        Raises:
            AudioError: the file cannot be read, or the row holds no sound.
        """
        file = self.file(path)
        if path not in self._windows:
            return frontend.read(file, most_windows)
        start, end, channel = self._windows[path]
        settings = frontend.settings
        return read_stretch(file, (start, end), channel, settings.seconds, most_windows, settings.slack_s)

    def sha256(self, path: str) -> str:
        """As `sha256` of the annotations is made: of the file, or of the file's and the window's times.

        Raises:
            OSError: the file cannot be read.
        """
        file = self.file(path)
        status = file.stat()
        whole = _digest(file, status.st_size, status.st_mtime_ns)
        return window_digest(whole, *self._windows[path]) if path in self._windows else whole


@lru_cache(1024)
def _digest(file: Path, size: int, mtime_ns: int) -> str:
    """SHA-256 of a file as it is now; a long recording is read once for all of its windows."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def window_digest(recording: str, start_s: float, end_s: float, channel: int) -> str:
    """What tells the sound of a window from any other's: the SHA-256 of its recording, times in seconds, channel."""
    return hashlib.sha256(f"{recording} {channel} {start_s:.9f} {end_s:.9f}".encode()).hexdigest()
