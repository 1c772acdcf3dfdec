"""Reading recordings through libsndfile, in blocks, so that a 30-minute file costs no more memory than a cut."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from watkins_ml.audio.formats import reason_of_content
from watkins_ml.audio.headers import UNKNOWN_LENGTHS
from watkins_ml.audio.mixing import TURNED, mixed
from watkins_ml.audio.opening import AudioError, SilenceError, Sound, check_window, open_audio

DECODER_VERSION = 2
"""Raised whenever a file is read otherwise than before, or refused for another reason, so that it is read again."""
BLOCK_FRAMES = 1 << 20
BLOCK_SAMPLES = 1 << 22
"""Over all channels; a damaged header can claim hundreds of them, and any length."""
MOST_KEPT = 1 << 26
"""Samples in the windows of a recording together: so many of them as fit."""
LOUDEST = 1e12
"""Full scale is 1, or 2^31 where floating point holds integers; the power of what is far beyond overflows."""
SILENCE = 1e-5
"""Below the last bit of a 16-bit file: digital silence, as archives append to make cuts equally long."""


@dataclass(frozen=True)
class Recording:
    """One decoded recording, or the excerpt of it that was asked for."""

    waveform: np.ndarray
    """Mono float32, shape (samples,), full scale ±1: the channels as `mixed` mixes them."""
    sample_rate: int
    """Native rate in Hz."""
    channels: int
    frames: int
    """Length of the whole file in samples a channel."""
    digest: str
    """SHA-256 of the decoded audio and its rate: equal for copies under another name or container."""
    windows: tuple[np.ndarray, ...] = ()
    """Excerpts that cover a recording longer than one, in order and as long as `waveform`; else none. The central one
    of an odd number is `waveform` itself."""
    starts: tuple[int, ...] = (0,)
    """The sample of the file with which each of `windows` begins, or `waveform` where there are none."""
    notes: tuple[str, ...] = ()
    """What the user has to know of the file, though it can be used."""

    @property
    def duration_s(self) -> float:
        return self.frames / self.sample_rate


def read_recording(
    path: Path | BinaryIO, excerpt_s: float | None = None, most: int = 1, slack_s: float = 0.0
) -> Recording:
    """Decode a file (path or open binary file) to mono at its native rate, checking all of it.

    Digital silence at both ends is left away. With `excerpt_s`, `waveform` holds only the central
    `excerpt_s` seconds of what remains (all of it where it is shorter). With `most` > 1, `windows` are up to so
    many excerpts that cover what remains but for `slack_s` seconds; a silent one between sounds is left away.

    Raises:
        AudioError: unreadable, truncated, empty, all-silent, or with samples that are not numbers.
    """
    try:
        if isinstance(path, Path) and path.stat().st_size == 0 and path.is_file():
            raise AudioError("empty: no bytes")
        with open_audio(path) as audio:
            return _read(audio, excerpt_s, most, slack_s)
    except soundfile.LibsndfileError as error:
        raise AudioError(reason_of_content(path, error)) from None
    except OSError as error:
        raise AudioError(f"unreadable: {error.strerror or error}") from None


def frames_at_once(audio: soundfile.SoundFile, wanted: int) -> int:
    """As many frames as wanted, or as fit in memory with all their channels."""
    return min(wanted, BLOCK_SAMPLES // audio.channels)


def _read(audio: Sound, excerpt_s: float | None, most: int, slack_s: float) -> Recording:
    declared = audio.frames
    if declared <= 0:
        raise AudioError("empty: no samples")
    if truncated := truncation(audio):
        raise AudioError(truncated)
    digest = hashlib.sha256(f"{audio.samplerate}/{audio.channels}/".encode())
    low, high, position, first, last = np.inf, -np.inf, 0, None, 0
    while len(block := audio.read(frames_at_once(audio, BLOCK_FRAMES), dtype="float32", always_2d=True)):
        digest.update(block)
        low, high = np.minimum(low, block.min()), np.maximum(high, block.max())  # both let NaN through
        if sound := _sound_in(block):
            first = position + sound.start if first is None else first
            last = position + sound.stop
        position += len(block)
        only_block = block if len(block) == position else None
    if damage := truncation(audio):  # some damage is in the log only once it has been read
        raise AudioError(damage)
    if position < declared and not audio.plan.guessed:
        raise AudioError(f"truncated: {position} of {declared} samples can be read")
    if flaw := flaw_between(low, high):
        raise AudioError(flaw)
    if low == high:
        raise SilenceError("silent: every sample has the same value")
    if first is None:
        raise SilenceError("silent: every sample is below -100 dB of full scale")
    wanted = last - first
    if excerpt_s is not None:
        check_window(audio, excerpt_s)
        wanted = min(wanted, round(excerpt_s * audio.samplerate))
    turned = False

    def excerpt(offset: int) -> np.ndarray:
        nonlocal turned
        start = int(first + offset)
        if only_block is not None:
            channels = only_block[start : start + wanted]
        else:
            audio.seek(start)
            channels = audio.read(wanted, dtype="float32", always_2d=True)
        waveform, inverted = mixed(channels)
        turned |= inverted
        return waveform

    most = min(most, max(1, MOST_KEPT // wanted))
    (middle,) = window_starts(last - first, wanted, 1)
    offsets = window_starts(last - first, wanted, most, round(slack_s * audio.samplerate))
    windows = {at: window for at in offsets if sounds(window := excerpt(at))} if len(offsets) > 1 else {}
    is_complete = wanted == last - first or (len(offsets) > 1 and not windows)
    if len(windows) == 1:
        windows = {}
    waveform = windows[middle] if middle in windows else excerpt(middle)
    if is_complete and not sounds(waveform):
        raise SilenceError("silent: nothing but an offset")
    return Recording(
        waveform, audio.samplerate, audio.channels, position, digest.hexdigest(), tuple(windows.values()),
        tuple(int(first + at) for at in windows or [middle]),
        tuple(note for note in (audio.plan.note, TURNED if turned else None) if note),
    )  # fmt: skip


def _sound_in(block: np.ndarray) -> range | None:
    """From the first to the last frame of `block`, (frames, channels), that is not silent; None where all are."""
    samples, channels = block.ravel(), block.shape[1]
    first = _silent_before(samples)
    if first == len(samples):
        return None
    return range(first // channels, len(block) - _silent_before(samples[::-1]) // channels)


def _silent_before(samples: np.ndarray) -> int:
    """How many samples are silent before the first sound; most recordings begin at once."""
    step = 1 << 14
    for start in range(0, len(samples), step):
        sounding = np.abs(samples[start : start + step]) > SILENCE
        if sounding.any():
            return start + int(sounding.argmax())
    return len(samples)


def window_starts(length: int, window: int, most: int, slack: int = 0) -> list[int]:
    """Where windows begin that cover `length` samples but for `slack` of them: the fewest, evenly spread, in order.

    At most `most` of them, which then leave gaps; a single one lies in the centre.
    """
    count = min(most, max(1, -(-(length - slack) // window)))
    if count == 1:
        return [(length - window) // 2]
    return [(length - window) * number // (count - 1) for number in range(count)]


def flaw_between(low: float, high: float) -> str | None:
    """Why audio with these extremes (NaN where any sample is) cannot be used; None where it can."""
    if np.isnan(low) or np.isnan(high):
        return "holds samples that are not numbers"
    if np.isinf(low) or np.isinf(high):
        return "holds infinite samples, which are not numbers"
    if max(-low, high) > LOUDEST:
        return f"holds samples up to {max(-low, high):.0e} where full scale is 1"
    return None


def sounds(waveform: np.ndarray) -> bool:
    """Whether there is something to hear; an offset alone is nothing."""
    return bool(waveform.max() - waveform.min() > SILENCE)


def truncation(audio: Sound) -> str | None:
    """libsndfile plays what is left of a cut-off or holed file without an error; only its log tells."""
    if audio.plan.problem:
        return audio.plan.problem
    log = audio.extra_info
    match = None if audio.plan.whole else re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", log)
    if match and int(match[1]) > int(match[2]) and not any(int(match[1]) in lengths for lengths in UNKNOWN_LENGTHS):
        return f"truncated: {match[2]} of {match[1]} bytes of audio are there"
    if "lacks an end-of-stream" in log:
        return "truncated: the Ogg stream has no end"
    if "Junk after the last page" in log:
        return "damaged: what follows the last whole page of the Ogg stream is none"
    if "libogg reports a hole" in log:
        return "damaged: a part of the Ogg stream is missing"
    return None
