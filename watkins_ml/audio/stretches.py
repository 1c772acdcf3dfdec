"""Stretches of a recording of any length, each decoded where it begins: one of them is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from watkins_ml.audio.decode import AudioError, Recording, flaw_between, sounds, window_starts
from watkins_ml.audio.formats import reason_of_content
from watkins_ml.audio.mixing import TURNED, mixed
from watkins_ml.audio.opening import Sound, check_window, open_audio
from watkins_ml.audio.stream import MIXED

NEAR = 1 << 16
"""A gap of so many samples is decoded rather than jumped over."""


@dataclass(frozen=True)
class Stretch:
    """A part of one channel of a recording."""

    start: int
    """Its first sample in the file."""
    waveform: np.ndarray
    """Mono float32, shape (samples,), at the native rate; empty where it cannot be used."""
    problem: str | None = None
    """Why it cannot be used."""
    notes: tuple[str, ...] = ()
    """What the user has to know of it, though it can be used."""


def window_grid(frames: int, window: int, step: int) -> np.ndarray:
    """The first samples of windows over a file of `frames` samples, int64, as `stream.sliding_windows` makes them.

    Each begins `step` after the one before; the last ends with the file, and a shorter file is one window.
    """
    starts = np.arange(0, max(frames - window, 0) + 1, max(step, 1), dtype=np.int64)
    if starts[-1] + window < frames:
        starts = np.append(starts, frames - window)
    return starts


def read_stretches(path: Path, starts: Sequence[int], samples: int, channel: int = MIXED) -> Iterator[Stretch]:
    """Stretches of `samples` from ascending `starts`; one at the end of the file may be shorter.

    Args:
        channel: MIXED, or one that counts from 1.

    Raises:
        AudioError: the file cannot be opened.
    """
    try:
        with open_audio(path) as audio:
            check_window(audio, samples / audio.samplerate)
            held, first = np.empty((0, audio.channels), np.float32), 0
            for start in starts:
                try:
                    held = _moved(audio, held, first, int(start), samples)
                except soundfile.LibsndfileError as error:
                    held = held[:0]
                    problem = f"unreadable at {start / audio.samplerate:.1f} s: {error.error_string.rstrip('.')}"
                    yield Stretch(int(start), np.empty(0, np.float32), problem)
                else:
                    yield _heard(held, int(start), min(samples, audio.frames - int(start)), channel)
                first = int(start)
    except soundfile.LibsndfileError as error:
        raise AudioError(reason_of_content(path, error)) from None
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from None


def _moved(audio: Sound, held: np.ndarray, first: int, start: int, samples: int) -> np.ndarray:
    """The samples from `start` on, (samples, channels), with what is `held` from `first` on and need not be read."""
    end = first + len(held)
    if first <= start < end:
        kept = held[start - first :]
        more = audio.read(samples - len(kept), dtype="float32", always_2d=True)
        return np.concatenate([kept, more])
    if not (len(held) and 0 <= start - end <= NEAR):
        audio.seek(start)
    elif start > end:
        audio.read(start - end, dtype="float32", always_2d=True)
    return audio.read(samples, dtype="float32", always_2d=True)


def _heard(samples: np.ndarray, start: int, wanted: int, channel: int) -> Stretch:
    def unusable(problem: str) -> Stretch:
        return Stretch(start, np.empty(0, np.float32), problem)

    if len(samples) < wanted or not len(samples):
        return unusable(f"truncated: {len(samples)} of {wanted} samples can be read")
    if flaw := flaw_between(samples.min(), samples.max()):
        return unusable(flaw)
    if channel == MIXED:
        waveform, turned = mixed(samples)
    else:
        waveform, turned = samples[:, channel - 1].copy(), False
    if not sounds(waveform):
        return unusable("silent: every sample has the same value")
    return Stretch(start, waveform, None, (TURNED,) if turned else ())


def read_stretch(
    path: Path, times: tuple[float, float], channel: int, excerpt_s: float, most: int = 1, slack_s: float = 0.0
) -> Recording:
    """One stretch, from and to seconds, as if it were a recording of its own; the others as in `read_recording`.

    Raises:
        AudioError: the file cannot be read, or the stretch cannot be used.
    """
    try:
        with open_audio(path) as audio:
            rate, channels = audio.samplerate, audio.channels
    except soundfile.LibsndfileError as error:
        raise AudioError(reason_of_content(path, error)) from None
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from None
    start, end = (round(seconds * rate) for seconds in times)
    (stretch,) = read_stretches(path, [start], max(1, end - start), channel)
    if stretch.problem:
        raise AudioError(stretch.problem)
    waveform = stretch.waveform
    wanted = min(len(waveform), round(excerpt_s * rate))
    (middle,) = window_starts(len(waveform), wanted, 1)
    offsets = window_starts(len(waveform), wanted, most, round(slack_s * rate))
    excerpts = {at: waveform[at : at + wanted] for at in offsets if sounds(waveform[at : at + wanted])}
    several = len(excerpts) > 1
    return Recording(
        excerpts[middle] if several and middle in excerpts else waveform[middle : middle + wanted],
        rate, channels, len(waveform), "", tuple(excerpts.values()) if several else (),
        tuple(start + at for at in (excerpts if several else [middle])), stretch.notes,
    )  # fmt: skip
