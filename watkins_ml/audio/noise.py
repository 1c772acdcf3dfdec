"""Noise of many colours: what recorders hear when nobody calls."""

from __future__ import annotations

import numpy as np
from scipy import fft

FLOOR = 1e-4
"""Amplitude above a cut-off, relative to full: below every frontend's dynamic range."""


def coloured_noise(rng: np.random.Generator, samples: int) -> np.ndarray:
    """Stationary Gaussian noise with a spectrum of its own, float32 of shape (samples,), standard deviation 0.1.

    Its level runs in straight lines of decibels between two to eight random places over the logarithm of frequency,
    flat in some and by tens of decibels in others; in every other one nothing is left above a random cut-off, as in
    recordings made at a lower sample rate.
    """
    length = fft.next_fast_len(samples, real=True)  # transforms of a prime number of samples take six times longer
    spectrum = fft.rfft(rng.standard_normal(length))
    height = np.log(np.arange(1, len(spectrum) + 1)) / np.log(len(spectrum))
    places = np.sort(np.concatenate([[0.0, 1.0], rng.random(rng.integers(0, 7))]))
    decibels = rng.uniform(0, 30) * rng.standard_normal(len(places))
    spectrum *= 10 ** (np.interp(height, places, decibels) / 20)
    if rng.random() < 0.5:
        spectrum[round(rng.uniform(0.15, 1) * len(spectrum)) :] *= FLOOR
    noise = fft.irfft(spectrum, length)[:samples]
    return (0.1 * noise / noise.std()).astype(np.float32)
