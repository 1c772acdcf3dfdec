"""What calls are made of: contours, harmonics and envelopes, laid into silence."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

Rng = np.random.Generator


def place(seconds: float, rate: int, events: Iterable[tuple[float, np.ndarray]]) -> np.ndarray:
    """Lay (onset in seconds, waveform) events into silence `seconds` long, cutting what runs over the end."""
    out = np.zeros(round(seconds * rate))
    for onset, wave in events:
        start = round(onset * rate)
        wave = wave[: len(out) - start]
        out[start : start + len(wave)] += wave
    return out


def onset_times(rng: Rng, seconds: float, interval: float, length: float, jitter: float) -> np.ndarray:
    """Onset times of calls of `length` seconds recurring every `interval` (give or take the share `jitter`).

    The first comes at random within the first interval; each of them ends before `seconds`.
    """
    first = rng.uniform(0, min(interval, seconds - length))
    gaps = interval * rng.uniform(1 - jitter, 1 + jitter, int(seconds / (interval * (1 - jitter))) + 1)
    times = first + np.concatenate([[0.0], np.cumsum(gaps)])
    return times[times <= seconds - length]


def positions(length: float, rate: int) -> np.ndarray:
    """Sample positions along a call of `length` seconds, from 0 to 1."""
    return np.linspace(0, 1, max(2, round(length * rate)))


def harmonics(frequency: np.ndarray, rate: int, weights: Iterable[float]) -> np.ndarray:
    """A tone following `frequency` (hertz per sample) with the given amplitudes for harmonics 1, 2, 3, ..."""
    phase = 2 * np.pi * np.cumsum(frequency) / rate
    parts = (weight * np.sin(k * phase) for k, weight in enumerate(weights, start=1) if weight)
    return sum(parts, np.zeros_like(phase))


def envelope(u: np.ndarray, attack: float, release: float) -> np.ndarray:
    """Raised-cosine rise over the share `attack` of the call and fall over the share `release`."""
    rise = np.clip(u / attack, 0, 1)
    fall = np.clip((1 - u) / release, 0, 1)
    return np.sin(np.pi / 2 * rise) ** 2 * np.sin(np.pi / 2 * fall) ** 2
