import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.excerpt import PEAK, mp3_excerpt
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings


def excerpt(path: Path, frontend: Frontend) -> bytes:
    return mp3_excerpt(frontend.read(path), frontend)


def write(path, frequency: float, seconds: float, rate: int, level: float = 0.01, offset: float = 0.0):
    time = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, offset + level * np.sin(2 * np.pi * frequency * time), rate, subtype="FLOAT")
    return path


@pytest.mark.parametrize("frequency", [20, 1000, 6000])  # a blue whale's call must survive the encoder
def test_the_excerpt_sounds_what_the_spectrogram_shows_at_full_level(tmp_path, frequency):
    frontend = Frontend()
    path = write(tmp_path / "a.wav", frequency, seconds=9, rate=44_100, offset=0.2)
    sound, rate = soundfile.read(io.BytesIO(excerpt(path, frontend)))
    assert rate == 16_000
    assert len(sound) == frontend.settings.samples
    assert np.abs(sound[2000:-2000]).max() == pytest.approx(PEAK, abs=0.2)  # what the encoder changes
    spectrum = np.abs(np.fft.rfft(sound))
    assert np.fft.rfftfreq(len(sound), 1 / rate)[spectrum.argmax()] == pytest.approx(frequency, abs=1)


def test_a_short_cut_is_repeated_as_in_the_spectrogram(tmp_path):
    path = write(tmp_path / "a.wav", 440, seconds=0.5, rate=16_000)
    sound, _ = soundfile.read(io.BytesIO(excerpt(path, Frontend())))
    assert np.abs(sound[-4000:]).max() > 0.5


def test_the_same_recording_gives_the_same_small_file(tmp_path):
    noise = np.random.default_rng(0).normal(size=5 * 16_000)
    soundfile.write(tmp_path / "noise.wav", 0.1 * noise, 16_000)
    made = excerpt(tmp_path / "noise.wav", Frontend())
    assert made == excerpt(tmp_path / "noise.wav", Frontend())
    assert len(made) < 30_000


@pytest.mark.parametrize(("rate", "playable"), [(10_000, 11_025), (96_000, 48_000)])
def test_a_rate_that_no_mp3_has_is_resampled(tmp_path, rate, playable):
    settings = FrontendSettings(sample_rate=rate, n_fft=8192, win_length=512, hop_length=rate // 100)
    path = write(tmp_path / "a.wav", 440, seconds=5, rate=rate)
    sound, found = soundfile.read(io.BytesIO(excerpt(path, Frontend(settings))))
    assert found == playable
    assert len(sound) / found == pytest.approx(settings.seconds, abs=0.02)


def test_a_missing_recording_is_an_audio_error(tmp_path):
    with pytest.raises(AudioError):
        excerpt(tmp_path / "gone.wav", Frontend())
