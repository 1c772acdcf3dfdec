"""What a classifier says of every window of many recordings, however long: of the sound itself only what is at hand."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.stream import Window, sliding_windows
from watkins_ml.inference.workers import Workers
from watkins_ml.models.bundle import Classifier, Predictions

PLACE = ["channel", "start_s", "end_s"]
NOVELTY = "novelty"


@dataclass(frozen=True)
class Listening:
    """How recordings are cut into windows; what, with the model, decides every probability."""

    overlap: float = 0.5
    """Share of a window that the next one repeats, 0 to below 1."""
    each_channel: bool = False


@dataclass(frozen=True)
class Judged:
    """One recording: a row a window, in order of time."""

    path: Path
    places: np.ndarray
    """float64, shape (windows, 3): channel (0 is the mean of all), start and end in seconds."""
    novelties: np.ndarray
    """float32, shape (windows,): above 1 it is unlike what the classifier was trained on; NaN if there is no sound."""
    probabilities: np.ndarray
    """float32, shape (windows, species): calibrated; NaN where there is nothing to hear."""
    problem: str | None = None
    """Why (the rest of) the file could not be read."""
    note: str = ""
    """What the user has to know of the file, though it could be read."""
    state: list[int] | None = None
    """Size and time of the file before it was read, by which a later change is noticed; None if it was not there."""
    rate: int | None = None
    """Native rate in Hz; None where nothing could be read."""

    def table(self, classes: list[str]) -> pd.DataFrame:
        """channel, start_s, end_s, novelty and p_<species> in float32; NaN where there is nothing to hear."""
        places = pd.DataFrame(self.places, columns=PLACE).astype({"channel": int})
        places[NOVELTY] = self.novelties
        said = pd.DataFrame(self.probabilities, columns=[f"p_{name}" for name in classes])
        return pd.concat([places, said], axis=1)


class _Hearing:
    """A recording that is being judged.

    What is said of its windows goes into two growing arrays: an object a window, between the large blocks of sound that
    come and go, would keep the memory of a long recording from being used again.
    """

    def __init__(self, path: Path, species: int):
        self.path, self.species = path, species
        self.problem: str | None = None
        self.notes: dict[str, None] = {}
        self.state: list[int] | None = None
        self.rate: int | None = None
        self._places, self._said = array("d"), array("f")

    def add(self, window: Window, novelty: float, probabilities: np.ndarray) -> None:
        self._places.extend((window.channel, window.start_s, window.end_s))
        self._said.append(novelty)
        self._said.extend(probabilities)
        self.notes |= dict.fromkeys(window.notes)
        self.rate = window.sample_rate

    def judged(self) -> Judged:
        said = np.array(self._said).reshape(-1, 1 + self.species)
        places = np.array(self._places).reshape(-1, len(PLACE))
        notes = "; ".join(self.notes)
        return Judged(self.path, places, said[:, 0], said[:, 1:], self.problem, notes, self.state, self.rate)


Item = tuple[_Hearing, Window | None]
"""A window, or None for the end of its recording."""


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
    silent = math.nan, np.full(len(classifier.classes), np.nan)

    def answers(group: list[Item]) -> Predictions:
        sounding = [window for _, window in group if window is not None and window.waveform is not None]
        spectrograms = [classifier.frontend(each.waveform, each.sample_rate).unsqueeze(0) for each in sounding]
        with workers.turn:
            return classifier.predict(spectrograms, workers.batch)

    groups = _groups(_windows(classifier, files, listening), workers.batch)
    for group, said in workers.in_order(answers, groups):
        each_said = zip(said.novelty, said.probabilities, strict=True)
        last = None
        for recording, window in group:
            if window is not None:
                recording.add(window, *(silent if window.waveform is None else next(each_said)))
                last = recording.path, window.end_s
        if last is not None:
            on_judged(*last)
        yield from (recording.judged() for recording, window in group if window is None)


def _groups(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """As many as hold `size` windows to be heard; the end of a file at once where none is waiting."""
    group, sounding = [], 0
    for recording, window in items:
        group.append((recording, window))
        sounding += window is not None and window.waveform is not None
        if sounding == size or (window is None and not sounding):
            yield group
            group, sounding = [], 0
    yield group


def _windows(classifier: Classifier, files: Iterable[Path], listening: Listening) -> Iterator[Item]:
    """The windows of each file, then None for its end."""
    settings = classifier.frontend.settings
    slack = settings.hop_length / settings.sample_rate  # as in training, a frame stands for one hop
    for path in files:
        recording = _Hearing(path, len(classifier.classes))
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
