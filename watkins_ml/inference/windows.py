"""Decode recordings and cut them into windows, in batches; however long they are, little of them is in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.encoder_settings import Settings
from watkins_ml.audio.stream import Window, sliding_windows
from watkins_ml.evaluation.detection.timeline import By
from watkins_ml.inference.recordings import file_state
from watkins_ml.models.bundle import MAX_NOVELTY
from watkins_ml.models.thresholds import Thresholds

MOST_OVERLAP = 0.95
OVERLAPS: dict[str, float] = {"detection": 0.5, "window": 0.0, "peak": 0.75}
"""What suits each kind of detection."""


@dataclass(frozen=True)
class WindowOptions:
    """How recordings are cut into windows; what, with the model, decides every probability."""

    overlap: float = 0.5
    """Share of a window that the next one repeats, 0 to below 1."""
    each_channel: bool = False
    """Whether every channel has windows of its own; else they are mixed."""


@dataclass(frozen=True)
class End:
    """The end of a recording, after its last window."""

    state: list[int] | None
    """As `file_state` gave it before the file was read; None if it was not there."""
    problem: str | None
    """Why (the rest of) the file could not be read."""


Item = tuple[Path, Window | End]


def by_of(kept: Thresholds | None) -> By:
    """What detections are, where a user does not say: as when the model's thresholds were chosen."""
    chosen = kept.facts.get("by") if kept is not None else None
    return cast(By, chosen) if chosen in OVERLAPS else "detection"


def novelty_of(given: float | None, kept: Thresholds | None) -> float:
    """Above which novelty nothing is detected: as a user asked, else as when the model's thresholds were chosen."""
    if given is not None:
        return given
    chosen = kept.facts.get("max_novelty") if kept is not None else None
    return float(chosen) if isinstance(chosen, int | float) and chosen >= 0 else MAX_NOVELTY


def overlap_of(given: float | None, kept: Thresholds | None, by: str = "detection") -> float:
    """The overlap of windows that a user asked for, else that with which the model's thresholds were chosen.

    Without either it is that which suits `by`.
    """
    if given is not None:
        return given
    chosen = kept.facts.get("overlap") if kept is not None else None
    usable = isinstance(chosen, float) and 0 <= chosen <= MOST_OVERLAP
    return float(chosen) if usable and chosen is not None else OVERLAPS.get(by, WindowOptions.overlap)


def window_stream(files: Iterable[Path], settings: Settings, options: WindowOptions) -> Iterator[Item]:
    """The windows of each file, then its End."""
    for path in files:
        state = problem = None
        try:
            state = file_state(path)
            for window in sliding_windows(
                path, settings.seconds, options.overlap, options.each_channel, settings.slack_s
            ):
                yield path, window
        except (AudioError, OSError) as error:
            problem = f"unreadable: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        yield path, End(state, problem)


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """As many items as hold `size` windows with sound; the end of a file at once where none of these is waiting."""
    batch, sounding = [], 0
    for path, item in items:
        batch.append((path, item))
        sounding += isinstance(item, Window) and item.waveform is not None
        if sounding == size or (isinstance(item, End) and not sounding):
            yield batch
            batch, sounding = [], 0
    yield batch
