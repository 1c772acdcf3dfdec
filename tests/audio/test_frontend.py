"""Waveform to spectrogram: shape, scale, pitch and settings."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile
import torch
from pydantic import ValidationError

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError

SETTINGS = FrontendSettings()


@pytest.fixture(scope="module")
def frontend() -> Frontend:
    return Frontend()


def tone(frequency: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype("float32")


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype("float32")


def band_centres() -> np.ndarray:
    """Centres of the mel bands in Hz, from the HTK formula."""
    top = 2595 * np.log10(1 + SETTINGS.sample_rate / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, SETTINGS.n_mels + 2)[1:-1] / 2595) - 1)


def check(spectrogram: torch.Tensor) -> None:
    assert spectrogram.shape == (1, 128, 400)
    assert spectrogram.dtype == torch.float32
    assert torch.isfinite(spectrogram).all()
    assert spectrogram.mean().item() == pytest.approx(0, abs=1e-3)
    assert spectrogram.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("seconds", [0.016, 0.5, 10], ids=["16 ms", "half a second", "longer than the window"])
@pytest.mark.parametrize("rate", [300, 5_000, 16_000, 44_100, 166_600, 200_000])
def test_every_rate_and_length_gives_a_standardised_spectrogram(frontend, rate, seconds):
    check(frontend(noise(round(seconds * rate)), rate))


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("rate", [300, 200_000])
def test_a_handful_of_samples_is_finite(frontend, samples, rate):
    spectrogram = frontend(noise(samples), rate)
    assert spectrogram.shape == (1, 128, 400)
    assert torch.isfinite(spectrogram).all()


@pytest.mark.parametrize("level", [1e-4, 1.0])
def test_loudness_does_not_matter(frontend, level):
    audio = noise(64_000)
    torch.testing.assert_close(frontend(audio * level, 16_000), frontend(audio, 16_000), atol=0.05, rtol=0)


def test_repeated_calls_give_the_same_numbers(frontend):
    audio = noise(30_000)
    assert torch.equal(frontend(audio, 44_100), frontend(audio, 44_100))
    assert torch.equal(frontend(audio, 44_100), Frontend()(audio, 44_100))


def test_no_mel_band_is_empty(frontend):
    impulse = np.zeros(64_000, dtype="float32")
    impulse[::500] = 1.0  # clicks hold every frequency
    assert (frontend(impulse, SETTINGS.sample_rate)[0].amax(dim=1) > -1).all()
    assert (frontend.filters.sum(dim=0) > 0).all()


@pytest.mark.parametrize("band", [12, 40, 70, 95])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 200_000])
def test_a_tone_lands_in_the_band_nearest_to_its_pitch(frontend, rate, band):
    frequency = band_centres()[band]
    if frequency > 0.45 * rate:
        pytest.skip("above half the native rate")
    loudest = frontend(tone(frequency, rate, 5), rate)[0].mean(dim=1).argmax().item()
    assert loudest == band


def test_time_runs_to_the_right(frontend):
    rate = SETTINGS.sample_rate
    centres = band_centres()
    audio = np.concatenate([tone(centres[40], rate, 2), tone(centres[90], rate, 2)])
    loudest = frontend(audio, rate)[0].argmax(dim=0)
    assert loudest[100] == 40
    assert loudest[300] == 90


def test_a_file_gives_the_spectrogram_of_its_centre(tmp_path, frontend):
    rate, centres = SETTINGS.sample_rate, band_centres()
    parts = [tone(centres[30], rate, 10), tone(centres[80], rate, SETTINGS.seconds), tone(centres[30], rate, 10)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(parts), rate)
    loudest = frontend.file(tmp_path / "a.wav")[0].argmax(dim=0)
    assert (loudest[5:-5] == 80).all()


@pytest.mark.parametrize(("seconds", "windows"), [(0.5, 1), (4.0, 1), (4.02, 2), (7.9, 2), (9.0, 3), (100, 16)])
def test_a_file_longer_than_a_window_has_several(tmp_path, frontend, seconds, windows):
    soundfile.write(tmp_path / "a.wav", noise(round(seconds * 8_000)), 8_000)
    found = frontend.file_windows(tmp_path / "a.wav")
    assert found.shape == (windows, 1, 128, 400)
    middle = frontend.file(tmp_path / "a.wav")
    if windows % 2:
        assert torch.equal(found[windows // 2], middle)


def test_windows_show_the_recording_from_beginning_to_end(tmp_path, frontend):
    audio = np.concatenate([tone(frequency, 16_000, 4.0) for frequency in (500, 2_000, 6_000)])
    soundfile.write(tmp_path / "a.wav", audio, 16_000)
    loudest = [int(window[0].mean(dim=1).argmax()) for window in frontend.file_windows(tmp_path / "a.wav")[[0, -1]]]
    expected = [int(np.abs(band_centres() - frequency).argmin()) for frequency in (500, 6_000)]
    assert np.abs(np.subtract(loudest, expected)).max() <= 1


@pytest.mark.parametrize(("seconds", "windows"), [(3, 1), (7, 2), (11, 3), (15, 4), (19, 5)])
def test_centre_and_windows_are_what_each_is_alone(tmp_path, frontend, seconds, windows):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, seconds * 8_000)
    soundfile.write(tmp_path / "cut.wav", audio, 8_000)
    recording = frontend.read(tmp_path / "cut.wav", most_windows=16)
    centre, several = frontend.centre_and_windows(recording)
    assert torch.equal(centre, frontend.file(tmp_path / "cut.wav"))
    assert centre.untyped_storage().nbytes() == 128 * 400 * 4  # a file of it holds nothing else
    assert (several is None) == (windows == 1)
    assert several is None or torch.equal(several, frontend.file_windows(tmp_path / "cut.wav"))
    assert several is None or len(several) == windows


def test_threads_do_not_write_into_each_others_frames(frontend):
    waveforms = np.random.default_rng(0).uniform(-0.5, 0.5, (32, 64_000)).astype("float32")
    alone = [frontend(waveform, 16_000) for waveform in waveforms]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda waveform: frontend(waveform, 16_000), waveforms))
    assert all(map(torch.equal, alone, together))


def test_a_broken_file_is_refused(tmp_path, frontend):
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(AudioError, match="unreadable"):
        frontend.file(tmp_path / "a.wav")


@pytest.mark.filterwarnings("ignore:At least one mel filterbank")
def test_settings_that_leave_bands_empty_are_refused_with_a_sentence():
    with pytest.raises(UsageError, match=r"of 128 mel bands .*would be empty with n_fft 512 .*a larger n_fft"):
        Frontend(FrontendSettings(n_fft=512, win_length=512, sample_rate=16_000))


def test_a_window_longer_than_the_transform_is_refused():
    with pytest.raises(UsageError, match="win_length 4096 is longer than n_fft 2048"):
        Frontend(FrontendSettings(win_length=4096, n_fft=2048))


@pytest.mark.parametrize(
    "change",
    [{"sample_rate": 10}, {"hop_length": 0}, {"top_db": 0}, {"n_mel": 64}],
    ids=lambda change: next(iter(change)),
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValidationError):
        FrontendSettings(**change)


def other_value(value):
    """Another acceptable value of a setting."""
    named = {"log": "pcen", "sample": "band", 0.0: 50.0, None: 7_000.0}
    return named[value] if value in named else not value if isinstance(value, bool) else type(value)(value / 2)


@pytest.mark.parametrize("field", list(FrontendSettings.model_fields))
def test_the_digest_changes_with_every_setting(field):
    changed = SETTINGS.model_dump() | {field: other_value(getattr(SETTINGS, field))}
    assert FrontendSettings.model_validate(changed) != SETTINGS
    assert FrontendSettings.model_validate(changed).digest() != SETTINGS.digest()


def test_the_digest_of_equal_settings_is_equal():
    assert FrontendSettings(**SETTINGS.model_dump()).digest() == SETTINGS.digest()


def test_frames_span_the_seconds_that_the_settings_say():
    frontend = Frontend()
    exact = noise(SETTINGS.samples)
    longer = np.concatenate([exact, noise(1_000, seed=1)])
    torch.testing.assert_close(frontend(exact, SETTINGS.sample_rate), frontend(longer, SETTINGS.sample_rate))


def test_at_another_rate_a_spectrogram_lasts_as_long():
    assert FrontendSettings.at(16_000) == FrontendSettings()
    for rate in (1_000, 10_000, 22_050, 48_000, 200_000):
        settings = FrontendSettings.at(rate)
        assert settings.seconds == pytest.approx(FrontendSettings().seconds, rel=0.01)
        assert settings.win_length / rate == pytest.approx(0.032, rel=0.01)
        Frontend(settings)  # no mel band is empty


def test_a_frequency_lies_at_the_band_whose_centre_it_is(frontend):
    found = [frontend.band(hertz) for hertz in band_centres()]
    np.testing.assert_allclose(found, np.arange(SETTINGS.n_mels), atol=1e-6)
