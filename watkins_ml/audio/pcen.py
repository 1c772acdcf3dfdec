"""Per-channel energy normalisation: each mel band divided by its own recent level, in place of a logarithm.

Wang et al. 2017, "Trainable Frontend For Robust and Far-Field Keyword Spotting", with the fixed parameters that
Lostanlen et al. 2019, "Per-Channel Energy Normalization: Why and How", examine and librosa.pcen has as its defaults.
"""

from __future__ import annotations

import math

import torch

GAIN, BIAS, POWER, TIME_CONSTANT_S, EPSILON = 0.98, 2.0, 0.5, 0.4, 1e-6
SCALE = 2.0**31
"""The parameters are made for samples of 32-bit integers; full scale is 1 here."""


def smoothing_matrix(frames: int, frames_a_second: float) -> torch.Tensor:
    """The recursive filter M[t] = (1 - b) M[t - 1] + b E[t] over a whole spectrogram, (frames, frames): M = E @ matrix.

    It starts as if the first frame had lasted for ever, so that the beginning of a window is not louder than the
    rest. A product of matrices, since exported models have no recursive filters.
    """
    constant = TIME_CONSTANT_S * frames_a_second
    b = (math.sqrt(1 + 4 * constant**2) - 1) / (2 * constant**2)
    time = torch.arange(frames, dtype=torch.float64)
    passed = time[None, :] - time[:, None]  # frames from row to column
    weights = torch.where(passed >= 0, b * (1 - b) ** passed.clamp(min=0), 0.0)
    weights[0] = (1 - b) ** time
    return weights.where(weights > 1e-30, 0.0).float()


def pcen(mel: torch.Tensor, smoothing: torch.Tensor, top_db: float) -> torch.Tensor:
    """Power in mel bands (..., n_mels, frames) to the same shape, 0 in silence.

    What is more than `top_db` below the loudest of its spectrogram counts as just that: the division would make what
    rounding leaves in empty bands as loud as a call.
    """
    power = mel.maximum(mel.amax(dim=(-2, -1), keepdim=True) * 10 ** (-top_db / 10))
    energy = power.sqrt() * SCALE
    level = torch.log1p(energy @ smoothing / EPSILON) + math.log(EPSILON)
    return BIAS**POWER * torch.expm1(POWER * torch.log1p(energy * torch.exp(-GAIN * level) / BIAS))
