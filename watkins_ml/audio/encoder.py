"""The frontend of a pretrained encoder: waveform to embedding, over several windows and playback speeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr
import torch

from watkins_ml.audio.decode import window_starts
from watkins_ml.audio.encoder_runtime import encoder_file, load_encoder, read_encoder
from watkins_ml.audio.encoder_settings import MOST_PASSES, EncoderSettings
from watkins_ml.audio.files import FileFrontend

OVERHANG = 0.1
"""Of an encoder's window: so much of a sound may be left out at its ends rather than be heard in one more window."""


class EncoderFrontend(FileFrontend):
    """Mono waveform at any native rate to a float32 tensor of shape (1, 1, D), its embedding.

    At speed s the sound is resampled as if it had been recorded at s times its native rate, directly from that, so that
    slow playback brings ultrasound into the encoder's band, and fast playback what is below it. The encoder's windows
    are spread evenly over the sound, which is repeated where it is shorter than one, and brought to full scale. Mean
    and maximum over these, of each number, follow each other for each speed.
    """

    def __init__(self, settings: EncoderSettings, file: Path | None = None):
        """`file` is the encoder's, where that is not the one of an installed package.

        Raises:
            UserError: it is missing, is not the one of `settings`, or cannot be run.
        """
        self.settings: EncoderSettings = settings
        self.content, _ = read_encoder(file or encoder_file(settings.encoder), settings.sha256)
        self.encode = load_encoder(self.content, settings)

    def __call__(self, waveform: np.ndarray, native_rate: int) -> torch.Tensor:
        """Embedding of the first `settings.seconds` of `waveform`, shape (samples,), at `native_rate` Hz."""
        s, parts = self.settings, []
        audio = waveform[: max(1, round(s.seconds * native_rate))]
        audio = (audio - audio.mean(dtype=np.float64)).astype(np.float32) if len(audio) else np.zeros(1, np.float32)
        audio = audio / max(float(np.abs(audio).max()), 1e-12)
        for speed in s.speeds:
            found = np.stack([self.encode(window) for window in self._heard(audio, native_rate * speed)])
            parts += [found.mean(axis=0), found.max(axis=0)] if s.pooling == "mean_max" else [found.mean(axis=0)]
        return torch.from_numpy(np.concatenate(parts)).view(s.shape)

    def _heard(self, audio: np.ndarray, rate: float) -> list[np.ndarray]:
        """The encoder's windows, float32 (settings.window,), of a sound that is played at `rate` Hz."""
        s = self.settings
        sound = audio if rate == s.sample_rate else soxr.resample(audio, rate, s.sample_rate)
        if len(sound) < s.window:  # a few samples at a high rate can resample to none
            sound = np.resize(sound if len(sound) else np.zeros(1, np.float32), s.window)
        starts = window_starts(len(sound), s.window, MOST_PASSES, round(OVERHANG * s.window))
        return [np.ascontiguousarray(sound[start : start + s.window], dtype=np.float32) for start in starts]
