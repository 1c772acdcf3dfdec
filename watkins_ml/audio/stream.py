"""Windows over a recording of any length, decoded as they are asked for: only the windows in use are in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from watkins_ml.audio.decode import (
    AudioError,
    Recording,
    flaw_between,
    frames_at_once,
    read_recording,
    sounds,
    truncation,
)
from watkins_ml.audio.formats import reason_of_content
from watkins_ml.audio.mixing import TURNED, mixed
from watkins_ml.audio.opening import Sound, check_window, open_audio
from watkins_ml.audio.settings import MOST_WINDOWS

MIXED = 0
"""The channel of a window that is the mean of all; single channels count from 1."""
UNKNOWN_LENGTH = 1 << 50
"""More samples than any recording has: a stream whose encoder left the length open."""


@dataclass(frozen=True)
class Window:
    """A stretch of one channel of a recording."""

    channel: int
    start_s: float
    end_s: float
    waveform: np.ndarray | None
    """Mono float32, shape (samples,), at the native rate; None where there is nothing to hear (digital silence)."""
    sample_rate: int
    """Native rate in Hz."""
    notes: tuple[str, ...] = ()
    """What the user has to know of the recording, though it can be used."""


def duration(path: Path) -> float:
    """Seconds that a file claims to last; 0 where it cannot be opened."""
    try:
        with open_audio(path) as audio:
            return audio.frames / audio.samplerate if audio.frames < UNKNOWN_LENGTH else 0.0
    except (soundfile.LibsndfileError, OSError, AudioError):
        return 0.0


def examined_whole(frames: int, sample_rate: int, seconds: float) -> bool:
    """Whether what lies between a recording's silent ends is looked for, so that it can be a single window."""
    return 0 < frames <= MOST_WINDOWS * round(seconds * sample_rate)


def sliding_windows(
    path: Path, seconds: float, overlap: float = 0.5, each_channel: bool = False, slack_s: float = 0.0
) -> Iterator[Window]:
    """Windows of `seconds`, each `overlap` (0 to below 1) of a window on the one before; the last ends with the file.

    Every sample is in a window. A file in which what lies between its silent ends is longer than one by at most
    `slack_s` seconds is a single window of that, as in training (if it is not longer than `MOST_WINDOWS`). With
    `each_channel` every channel has windows of its own, else they are mixed.

    Raises:
        AudioError: after all windows that could be decoded, what is wrong with the file.
    """
    try:
        with open_audio(path) as audio:
            window = round(seconds * audio.samplerate)
            longest = window + round(slack_s * audio.samplerate)
            apart = each_channel and audio.channels > 1
            if examined_whole(audio.frames, audio.samplerate, seconds) and not apart:
                with suppress(AudioError):  # silent, or damaged: then what there is of it
                    recording = read_recording(path, seconds, MOST_WINDOWS, slack_s)
                    if not recording.windows:
                        yield _only(recording, audio.frames <= longest)
                        return
            yield from _slide(audio, window, max(1, round(window * (1 - overlap))), apart)
    except soundfile.LibsndfileError as error:
        raise AudioError(reason_of_content(path, error)) from None
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from None


def _only(recording: Recording, whole: bool) -> Window:
    """The one window of a recording; with `whole` it stands for all of it, silent ends too."""
    rate, start = recording.sample_rate, recording.starts[0]
    ends = (0, recording.frames) if whole else (start, start + len(recording.waveform))
    return Window(MIXED, ends[0] / rate, ends[1] / rate, recording.waveform, rate, recording.notes)


def _slide(audio: Sound, window: int, step: int, each_channel: bool) -> Iterator[Window]:
    if audio.frames <= 0:
        raise AudioError("empty: no samples")
    check_window(audio, window / audio.samplerate)
    problem, rate = truncation(audio), audio.samplerate
    room = np.empty((min(window, audio.frames) + (at_once := frames_at_once(audio, max(step, rate))), audio.channels),
                    np.float32)  # fmt: skip
    first, total, begin = 0, 0, 0  # samples from `first` to `total` are in `room`; the next window's begin

    def cut(start: int) -> Iterator[Window]:
        samples = room[start - first : min(start + window, total) - first]
        ends = start / rate, (start + len(samples)) / rate
        notes: tuple[str, ...] = (audio.plan.note,) if audio.plan.note else ()
        parts: Iterable[tuple[int, np.ndarray]]
        if each_channel:
            parts = ((channel, part.copy()) for channel, part in enumerate(samples.T, start=1))
        else:
            waveform, turned = mixed(samples)
            parts = [(MIXED, waveform)]
            notes += (TURNED,) * turned
        for channel, part in parts:
            usable = flaw_between(part.min(), part.max()) is None and sounds(part)
            yield Window(channel, *ends, part if usable else None, rate, notes)

    while True:
        try:
            block = audio.read(out=room[total - first : total - first + at_once])
        except soundfile.LibsndfileError as error:
            problem = problem or f"unreadable after {total / rate:.1f} s: {error.error_string.rstrip('.')}"
            break
        if not len(block):
            break
        problem = problem or flaw_between(block.min(), block.max())
        total += len(block)
        while begin + window <= total:
            yield from cut(begin)
            begin += step
        needed = max(first, total - window)  # the last window may begin right after the one before it
        if needed > first:
            room[: total - needed] = room[needed - first : total - first]
            first = needed
    problem = problem or truncation(audio)
    if total < audio.frames < UNKNOWN_LENGTH and not audio.plan.guessed:
        problem = problem or f"truncated: {total} of {audio.frames} samples can be read"
    if total > (begin - step + window if begin else 0):
        yield from cut(max(0, total - window))
    if problem:
        raise AudioError(problem)
