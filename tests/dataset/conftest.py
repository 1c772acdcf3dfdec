"""Archives of short recordings, and what a prepared folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from watkins_ml.dataset.prepare import Prepared, PrepareOptions, prepare

RATE = 8_000


@pytest.fixture(scope="session")
def prepared(archive, tmp_path_factory) -> Path:
    """The archive as `watkins prepare` leaves it. Read only."""
    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(archive, out, PrepareOptions(workers=1))
    return out


def write_cut(path: Path, seed: int, seconds: float = 0.05) -> Path:
    """A short recording of noise, of the kind that its suffix says; 16-bit, so that containers agree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = np.random.default_rng(seed).integers(-9_000, 9_000, round(seconds * RATE), dtype="int16")
    soundfile.write(path, samples, RATE)
    return path


@pytest.fixture
def cut() -> Callable[..., Path]:
    return write_cut


@pytest.fixture
def ocean(tmp_path) -> Path:
    """24 short recordings: two species, four tapes each, three cuts a tape."""
    return write_ocean(tmp_path / "ocean")


@pytest.fixture
def make_ocean() -> Callable[..., Path]:
    return write_ocean


def write_ocean(folder: Path, species: tuple[str, ...] = ("Orca", "Walrus"), tapes: int = 4, cuts: int = 3) -> Path:
    for kind, name in enumerate(species):
        for tape in range(tapes):
            for number in range(cuts):
                write_cut(
                    folder / name / f"{kind:02d}{tape:03d}{number:03d}.wav", seed=kind * 10_000 + tape * 100 + number
                )
    return folder


@pytest.fixture
def run(tmp_path) -> Callable[..., Prepared]:
    """A function that prepares a folder into `out` (or another folder) with some options changed."""

    def run(audio_dir: Path, out: Path | None = None, **options) -> Prepared:
        return prepare(audio_dir, out or tmp_path / "out", PrepareOptions(**{"workers": 1, "min_clips": 3} | options))

    return run


@pytest.fixture
def content() -> Callable[[Path], dict[str, bytes]]:
    """A function that reads all that a user sees in a prepared folder: name to bytes."""

    def content(out: Path) -> dict[str, bytes]:
        return {
            path.relative_to(out).as_posix(): path.read_bytes()
            for path in sorted(out.rglob("*"))
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(out).parts)
        }

    return content
