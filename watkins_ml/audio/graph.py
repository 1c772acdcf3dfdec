"""The frontend as a module of convolutions and matrix products, which every runtime of exported models can do."""

from __future__ import annotations

import torch
from torch import nn

from watkins_ml.audio.frontend import FLAT, Frontend, per_band


class FrontendGraph(nn.Module):
    """Waveforms of exactly the frontend's length at its rate to what `Frontend` makes of them one by one.

    The short-time Fourier transform is a convolution with the windowed waves themselves: few runtimes know ONNX's STFT
    operator, and at 16 kHz onnxruntime takes longer with it. (That changes at high rates, where the waves are many.)
    """

    def __init__(self, frontend: Frontend):
        super().__init__()
        self.frontend = frontend
        s = frontend.settings
        waves = torch.fft.rfft(torch.diag(frontend.window.double()), n=s.n_fft).T  # (bins, win_length); phases cancel
        self.waves: torch.Tensor
        self.register_buffer("waves", torch.cat([waves.real, waves.imag]).float().unsqueeze(1))
        before = s.n_fft // 2 - (s.n_fft - s.win_length) // 2  # torch.stft centres the window in its frame
        self.padding = (before, s.win_length - 1 - before)

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        """float32 (batch, settings.samples) to (batch, 1, n_mels, frames)."""
        padded = nn.functional.pad(self.frontend.centred(waveforms), self.padding).unsqueeze(1)
        parts = nn.functional.conv1d(padded, self.waves, stride=self.frontend.settings.hop_length).square()
        real, imaginary = parts.chunk(2, dim=1)
        compressed = self.frontend.compressed(self.frontend.filters.T @ (real + imaginary))
        if self.frontend.settings.normalisation == "band":
            return per_band(compressed).unsqueeze(1)
        centred = compressed - _mean(compressed)
        values = centred[0].numel()
        deviation = (_mean(centred.square()) * (values / (values - 1))).sqrt()
        return (centred / deviation.clamp(min=FLAT)).unsqueeze(1)


def _mean(spectrograms: torch.Tensor) -> torch.Tensor:
    """Over bands and frames, in two steps: runtimes add float32 one by one, and tens of thousands lose four digits."""
    return spectrograms.mean(dim=-1, keepdim=True).mean(dim=-2, keepdim=True)
