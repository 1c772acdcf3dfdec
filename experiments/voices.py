"""Invented calls, one a species: for a simulated archive, in which the truth has to be known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from watkins_ml.demo.synthesis import Rng, envelope, harmonics, onset_times, place, positions

LOWEST, HIGHEST = 250.0, 3000.0
TOP = 7500.0
"""Hertz: no partial goes higher, so that the default frontend's 16 kHz hold every call."""


@dataclass(frozen=True)
class Voice:
    """The call of an invented species; every animal and every cut varies it a little.

    It starts around `pitch` hertz, glides by `glide` octaves over its `length` (seconds) and bends by `bend`
    octaves in the middle, wavering by `waver` octaves `waver_rate` times a second. It has `partials` harmonics,
    each `fall` times as strong as the one before, is beaten `pulses` times a second (0: not at all), and comes
    again `gap` seconds after it ended.
    """

    pitch: float
    glide: float
    bend: float
    waver: float
    waver_rate: float
    partials: int
    fall: float
    pulses: float
    length: float
    gap: float

    @classmethod
    def drawn(cls, rng: Rng) -> Voice:
        tone = rng.uniform() < 0.4
        return cls(
            pitch=LOWEST * (HIGHEST / LOWEST) ** rng.uniform(),
            glide=rng.uniform(-1.2, 1.2),
            bend=rng.uniform(-0.7, 0.7),
            waver=rng.choice([0.0, 0.08, 0.2]),
            waver_rate=rng.uniform(4, 16),
            partials=1 if tone else int(rng.integers(3, 10)),
            fall=rng.uniform(0.5, 0.9),
            pulses=rng.choice([0.0, rng.uniform(15, 80)]),
            length=0.12 * 6 ** rng.uniform(),
            gap=0.06 * 8 ** rng.uniform(),
        )

    @property
    def band(self) -> tuple[float, float]:
        """The hertz between which the call moves."""
        reach = 2 ** (abs(self.glide) / 2 + abs(self.bend) + self.waver)
        return self.pitch / reach, min(TOP, self.pitch * reach * self.partials)

    def call(self, rng: Rng, rate: int, seconds: float) -> np.ndarray:
        """`seconds` of audio at `rate` hertz with at least one call, exactly zero where there is none."""
        length = min(self.length * rng.uniform(0.85, 1.15), 0.8 * seconds)
        u = positions(length, rate)
        contour = self.glide * rng.uniform(0.85, 1.15) * (u - 0.5) + self.bend * np.sin(np.pi * u)
        contour += self.waver * np.sin(2 * np.pi * (self.waver_rate * length * u + rng.uniform()))
        frequency = self.pitch * 2 ** (contour + rng.normal(0, 0.04))
        partials = max(1, min(self.partials, int(TOP / frequency.max())))
        call = harmonics(frequency, rate, self.fall ** np.arange(partials)) * envelope(u, 0.1, 0.2)
        if self.pulses:
            call *= np.sin(np.pi * self.pulses * length * u) ** 2
        call /= np.abs(call).max()
        starts = onset_times(rng, seconds, length + self.gap * rng.uniform(0.8, 1.2), length, 0.05)
        return place(seconds, rate, [(t, call * rng.uniform(0.7, 1)) for t in starts])
