"""Score windows: frontend, network and calibration, on every core."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np

from watkins_ml.audio.stream import Window, duration
from watkins_ml.core.console import progress
from watkins_ml.inference.windows import End, Item, WindowOptions, batches, window_stream
from watkins_ml.inference.worker_pool import WorkerPool
from watkins_ml.models.bundle import Classifier, Predictions


@dataclass(frozen=True)
class WindowScores:
    """The scores of one recording: a row a window, in order of time."""

    path: Path
    spans: np.ndarray
    """float64, shape (windows, 3): channel (0 is the mean of all), start and end in seconds."""
    novelty: np.ndarray
    """float32, shape (windows,): above 1 it is unlike what the classifier was trained on; NaN if there is no sound."""
    probabilities: np.ndarray
    """float32, shape (windows, species): calibrated; NaN if there is no sound."""
    problem: str | None = None
    """Why (the rest of) the file could not be read."""
    note: str = ""
    """What the user has to know of the file, though it could be read."""
    state: list[int] | None = None
    """As `file_state` gave it before the file was read; None if it was not there."""
    rate: int | None = None
    """Native rate in Hz; None where nothing could be read."""


class _Buffer:
    """The scores of the recording that is being read.

    They go into two growing arrays: an object a window, between the large blocks of sound that come and go, would keep
    the memory of a long recording from being used again.
    """

    def __init__(self, species: int):
        self.silent = math.nan, np.full(species, np.nan)
        self.notes: dict[str, None] = {}
        self.rate: int | None = None
        self._spans, self._scores = array("d"), array("f")

    def add(self, window: Window, novelty: float, probabilities: np.ndarray) -> None:
        self._spans.extend((window.channel, window.start_s, window.end_s))
        self._scores.append(novelty)
        self._scores.extend(probabilities)
        self.notes |= dict.fromkeys(window.notes)
        self.rate = window.sample_rate

    def scores(self, path: Path, end: End) -> WindowScores:
        scores = np.array(self._scores).reshape(-1, 1 + len(self.silent[1]))
        spans, note = np.array(self._spans).reshape(-1, 3), "; ".join(self.notes)
        return WindowScores(path, spans, scores[:, 0], scores[:, 1:], end.problem, note, end.state, self.rate)


def score_recordings(
    classifier: Classifier,
    files: list[Path],
    options: WindowOptions,
    on_window: Callable[[Path, float], None] = lambda path, end_s: None,
) -> Iterator[WindowScores]:
    """Score every window of files, one file after the other; only the sound at hand is in memory.

    Args:
        on_window: is called after each window with its file and its end in seconds.
    """
    pool = WorkerPool(classifier.network)

    def score(batch: list[Item]) -> Predictions:
        spectrograms = [
            classifier.frontend(item.waveform, item.sample_rate).unsqueeze(0)
            for _, item in batch
            if isinstance(item, Window) and item.waveform is not None
        ]
        with pool.device_lock:
            return classifier.predict(spectrograms, pool.batch_size)

    buffer = _Buffer(len(classifier.classes))
    stream = window_stream(files, classifier.frontend.settings, options)
    for batch, predictions in pool.map(score, batches(stream, pool.batch_size)):
        scored = zip(predictions.novelty, predictions.probabilities, strict=True)
        for path, item in batch:
            if isinstance(item, End):
                yield buffer.scores(path, item)
                buffer = _Buffer(len(classifier.classes))
            else:
                buffer.add(item, *(buffer.silent if item.waveform is None else next(scored)))
                on_window(path, item.end_s)


def score_with_progress(classifier: Classifier, files: list[Path], options: WindowOptions) -> Iterator[WindowScores]:
    """As `score_recordings`, showing how far it is and how many times faster than the recordings."""
    ends = dict(zip(files, accumulate(map(duration, files)), strict=True))
    begins, started = dict(zip(files, [0.0, *ends.values()], strict=False)), time.perf_counter()
    with progress(transient=True) as bar:
        task = bar.add_task("Listening, s", total=round(max(ends.values(), default=0.0)), note="")

        def show(seconds: float) -> None:
            speed = seconds / (time.perf_counter() - started)
            bar.update(task, completed=round(seconds), note=f"{speed:.0f} times real time")

        for scores in score_recordings(classifier, files, options, lambda path, end_s: show(begins[path] + end_s)):
            show(ends[scores.path])
            yield scores
