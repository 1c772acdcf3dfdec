"""Reading recordings through libsndfile, in blocks, so that a 30-minute file costs no more memory than a cut."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".mp3", ".aif", ".aiff", ".aifc"})
BLOCK_FRAMES = 1 << 18
UNKNOWN_LENGTHS = frozenset({0, 0x7FFFFFFF, 0xFFFFFFFF})  # what streaming recorders leave in a header


class AudioError(Exception):
    """This file holds no usable audio; the message is the reason, fit for `rejected.csv`."""


@dataclass(frozen=True)
class Recording:
    """One decoded recording, or the excerpt of it that was asked for."""

    waveform: np.ndarray
    """Mono float32, shape (samples,), full scale ±1: the mean of the channels."""
    sample_rate: int
    """Native rate in Hz."""
    channels: int
    frames: int
    """Length of the whole file in samples a channel."""
    digest: str
    """SHA-256 of the decoded audio and its rate: equal for copies under another name or container."""

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate


def read_recording(path: Path | BinaryIO, excerpt_s: float | None = None) -> Recording:
    """Decode a file (path or open binary file) to mono at its native rate, checking all of it.

    With `excerpt_s`, `waveform` holds only the central `excerpt_s` seconds (all of a shorter file).

    Raises:
        AudioError: unreadable, truncated, empty, all-silent, or with samples that are not numbers.
    """
    try:
        with soundfile.SoundFile(path) as audio:
            return _read(audio, excerpt_s)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".")
        raise AudioError(f"unreadable: {reason}") from None
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from None


def _read(audio: soundfile.SoundFile, excerpt_s: float | None) -> Recording:
    declared = audio.frames
    if declared <= 0:
        raise AudioError("empty: no samples")
    if truncated := _truncation(audio.extra_info):
        raise AudioError(truncated)
    wanted = declared if excerpt_s is None else min(declared, round(excerpt_s * audio.samplerate))
    first = (declared - wanted) // 2
    digest = hashlib.sha256(f"{audio.samplerate}/{audio.channels}/".encode())
    kept: list[np.ndarray] = []
    low, high, position = np.inf, -np.inf, 0
    while len(block := audio.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        digest.update(block.tobytes())
        low, high = min(low, block.min()), max(high, block.max())
        inside = block[max(first - position, 0) : max(first + wanted - position, 0)]
        if len(inside):
            kept.append(inside.mean(axis=1, dtype=np.float32))
        position += len(block)
    if position < declared:
        raise AudioError(f"truncated: {position} of {declared} samples can be read")
    if not (np.isfinite(low) and np.isfinite(high)):
        raise AudioError("holds samples that are not numbers")
    if low == high:
        raise AudioError("silent: every sample has the same value")
    return Recording(np.concatenate(kept), audio.samplerate, audio.channels, position, digest.hexdigest())


def _truncation(libsndfile_log: str) -> str | None:
    """libsndfile plays what is left of a cut-off file without an error; only its log tells."""
    match = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", libsndfile_log)
    if match and int(match[1]) > int(match[2]) and int(match[1]) not in UNKNOWN_LENGTHS:
        return f"truncated: {match[2]} of {match[1]} bytes of audio are there"
    if "lacks an end-of-stream" in libsndfile_log:
        return "truncated: the Ogg stream has no end"
    return None
