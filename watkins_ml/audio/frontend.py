"""The frontend: waveform to standardised log-mel tensor, the same for preparation, training and prediction."""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import soxr
import torch
import torchaudio

from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.pcen import pcen, smoothing_matrix
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError

FLAT = 1e-6
"""Standard deviation (dB) below which a spectrogram counts as flat: silence stays zero when it is standardised."""
FLAT_BAND = 1e-2
"""The same of a single band, in dB or what PCEN gives: a band that holds nothing stays zero."""
TILE = 16
"""Mel bands that are summed in one product: neighbours need the same small part of a spectrum."""


class Frontend(FileFrontend):
    """Mono waveform at any native rate to a float32 tensor of shape (1, n_mels, frames).

    Power in mel bands (HTK mel scale, Hann window) limited to `top_db` below the maximum, in decibels or as PCEN
    gives it, then standardised to mean 0 and standard deviation 1 over the whole sample or in each band.
    """

    def __init__(self, settings: FrontendSettings | None = None):
        self.settings = s = settings or FrontendSettings()
        if s.win_length > s.n_fft:
            raise UsageError(f"win_length {s.win_length} is longer than n_fft {s.n_fft}")
        self.window = torch.hann_window(s.win_length)
        with warnings.catch_warnings(action="ignore"):  # about empty bands, which are an error here
            self.filters = torchaudio.functional.melscale_fbanks(
                n_freqs=s.n_fft // 2 + 1, f_min=s.f_min, f_max=s.highest, n_mels=s.n_mels,
                sample_rate=s.sample_rate, norm=None, mel_scale="htk",
            )  # fmt: skip
        if empty := int((self.filters.amax(dim=0) <= 0).sum()):
            raise UsageError(
                f"{empty} of {s.n_mels} mel bands from {s.f_min:g} to {s.highest:g} Hz would be empty with n_fft "
                f"{s.n_fft} at {s.sample_rate} Hz; use fewer mel bands, a wider range or a larger n_fft"
            )
        of_pcen = s.compression == "pcen"
        self.smoothing = smoothing_matrix(s.frames, s.sample_rate / s.hop_length) if of_pcen else None
        self._tiles = list(_tiles(self.filters))
        self._frames = _Frames(s)

    def __call__(self, waveform: np.ndarray, native_rate: int) -> torch.Tensor:
        """Spectrogram of the first `settings.seconds` of `waveform`, shape (samples,), at `native_rate` Hz."""
        frames = self._frames.of(self.centred(self.sound(waveform, native_rate)), self.window)
        squares = torch.view_as_real(torch.fft.rfft(frames)).flatten(start_dim=1).square_()
        mel = torch.cat([squares[:, parts] @ filters for parts, filters in self._tiles], dim=1).T.contiguous()
        values = self.compressed(mel)
        if self.settings.normalisation == "band":
            return per_band(values).unsqueeze(0)
        centred = values.sub_(values.mean())
        return centred.div_(centred.std().clamp(min=FLAT)).unsqueeze(0)

    def centred(self, waveforms: torch.Tensor) -> torch.Tensor:
        """Waveforms (..., settings.samples) without the offset of their recorder, nor its drift and jumps.

        What is taken away is the mean over eight windows around each moment: so slow that no spectrum over a window
        tells it from an offset. It runs in straight lines from frame to frame.
        """
        s = self.settings
        if not s.remove_offset or s.frames < 2:
            return waveforms
        level = waveforms - waveforms.mean(dim=-1, keepdim=True)  # first, for the digits
        blocks = level[..., :-1].unflatten(-1, (s.frames - 1, s.hop_length)).mean(dim=-1)
        reach = min(max(1, round(4 * s.win_length / s.hop_length)), s.frames - 1)
        around = torch.nn.functional.avg_pool1d(
            blocks.reshape(-1, 1, s.frames - 1), 2 * reach, stride=1, padding=reach, count_include_pad=False
        ).reshape(*blocks.shape[:-1], s.frames, 1)
        ramp = torch.arange(s.hop_length, dtype=waveforms.dtype) / s.hop_length
        offset = (around[..., :-1, :] + (around[..., 1:, :] - around[..., :-1, :]) * ramp).flatten(-2)
        return level - torch.cat([offset, around[..., -1, :]], dim=-1)

    def compressed(self, mel: torch.Tensor) -> torch.Tensor:
        """Power in mel bands (..., n_mels, frames) to what `settings.compression` makes of it, before normalisation.

        As decibels each sample is limited to `top_db` below its own maximum.
        """
        if self.smoothing is not None:
            return pcen(mel, self.smoothing, self.settings.top_db)
        decibels = mel.clamp(min=1e-12).log10_().mul_(10.0)
        return decibels.maximum(decibels.amax(dim=(-2, -1), keepdim=True) - self.settings.top_db)

    def band(self, frequency: float) -> float:
        """Where a frequency (Hz) lies among the mel bands: 0 is the centre of the lowest, 1 that of the next."""
        s = self.settings
        mel, low, high = (math.log10(1 + hertz / 700) for hertz in (frequency, s.f_min, s.highest))  # HTK's scale
        return (mel - low) / (high - low) * (s.n_mels + 1) - 1

    def sound(self, waveform: np.ndarray, native_rate: int) -> torch.Tensor:
        """What the spectrogram of `waveform` is made of: float32 (settings.samples,) at settings.sample_rate."""
        rate = self.settings.sample_rate
        audio = waveform
        if native_rate != rate:
            if self.settings.remove_offset:  # the resampler takes the sides of a sound for jumps from and to 0
                audio = audio - audio.mean(dtype=np.float64).astype(np.float32)
            audio = soxr.resample(audio, native_rate, rate)
        return self._fit(torch.from_numpy(np.ascontiguousarray(audio, dtype=np.float32)))

    def _fit(self, audio: torch.Tensor) -> torch.Tensor:
        """Crop or repeat to exactly the samples that `frames` frames need.

        Repeating rather than padding with silence keeps the length of a cut, which tells species
        apart in an archive but not in the sea, out of the spectrogram.
        """
        wanted = self.settings.samples
        if len(audio) == 0:  # a few samples at a high rate can resample to none
            audio = torch.zeros(1)
        if len(audio) >= wanted:
            return audio[:wanted]
        return audio.repeat(-(-wanted // len(audio)))[:wanted]


def per_band(values: torch.Tensor) -> torch.Tensor:
    """(..., n_mels, frames) to mean 0 and deviation 1 over time in each band; a flat one becomes exactly 0."""
    level = values - values[..., :1]  # first, for the digits
    centred = level - level.mean(dim=-1, keepdim=True)
    deviation = (centred.square().sum(dim=-1, keepdim=True) / (values.shape[-1] - 1)).sqrt()
    return centred / deviation.clamp(min=FLAT_BAND)


class _Frames(threading.local):
    """Windowed frames in memory of each thread's own; the zeros around the windows are written only once.

    As torch.stft with `center` makes them, which writes them again for each spectrogram (an eighth of its time).
    """

    def __init__(self, settings: FrontendSettings):
        s = settings
        self.hop_length = s.hop_length
        first = (s.n_fft - s.win_length) // 2
        before = s.n_fft // 2 - first
        self.padding = (before, s.win_length - 1 - before)
        self.frames = torch.zeros(s.frames, s.n_fft)
        self.windows = self.frames[:, first : first + s.win_length]

    def of(self, audio: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
        """float32 (settings.samples,) to (frames, n_fft), to be used before the thread makes the next."""
        parts = torch.nn.functional.pad(audio, self.padding).unfold(0, len(window), self.hop_length)
        torch.mul(parts, window, out=self.windows)
        return self.frames


def _tiles(filters: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """For every few of the mel filters (bins, n_mels): which numbers of a spectrum they need, real and imaginary parts
    beside each other, and what the squares of those are multiplied by. Powers need not be added up first."""
    for bands in filters.split(TILE, dim=1):
        bins = bands.any(dim=1).nonzero()
        first, last = int(bins[0]), int(bins[-1]) + 1
        yield slice(2 * first, 2 * last), bands[first:last].repeat_interleave(2, dim=0)
