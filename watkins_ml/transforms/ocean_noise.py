"""Generated noise of the sea."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from watkins_ml.transforms.mel_scale import frequencies, frontend_of
from watkins_ml.transforms.recorder import NEPERS, chosen, not_below, standardised, uniform
from watkins_ml.transforms.transform import Batch, SpectrogramTransform

if TYPE_CHECKING:
    import torch

    from watkins_ml.audio.settings import FrontendSettings


DECIBEL = math.log(10) / 10
"""As the natural logarithm of a power."""
LOWEST = 5.0
"""Hz; below it the formulas do not hold."""
HANN_BANDWIDTH = 1.5
"""Noise bandwidth of a Hann window, in bins of its own length."""


class OceanNoise(SpectrogramTransform):
    """Mix the noise of a sea that never was into some recordings: turbulence, ships, wind, rain, and a recorder's hiss.

    Wenz 1962, Acoustic ambient noise in the ocean, J. Acoust. Soc. Am. 34, with the formulas of Coates 1990, Underwater
    Acoustic Systems; each recording gets a sea of its own, and no recordings of noise are needed. Powers are added on
    the scale that `background` has; so it is for the log frontend. Labels stay.
    """

    name: Literal["ocean_noise"]
    lowest_snr: float = Field(default=0.0, ge=-60, le=120)
    """The lowest signal-to-noise ratio in dB: the mean power of the recording over that of the noise."""
    highest_snr: Annotated[float, not_below("lowest_snr")] = Field(default=30.0, validate_default=True, ge=-60, le=120)
    """The highest one."""
    probability: float = Field(default=0.5, gt=0, le=1)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        spectrograms, settings = batch.spectrograms, frontend_of(batch)
        count, _, bands, frames = spectrograms.shape
        edges = frequencies(settings, bands)
        width = (edges[2:] - edges[:-2]) / 2
        level = (spectrum(edges[1:-1], count, generator) + 10 * width.log10()) * DECIBEL
        noise = level[:, None, :, None] + fluctuation((count, 1, bands, frames), width, settings, generator).log()
        noise = noise.to(spectrograms.device)
        ratio = uniform(count, self.lowest_snr, self.highest_snr, generator, spectrograms.device) * DECIBEL
        changed = added(spectrograms * NEPERS, noise, ratio) / NEPERS
        return batch._replace(spectrograms=chosen(standardised(changed), spectrograms, self.probability, generator))


def added(sound: torch.Tensor, noise: torch.Tensor, ratio: torch.Tensor) -> torch.Tensor:
    """Noise added to sound at a ratio of mean powers, all natural logarithms of powers (batch, 1, n_mels, frames)."""
    import torch

    power, its = (each.logsumexp(dim=(-2, -1), keepdim=True) for each in (sound, noise))
    return torch.logaddexp(sound, noise + power - its - ratio)


def spectrum(hertz: torch.Tensor, seas: int, generator: torch.Generator) -> torch.Tensor:
    """Spectral density of noise in different seas, dB re 1 µPa²/Hz, float32 (seas, frequencies).

    Shipping from none to heavy, wind from 0 to 20 m/s; rain in every third sea, a bump between 2 and 20 kHz (Nystuen
    1986, J. Acoust. Soc. Am. 79); and in every other one the hiss of a recorder, the same at all frequencies.
    """
    import torch

    ships, wind, is_rain, rain, peak, octaves, is_hiss, hiss = torch.rand(8, seas, 1, generator=generator)
    kilohertz = hertz.clamp(min=LOWEST) / 1000
    logarithm, none = kilohertz.log10(), torch.tensor(-200.0)
    distance = (kilohertz.log2() - (1 + 3.3 * peak)) / (0.7 + 1.3 * octaves)
    parts = [
        (17 - 30 * logarithm).expand(seas, -1),
        30 + 20 * ships + 26 * logarithm - 60 * (kilohertz + 0.03).log10(),
        50 + 7.5 * (20 * wind).sqrt() + 20 * logarithm - 40 * (kilohertz + 0.4).log10(),
        (-15 + 20 * logarithm).expand(seas, -1),
        torch.where(is_rain < 1 / 3, 45 + 30 * rain - 6 * distance.square(), none),
        torch.where(is_hiss < 1 / 2, 20 + 40 * hiss, none).expand(-1, len(hertz)),
    ]
    return (torch.stack(parts) * DECIBEL).logsumexp(dim=0) / DECIBEL


def fluctuation(
    shape: tuple[int, int, int, int], width: torch.Tensor, settings: FrontendSettings, generator: torch.Generator
) -> torch.Tensor:
    """Power of stationary noise over its mean, in mel bands of `width` Hz, float32 of the given shape.

    Gamma distributed, from one degree of freedom in narrow bands, by the cube of Wilson and Hilferty 1931; frames whose
    analysis windows overlap are alike.
    """
    import torch

    overlap = max(1, round(settings.win_length / settings.hop_length))
    batch, _, bands, frames = shape
    normal = torch.randn(batch, bands, frames + overlap - 1, generator=generator)
    normal = torch.nn.functional.avg_pool1d(normal, overlap, stride=1) * overlap**0.5
    freedom = (width * settings.win_length / (HANN_BANDWIDTH * settings.sample_rate)).clamp(min=1)[:, None]
    return (1 - 1 / (9 * freedom) + normal / (3 * freedom.sqrt())).clamp(min=0.05).pow(3)[:, None]
