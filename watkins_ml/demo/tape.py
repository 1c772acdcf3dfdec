"""What a tape does to a call: its noise, its hum, its level and the response of its recorder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf

from watkins_ml.demo.synthesis import Rng


@dataclass(frozen=True)
class Tape:
    """One tape: a five-character id, and the rate (Hz), channels and noise common to every cut from it.

    The noise falls by `tilt` dB per octave above `corner` Hz and stands at `level` dB re full scale (RMS);
    mains hum of `hum` Hz with its third harmonic lies `hum_level` dB above it (below it when negative).
    Noise, hum and call have passed through `response`, if there is one: from samples (frames,) at a rate (Hz) to what
    the recorder makes of them.
    """

    id: str
    rate: int
    channels: int
    tilt: float
    corner: float
    level: float
    hum: float
    hum_level: float
    response: Callable[[np.ndarray, int], np.ndarray] | None = None


def unit_loudness(clean: np.ndarray) -> np.ndarray:
    """The call with an RMS of one while it sounds."""
    loud = clean[np.abs(clean) > 0.03 * np.abs(clean).max()]
    return clean / np.sqrt(np.mean(loud**2))


def record(rng: Rng, call: np.ndarray, band: tuple[float, float], tape: Tape) -> np.ndarray:
    """The call as the tape holds it: int16 samples, (frames, channels).

    An RMS of one in `call` is as loud as the tape's noise is within `band` (hertz).
    """
    out = np.empty((len(call), tape.channels), np.float32)
    for channel in range(tape.channels):
        noise, in_band = _noise(rng, len(call), band, tape)
        # The second hydrophone is a little farther from the animal: later, and weaker by 3 dB.
        late = np.pad(call, (20 * channel, 0))[: len(call)] * 0.7**channel
        sound = noise + in_band * late
        out[:, channel] = tape.response(sound, tape.rate) if tape.response else sound
    out *= 10 ** (tape.level / 20)
    out *= min(1.0, 0.98 / np.abs(out).max())
    return np.round(out * 32767).astype(np.int16)


def _noise(rng: Rng, frames: int, band: tuple[float, float], tape: Tape) -> tuple[np.ndarray, float]:
    """Tape noise and hum, the noise with an RMS of one, and the RMS of its part within `band` (hertz)."""
    padded = fast_length(frames)
    frequency = np.fft.rfftfreq(padded, 1 / tape.rate).astype(np.float32)
    shape = np.maximum(frequency / tape.corner, 1) ** (-tape.tilt / 6.02)
    shape[0] = 0  # no offset
    white = rng.standard_normal(2 * len(shape), dtype=np.float32).view(np.complex64)
    noise = np.fft.irfft(white * shape, padded)[:frames]
    inside = (frequency >= band[0]) & (frequency <= band[1])
    in_band = np.sqrt(np.sum(shape[inside] ** 2) / np.sum(shape**2))
    turns = (tape.hum / tape.rate * np.arange(frames) + rng.uniform()).astype(np.float32)
    hum = np.sin(np.float32(2 * np.pi) * turns)
    hum *= 2.2 - 1.6 * hum * hum  # sin x + 0.4 sin 3x
    return noise / noise.std() + hum * 10 ** (tape.hum_level / 20), float(in_band)


def fast_length(frames: int) -> int:
    """At least `frames`, of which a Fourier transform is fast."""
    return -(-frames // 4096) * 4096


def write_wav(path: Path, samples: np.ndarray, rate: int) -> None:
    """Write int16 samples as 16-bit PCM, whole or not at all."""
    part = path.with_suffix(".part")
    sf.write(part, samples, rate, format="WAV", subtype="PCM_16")
    part.replace(path)
