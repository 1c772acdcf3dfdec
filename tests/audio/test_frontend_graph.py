"""The frontend as a module for export gives what the frontend gives."""

import numpy as np
import pytest
import torch

from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.graph import FrontendGraph
from watkins_ml.audio.settings import FrontendSettings

SETTINGS = {
    "usual": FrontendSettings(),
    "at 48 kHz": FrontendSettings.at(48_000),
    "odd window": FrontendSettings(win_length=401, frames=50),
    "odd transform": FrontendSettings(n_fft=2047, win_length=510, frames=50),
    "window as long as the transform": FrontendSettings(win_length=2048, hop_length=161, frames=50),
    "small range": FrontendSettings(top_db=20, frames=50),
    "PCEN": FrontendSettings(compression="pcen"),
    "each band": FrontendSettings(normalisation="band"),
    "all at once": FrontendSettings.at(
        32_000, 2.0, n_mels=64, f_min=500, f_max=14_000, compression="pcen", normalisation="band"
    ),
    "slow and short": FrontendSettings.at(8_000, 1.0, n_mels=40),
}


def sounds(settings: FrontendSettings) -> np.ndarray:
    """Loud and quiet, clipped and silent sounds, (5, samples), so that none could do with the limits of another."""
    rng = np.random.default_rng(0)
    time = np.arange(settings.samples) / settings.sample_rate
    sweep = np.sin(2 * np.pi * (300 + 0.1 * settings.sample_rate * time) * time)
    noise = rng.standard_normal(settings.samples)
    rows = [0.9 * sweep, 1e-4 * noise, np.clip(5 * sweep, -1, 1), np.zeros(settings.samples), 0.1 * noise + 0.2]
    return np.stack(rows).astype("float32")


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_batch_of_waveforms_gives_the_spectrograms_of_each(settings):
    frontend, waveforms = Frontend(settings), sounds(settings)
    expected = torch.stack([frontend(waveform, settings.sample_rate) for waveform in waveforms])
    with torch.inference_mode():
        found = FrontendGraph(frontend)(torch.from_numpy(waveforms))
    assert found.shape == (5, 1, settings.n_mels, settings.frames)
    torch.testing.assert_close(found, expected, atol=5e-4, rtol=0)


def test_silence_is_zero_and_changes_nothing_beside_it():
    graph, waveforms = FrontendGraph(Frontend()), torch.from_numpy(sounds(FrontendSettings()))
    with torch.inference_mode():
        together, alone = graph(waveforms), torch.cat([graph(waveform[None]) for waveform in waveforms])
    assert (together[3] == 0).all()
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
