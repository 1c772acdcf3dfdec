"""What a classifier says of every window of many recordings, however long: of the sound itself only what is at hand."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.stream import Window, sliding_windows
from watkins_ml.models.bundle import Classifier
from watkins_ml.models.scoring import BATCH

AHEAD = 16
"""Windows whose spectrograms are under way while the network works; decides the memory, with the native rate."""
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
    ended: list[Judged] = []
    batch: list[tuple[Judged, int, torch.Tensor]] = []

    def flush() -> Iterator[Judged]:
        if batch:
            said = classifier.answers(spectrogram.unsqueeze(0) for _, _, spectrogram in batch)
            for number, (recording, row, _) in enumerate(batch):
                recording.probabilities[row] = said.probabilities[number].astype(np.float32)
                recording.novelties[row] = float(said.novelty[number])
            on_judged(batch[-1][0].path, batch[-1][0].places[-1][2])
            batch.clear()
        yield from ended
        ended.clear()

    def spectrogram_of(window: Window | None) -> torch.Tensor | None:
        silent = window is None or window.waveform is None
        return None if silent else classifier.frontend(window.waveform, window.sample_rate)

    for recording, window, spectrogram in _prepared(_windows(classifier, files, listening), spectrogram_of):
        if window is None:
            ended.append(recording)
            if not batch:  # nothing of it, or of one before it, has still to be judged
                yield from flush()
            continue
        recording.places.append((window.channel, window.start_s, window.end_s))
        recording.probabilities.append(None)
        recording.novelties.append(math.nan)
        if spectrogram is not None:
            batch.append((recording, len(recording.probabilities) - 1, spectrogram))
        if len(batch) == BATCH:
            yield from flush()
    yield from flush()


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


def _prepared(
    items: Iterator[tuple[Judged, Window | None]], spectrogram_of: Callable[[Window | None], torch.Tensor | None]
) -> Iterator[tuple[Judged, Window | None, torch.Tensor | None]]:
    """Each window with its spectrogram, made some windows ahead in a thread while the network works."""
    with ThreadPoolExecutor(max_workers=1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        under_way: deque[tuple[Judged, Window | None, Future]] = deque()
        for recording, window in items:
            under_way.append((recording, window, pool.submit(spectrogram_of, window)))
            if len(under_way) > AHEAD:
                yield _done(*under_way.popleft())
        while under_way:
            yield _done(*under_way.popleft())


def _done(recording: Judged, window: Window | None, spectrogram: Future) -> tuple:
    return recording, window, spectrogram.result()
