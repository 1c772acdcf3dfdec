"""Recordings of which only the header counts, and tables beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from watkins_ml.annotations.collect import AnnotationOptions, Annotations, collect
from watkins_ml.annotations.recordings import find_long_recordings

RATE = 1_000


def write_recording(path: Path, seconds: float = 10.0, channels: int = 1) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(0).integers(-9_000, 9_000, (round(seconds * RATE), channels), dtype="int16")
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def gather(tmp_path) -> Callable[..., Annotations]:
    """A function that writes recordings (names) and tables (name: text), and collects the tables."""

    def gather(recordings: list[str], tables: dict[str, str | bytes], channels: int = 1, **options) -> Annotations:
        for name in recordings:
            write_recording(tmp_path / "audio" / name, channels=channels)
        for name, text in tables.items():
            path = tmp_path / "tables" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        _, found, _ = find_long_recordings(tmp_path / "audio")
        return collect(tmp_path / "tables", found, AnnotationOptions(**options))

    return gather
