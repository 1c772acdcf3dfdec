"""Opening recordings with libsndfile: whole, whatever their headers say, within bounds, and quietly."""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import soundfile

from watkins_ml.audio.containers import plan_container
from watkins_ml.audio.formats import reason_of_kind
from watkins_ml.audio.packets import plan_packets
from watkins_ml.audio.parts import Parts, Plan, Source

RATES = range(10, 2_500_001)
"""Hz. Sea-floor hydrophones begin at tens of Hz, and the fastest recorders of ultrasound end at 2.5 MHz."""
SAMPLES_A_SECOND = 1 << 23
"""Over all channels: 87 of them at 96 kHz, three at 2.5 MHz. What a header claims beyond is damage, or does not fit."""


WINDOW_SAMPLES = 1 << 26
"""Of one window, over all channels: 256 MiB."""


class AudioError(Exception):
    """This file holds no usable audio; the message is the reason, fit for `rejected.csv`."""


class SilenceError(AudioError):
    """Nothing is wrong with the file, but there is nothing to hear."""


class Sound(soundfile.SoundFile):
    """An open recording."""

    def __init__(self, source: bytes | Path | Parts, plan: Plan, owned: BinaryIO | None):
        self.plan = plan
        self._owned = owned
        with without_remarks():  # whatever the file is: libsndfile asks libmpg123 too because of a name
            super().__init__(source, **({"format": "RAW", **plan.raw} if plan.raw else {}))

    def _silence(self) -> contextlib.AbstractContextManager:
        return without_remarks() if self.format == "MP3" else contextlib.nullcontext()

    def read(self, *args: Any, **kwargs: Any) -> Any:
        with self._silence():
            return super().read(*args, **kwargs)

    def seek(self, *args: Any, **kwargs: Any) -> int:
        with self._silence():
            return super().seek(*args, **kwargs)

    def close(self) -> None:
        super().close()
        if self._owned is not None:
            self._owned.close()


def open_audio(path: Path | BinaryIO) -> Sound:
    """The recording in a file (path or open binary file), all of it, even where its header says less.

    Raises:
        AudioError: what libsndfile has no reader for, headerless `.raw` for one; a rate or a number of channels that
            no recorder has.
        soundfile.LibsndfileError, OSError: what cannot be opened.
    """
    if isinstance(path, Path) and (reason := reason_of_kind(path)):
        raise AudioError(reason)
    file = open(path, "rb") if isinstance(path, Path) else path
    try:
        audio = _open(path, file, None if file is path else file)
    except BaseException:
        if file is not path:
            file.close()
        raise
    try:
        _check_bounds(audio)
    except AudioError:
        audio.close()
        raise
    return audio


def check_window(audio: Sound, seconds: float) -> None:
    """Raise an AudioError where so many seconds of all channels take more memory than a window may."""
    samples = min(audio.frames, seconds * audio.samplerate) * audio.channels
    if samples > WINDOW_SAMPLES:
        raise AudioError(
            f"too large: {seconds:,.4g} s of {audio.channels:,} channels at {audio.samplerate:,} Hz are more than "
            f"{WINDOW_SAMPLES:,} samples, the most of one window; divide its channels into several files, or "
            "take a model of shorter windows"
        )


def _open(path: Path | BinaryIO, file: BinaryIO, owned: BinaryIO | None) -> Sound:
    source = Source(file)
    plan = plan_container(source) or plan_packets(source) or Plan()
    if plan.problem and not plan.parts:
        raise AudioError(plan.problem)
    try:
        if plan.parts or owned is None or os.name != "posix":
            return Sound(Parts(file, plan.parts or (range(source.size),)), plan, owned)
        return Sound(os.fsencode(str(path)), plan, owned)  # soundfile refuses names that are not UTF-8
    except (TypeError, ValueError) as error:
        raise AudioError(f"unreadable: {error}") from None


def _check_bounds(audio: Sound) -> None:
    rate, channels = audio.samplerate, audio.channels
    if rate not in RATES:
        raise AudioError(f"unreadable: a sample rate of {rate} Hz, so its header is damaged")
    if rate * channels > SAMPLES_A_SECOND:
        raise AudioError(
            f"unreadable: {channels:,} channels at {rate:,} Hz are more than {SAMPLES_A_SECOND:,} samples a second; "
            "divide its channels into several files"
        )


@cache
def _c_stderr() -> tuple[ctypes.c_void_p, int] | None:
    """Where the C library keeps what its programs write remarks to, and another such file that leads nowhere."""
    try:
        library = ctypes.CDLL(None)
        library.fopen.restype = ctypes.c_void_p
        try:
            stream = ctypes.c_void_p.in_dll(library, "stderr")
        except ValueError:
            stream = ctypes.c_void_p.in_dll(library, "__stderrp")  # macOS
        nowhere = library.fopen(os.fsencode(os.devnull), b"w")
        return (stream, nowhere) if nowhere else None
    except (OSError, ValueError, AttributeError, TypeError):
        return None


_lock, _silenced, _usual = threading.Lock(), 0, None


@contextmanager
def without_remarks() -> Iterator[None]:
    """libmpg123 writes notes of every damaged frame to C's `stderr`, and libsndfile has no way to quieten it.

    Only that is exchanged, not the descriptor 2 behind it: what Python, its threads and child processes write there is
    not touched. Where C's `stderr` cannot be exchanged (Windows), the notes remain.
    """
    global _silenced, _usual
    found = _c_stderr()
    if found is None:
        yield
        return
    stream, nowhere = found
    with _lock:
        if _silenced == 0:
            _usual, stream.value = stream.value, nowhere
        _silenced += 1
    try:
        yield
    finally:
        with _lock:
            _silenced -= 1
            if _silenced == 0:
                stream.value = _usual
