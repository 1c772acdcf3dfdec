"""When in a sound something counts for a species, found by hiding one stretch after another.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014, over time alone: for frontends that
no gradient goes through, such as a pretrained encoder.
"""

from __future__ import annotations

import numpy as np
import torch

from watkins_ml.audio.defaults import SAMPLE_RATE
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.models.bundle import Classifier
from watkins_ml.models.scoring import window_outputs

PIECES = 16
"""Parts that a sound is divided into; two beside each other are hidden at once."""
HIGHEST_RATE = 48_000
"""Hz, of the picture."""


def occlusion(classifier: Classifier, waveform: np.ndarray, rate: int, label: int) -> np.ndarray:
    """How much of the probability of `label` each part of a sound, (samples,) at `rate` Hz, carries.

    Returns:
        (PIECES,), at least 0 and at most 1: the mean fall of the probability over the stretches that hide the part, by
        the largest; all 0 where hiding changes nothing.
    """
    edges = np.linspace(0, len(waveform), PIECES + 1).round().astype(int)
    level = waveform.mean(dtype=np.float64).astype(np.float32)
    sounds = [waveform]
    for first in range(-1, PIECES):  # at both ends, one part alone
        hidden = waveform.copy()
        hidden[edges[max(first, 0)] : edges[min(first + 2, PIECES)]] = level
        sounds.append(hidden)
    windows = torch.stack([classifier.frontend(sound, rate) for sound in sounds])
    logits = window_outputs(classifier.network, [windows]).logits
    whole, *rest = classifier.calibrated(logits)[:, label]
    falls = whole - np.array(rest)
    found = np.maximum((falls[:-1] + falls[1:]) / 2, 0)
    return found / found.max() if found.max() > 0 else found


def spectrogram_of(waveform: np.ndarray, rate: int, seconds: float) -> tuple[Frontend, np.ndarray]:
    """A picture of a sound, (n_mels, frames) of about `seconds`, and the frontend that makes it."""
    frontend = Frontend(FrontendSettings.at(min(max(rate, SAMPLE_RATE), HIGHEST_RATE), seconds))
    return frontend, frontend(waveform, rate)[0].numpy()


def over_spectrogram(parts: np.ndarray, frontend: Frontend, sound_s: float) -> np.ndarray:
    """What `occlusion` found as a map (n_mels, frames); where the sound is repeated, so is that."""
    settings = frontend.settings
    times = np.arange(settings.frames) * settings.hop_length / settings.sample_rate
    place = (times % sound_s / sound_s * PIECES).astype(int).clip(max=PIECES - 1)
    return np.tile(parts[place], (settings.n_mels, 1))
