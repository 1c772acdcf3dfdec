"""What a classifier says of every window of many recordings, however long: of the sound itself only what is at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.stream import Window, sliding_windows
from watkins_ml.inference.workers import Workers
from watkins_ml.models.bundle import Answers, Classifier

PLACE = ["channel", "start_s", "end_s"]
NOVELTY = "novelty"


@dataclass(frozen=True)
class Listening:
    """How recordings are cut into windows; what, with the model, decides every probability."""

    overlap: float = 0.5
    """Share of a window that the next one repeats, 0 to below 1."""
    each_channel: bool = False


@dataclass
class Judged:
    """One recording: a row a window, in order of time."""

    path: Path
    places: list[tuple[int, float, float]] = field(default_factory=list)
    """Channel (0 is the mean of all), start and end in seconds."""
    probabilities: list[np.ndarray | None] = field(default_factory=list)
    """Calibrated, shape (species,); None where there is nothing to hear."""
    novelties: list[float] = field(default_factory=list)
    """Above 1, a window is unlike what the classifier was trained on; NaN where there is nothing to hear."""
    problem: str | None = None
    """Why (the rest of) the file could not be read."""
    state: list[int] | None = None
    """Size and time of the file before it was read, by which a later change is noticed; None if it was not there."""

    def table(self, classes: list[str]) -> pd.DataFrame:
        """channel, start_s, end_s, novelty and p_<species> in float32; NaN where there is nothing to hear."""
        silent = np.full(len(classes), np.nan, np.float32)
        values = np.array([silent if each is None else each for each in self.probabilities], np.float32)
        places = pd.DataFrame(self.places, columns=PLACE).astype({"channel": int, "start_s": float, "end_s": float})
        places[NOVELTY] = np.array(self.novelties, np.float32)
        said = pd.DataFrame(values.reshape(-1, len(classes)), columns=[f"p_{name}" for name in classes])
        return pd.concat([places, said], axis=1)


def judge(
    classifier: Classifier,
    files: Iterable[Path],
    listening: Listening,
    on_judged: Callable[[Path, float], None] = lambda path, end_s: None,
) -> Iterator[Judged]:
    """Judge files one after the other; each is given once its last window has been, files of a batch together.

    `on_judged` hears up to which second a file has been judged.
    """
    workers = Workers(classifier.network)

    def answers(group: list[tuple[Judged, Window | None]]) -> Answers:
        sounding = [window for _, window in group if window is not None and window.waveform is not None]
        spectrograms = [classifier.frontend(each.waveform, each.sample_rate).unsqueeze(0) for each in sounding]
        with workers.turn:
            return classifier.answers(spectrograms, workers.batch)

    groups = _groups(_windows(classifier, files, listening), workers.batch)
    for group, said in workers.in_order(answers, groups):
        each_said = zip(*said, strict=True)
        ended = [recording for recording, window in group if window is None]
        for recording, window in group:
            if window is not None:
                probabilities, novelty = (None, math.nan) if window.waveform is None else next(each_said)
                recording.places.append((window.channel, window.start_s, window.end_s))
                recording.probabilities.append(None if probabilities is None else probabilities.astype(np.float32))
                recording.novelties.append(float(novelty))
                last = recording
        if len(ended) < len(group):
            on_judged(last.path, last.places[-1][2])
        yield from ended


def _groups(items: Iterator[tuple[Judged, Window | None]], size: int) -> Iterator[list[tuple[Judged, Window | None]]]:
    """As many as hold `size` windows to be heard; the end of a file at once where none is waiting."""
    group, sounding = [], 0
    for recording, window in items:
        group.append((recording, window))
        sounding += window is not None and window.waveform is not None
        if sounding == size or (window is None and not sounding):
            yield group
            group, sounding = [], 0
    yield group


def _windows(
    classifier: Classifier, files: Iterable[Path], listening: Listening
) -> Iterator[tuple[Judged, Window | None]]:
    """The windows of each file, then None for its end."""
    settings = classifier.frontend.settings
    slack = settings.hop_length / settings.sample_rate  # as in training, a frame stands for one hop
    for path in files:
        recording = Judged(path)
        try:
            recording.state = file_state(path)
            for window in sliding_windows(path, settings.seconds, listening.overlap, listening.each_channel, slack):
                yield recording, window
        except (AudioError, OSError) as error:
            recording.problem = f"unreadable: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        yield recording, None


def file_state(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]
