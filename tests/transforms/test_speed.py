"""Playback at another speed, in the log-mel domain: what the frontend makes of a tape at that speed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.transforms.recorder import standardised
from watkins_ml.transforms.speed import Speed, played
from watkins_ml.transforms.transform import Batch

USUAL = FrontendSettings()
OTHER = FrontendSettings(sample_rate=24_000, f_min=200.0, f_max=9_000.0, n_mels=64, frames=200, hop_length=240)


def whistle(settings: FrontendSettings, hertz: float, clicks: float = 4.0) -> np.ndarray:
    """A tone, loud so many times a second, over faint noise; as many samples as a spectrogram takes."""
    time = np.arange(settings.samples) / settings.sample_rate
    noise = 1e-3 * np.random.default_rng(0).standard_normal(len(time))
    return (np.sin(2 * np.pi * hertz * time) * (1 + np.cos(2 * np.pi * clicks * time)) / 2 + noise).astype(np.float32)


def batch_of(spectrograms: torch.Tensor, settings: FrontendSettings | None = None) -> Batch:
    return Batch(spectrograms, torch.arange(len(spectrograms)), len(spectrograms), settings)


@pytest.mark.parametrize("settings", [USUAL, OTHER], ids=["usual", "other"])
@pytest.mark.parametrize("speed", [0.5, 0.8, 1.25, 2.0])
@pytest.mark.parametrize("hertz", [600.0, 1500.0, 3000.0])
def test_a_whistle_ends_at_its_frequency_times_the_speed(settings, speed, hertz):
    frontend = Frontend(settings)
    spectrogram = frontend(whistle(settings, hertz), settings.sample_rate)[None]
    result = played(spectrogram, torch.tensor([speed]), batch_of(spectrogram, settings))
    loudest = int(result.mean(dim=-1).argmax())
    assert abs(loudest - frontend.band(hertz * speed)) <= 1


@pytest.mark.parametrize("speed", [0.75, 1.5])
def test_the_spectrogram_is_nearly_that_of_the_waveform_played_at_this_speed(speed):
    """A sound whose pulses fall into step, so that where it begins anew says nothing."""
    frontend, rate = Frontend(), USUAL.sample_rate
    spectrogram = frontend(whistle(USUAL, 1000), rate)[None]
    wanted = frontend(whistle(USUAL, 1000 * speed, 4.0 * speed), rate)[None]
    changed = standardised(played(spectrogram, torch.tensor([speed]), batch_of(spectrogram)))
    tempo = [each.amax(dim=-2).flatten() for each in (changed, wanted)]
    spectra = [torch.fft.rfft(each - each.mean()).abs() for each in tempo]
    assert abs(int(spectra[0].argmax()) - int(spectra[1].argmax())) <= 1, "the tempo changes with the pitch"
    profiles = torch.stack([each.mean(dim=-1).flatten() for each in (changed, wanted)])
    band = slice(0, int(frontend.band(speed * 8000)) if speed < 1 else 128)
    assert torch.corrcoef(profiles[:, band])[0, 1] > 0.9


def test_what_lies_outside_the_recorded_band_is_the_lowest_value():
    spectrograms = torch.rand(2, 1, 64, 30) + 1
    spectrograms[:, 0, 5, 7] = 0.0
    slow, fast = played(spectrograms, torch.tensor([0.5, 2.0]), batch_of(spectrograms, OTHER))
    frontend = Frontend(OTHER)
    assert (slow[0, int(frontend.band(4500)) + 2 :] == 0).all(), "above half of 9 kHz"
    assert (slow[0, : int(frontend.band(4500)) - 1] != 0).any(dim=-1).all()
    assert (fast[0, : int(frontend.band(400))] == 0).all(), "below twice 200 Hz"
    assert (fast[0, int(frontend.band(400)) + 2 :] != 0).any(dim=-1).all()


def test_at_speed_one_nothing_changes():
    spectrograms = standardised(torch.randn(5, 1, 128, 40, generator=torch.Generator().manual_seed(0)))
    still = Speed(name="speed", slowest=1, fastest=1, probability=1)
    result = still(batch_of(spectrograms), torch.Generator().manual_seed(0)).spectrograms
    torch.testing.assert_close(result, spectrograms, atol=2e-3, rtol=1e-3)


def test_a_fast_recording_begins_anew_and_of_a_slow_one_the_middle_remains():
    frames = torch.arange(40.0).expand(2, 1, 32, 40)
    slow, fast = played(frames, torch.tensor([0.5, 2.0]), batch_of(frames))
    torch.testing.assert_close(slow[0, 0], 39 / 4 + torch.arange(40) / 2)
    torch.testing.assert_close(fast[0, 0, :20], 2 * torch.arange(20.0))
    torch.testing.assert_close(fast[0, 0, 20:], fast[0, 0, :20])


def test_speeds_are_drawn_evenly_by_octave_between_the_two():
    spectrograms = torch.zeros(600, 1, 128, 4)
    spectrograms[:, :, 64] = 1.0  # one tone
    drawn = Speed(name="speed", slowest=0.5, fastest=2, probability=1)
    frontend = Frontend()
    bands = drawn(batch_of(spectrograms), torch.Generator().manual_seed(1)).spectrograms.mean(dim=-1)[:, 0].argmax(-1)
    tone = 700 * (10 ** (65 / 129 * np.log10(1 + 8000 / 700)) - 1)
    edges = [round(frontend.band(tone * speed)) for speed in (0.5, 1, 2)]
    assert edges[0] - 1 <= bands.min() <= edges[0] + 2 and edges[2] - 2 <= bands.max() <= edges[2] + 1
    assert 0.4 < (bands < edges[1]).float().mean() < 0.6


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"slowest": 1.2, "fastest": 0.9}, r"at least slowest \(1\.2\)"),
        ({"slowest": 3}, r"at least slowest \(3\.0\)"),
        ({"slowest": 0}, "greater than or equal to 0.125"),
        ({"fastest": 100}, "less than or equal to 8"),
        ({"probability": 0}, "greater than 0"),
    ],
)
def test_bad_values_are_refused(keys, said):
    with pytest.raises(ValidationError, match=said):
        Speed.model_validate({"name": "speed", **keys})
