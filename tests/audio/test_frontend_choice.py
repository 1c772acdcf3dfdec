"""Frontends other than the usual one: rate, window, bands, frequencies, compression and normalisation."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.signal import lfilter

import watkins_ml
from watkins_ml.audio.frontend import FLAT_BAND, Frontend, per_band
from watkins_ml.audio.pcen import pcen, smoothing_matrix
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError

WIDE = FrontendSettings.at(
    32_000, 2.0, n_mels=64, f_min=500, f_max=14_000, compression="pcen", normalisation="band"
)  # fmt: skip


def noise(settings: FrontendSettings, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(settings.samples)).astype("float32")


# ---------------------------------------------------------------- settings


def test_the_usual_settings_are_written_and_digested_as_before_there_was_a_choice():
    before = {"sample_rate": 16_000, "n_fft": 2048, "win_length": 512, "hop_length": 160, "n_mels": 128,
              "frames": 400, "top_db": 80.0, "remove_offset": True}  # fmt: skip
    assert FrontendSettings().model_dump() == before
    assert FrontendSettings().digest() == "182b7d71fe009017"
    assert FrontendSettings.at(32_000).digest() == "ffe6325f11316224"
    assert FrontendSettings.stored(before) == FrontendSettings()


def test_what_is_chosen_travels_through_json_and_changes_the_digest():
    chosen = [WIDE, *(FrontendSettings(**each) for each in (
        {"f_min": 20}, {"f_max": 7_000}, {"compression": "pcen"}, {"normalisation": "band"}, {}))]  # fmt: skip
    assert len({each.digest() for each in chosen}) == len(chosen)
    for each in chosen:
        assert FrontendSettings.stored(json.loads(each.model_dump_json())) == each
    assert (WIDE.seconds, WIDE.frames, WIDE.hop_length, WIDE.win_length) == (
        pytest.approx(1.99, abs=1e-3),
        200,
        320,
        1024,
    )


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ({"f_max": 9_000}, r"f_max 9000 Hz is above half the sample rate \(8000 Hz\)"),
        ({"f_min": 3_000, "f_max": 3_000}, r"f_min 3000 Hz is not below f_max \(3000 Hz\)"),
        ({"f_min": 8_000}, r"f_min 8000 Hz is not below f_max \(8000 Hz\)"),
        ({"seconds": 60, "n_mels": 256}, "more than 524,288 numbers"),
        ({"seconds": 90, "n_mels": 16, "compression": "pcen"}, "pcen over 9,000 frames"),
        ({"f_min": float("nan")}, "finite"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(chosen, problem):
    with pytest.raises(ValidationError, match=problem):
        FrontendSettings.at(16_000, **chosen)


def test_bands_too_narrow_for_the_transform_are_refused():
    with pytest.raises(UsageError, match=r"of 200 mel bands from 0 to 1000 Hz would be empty.*use fewer mel bands"):
        Frontend(FrontendSettings(n_mels=200, f_max=1_000))


# ---------------------------------------------------------------- mel bands


@pytest.mark.parametrize("settings", [WIDE, FrontendSettings.at(8_000, 1.0, n_mels=40, f_min=100, f_max=2_000)])
@pytest.mark.parametrize("band", [5, 20, 33])
def test_a_tone_lands_in_the_band_that_the_axis_names(settings, band):
    log = Frontend(FrontendSettings(**settings.model_dump() | {"compression": "log", "normalisation": "sample"}))
    low, high = (2595 * np.log10(1 + hertz / 700) for hertz in (settings.f_min, settings.highest))
    frequency = 700 * (10 ** ((low + (high - low) * (band + 1) / (settings.n_mels + 1)) / 2595) - 1)
    tone = 0.5 * np.sin(2 * np.pi * frequency * np.arange(settings.samples) / settings.sample_rate)
    loudest = log(tone.astype("float32"), settings.sample_rate)[0].mean(dim=1).argmax().item()
    assert loudest == band == pytest.approx(log.band(frequency))


def test_nothing_outside_the_range_is_in_a_band():
    frontend = Frontend(WIDE)
    used = frontend.filters.any(dim=1).nonzero().flatten() * WIDE.sample_rate / WIDE.n_fft
    assert WIDE.f_min < used.min() < WIDE.f_min + 100 and WIDE.highest - 500 < used.max() <= WIDE.highest


# ---------------------------------------------------------------- PCEN


def test_pcen_is_the_recursive_filter_of_the_paper():
    """In NumPy and SciPy, as librosa.pcen computes it, with the filter at rest on the first frame."""
    mel = np.random.default_rng(0).exponential(1e-3, (16, 300)) * np.linspace(1, 30, 300)
    b = (np.sqrt(1 + 4 * 40.0**2) - 1) / (2 * 40.0**2)  # 0.4 s of 100 frames a second
    energy = np.sqrt(mel) * 2.0**31
    level, _ = lfilter([b], [1, b - 1], energy, zi=(1 - b) * energy[:, :1])
    expected = (energy / (1e-6 + level) ** 0.98 + 2) ** 0.5 - 2**0.5
    found = pcen(torch.from_numpy(mel).float(), smoothing_matrix(300, 100.0), 200.0)
    np.testing.assert_allclose(found.numpy(), expected, atol=2e-5)


def test_pcen_takes_away_loudness_and_steady_sound_but_keeps_onsets():
    settings = FrontendSettings(compression="pcen")
    frontend, hum = Frontend(settings), noise(settings)
    call = hum.copy()
    call[32_000:34_000] *= 20
    torch.testing.assert_close(frontend(call, 16_000), frontend(call * 0.1, 16_000), atol=0.1, rtol=0.05)
    found = frontend(call, 16_000)[0].mean(dim=0)
    assert found.argmax() in range(198, 214)
    assert found[:190].max() < found.max() / 3


def test_empty_bands_of_an_upsampled_recording_stay_empty():
    """The resampler leaves rounding noise there, which the division would make as loud as the sound."""
    chosen = {"compression": "pcen", "normalisation": "band"}
    slow, settings = FrontendSettings.at(8_000), FrontendSettings.at(32_000, **chosen)
    frontend = Frontend(settings)
    found = frontend(noise(slow), 8_000)[0, :, 3:-3]  # both ends click, as they are cut off
    restless = (found[:, 1:] - found[:, :-1]).abs().amax(dim=1)
    assert (restless[round(frontend.band(5_000)) :] < 0.05).all()
    assert (restless[: round(frontend.band(3_500))] > 0.9).all()


@pytest.mark.parametrize("compression", ["log", "pcen"])
@pytest.mark.parametrize("normalisation", ["sample", "band"])
def test_silence_is_zero(compression, normalisation):
    settings = FrontendSettings(compression=compression, normalisation=normalisation)
    assert (Frontend(settings)(np.zeros(1_000, "float32"), 16_000) == 0).all()


# ---------------------------------------------------------------- normalisation


def test_each_band_has_mean_0_and_deviation_1():
    found = Frontend(WIDE)(noise(WIDE), WIDE.sample_rate)
    assert found.shape == (1, 64, 200)
    torch.testing.assert_close(found.mean(dim=-1), torch.zeros(1, 64), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=-1), torch.ones(1, 64), atol=1e-4, rtol=0)


def test_a_band_that_hardly_changes_is_not_blown_up():
    values = torch.full((2, 100), -80.0)
    values[1] += FLAT_BAND / 100 * torch.randn(100, generator=torch.Generator().manual_seed(0))
    found = per_band(values)
    assert (found[0] == 0).all() and found[1].abs().max() < 0.1


# ---------------------------------------------------------------- nobody else knows the usual numbers

USUAL = (16_000, 128, 400, 399, 4.0, 128 * 400, 399 * 160 + 1)
OTHERS = {
    "audio/defaults.py": "the defaults themselves",
    "audio/containers.py": "bytes a second of packed audio",
    "audio/excerpt.py": "rates of MP3",
    "audio/packets.py": "bit rates and tags of MP3",
    "demo/calls.py": "pitch, length and native rate of calls",
    "evaluation/detection/curves.py": "how many thresholds are tried",
    "evaluation/detection/excerpts.py": "pixels of a picture",
    "evaluation/lettering.py": "weight of a font",
    "models/families/baseline.py": "channels of a convolution",
    "models/novelty.py": "how many noises are made",
    "models/prototypes.py": "strength of the whitening",
}


def test_the_numbers_of_the_usual_frontend_stand_in_one_file():
    package = Path(watkins_ml.__file__).parent
    found = set()
    for file in package.rglob("*.py"):
        numbers = [each.value for each in ast.walk(ast.parse(file.read_text())) if isinstance(each, ast.Constant)]
        if any(type(number) is type(usual) and number == usual for number in numbers for usual in USUAL):
            found.add(file.relative_to(package).as_posix())
    assert found <= set(OTHERS)
    assert "audio/defaults.py" in found
