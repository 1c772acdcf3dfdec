"""Damage in the header or the samples that libsndfile plays without an error: refused with a reason."""

from __future__ import annotations

import io
import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from watkins_ml.audio import decode
from watkins_ml.audio.decode import AudioError, frames_at_once, read_recording
from watkins_ml.audio.stream import duration, sliding_windows


def noise(samples: int, channels: int = 1) -> np.ndarray:
    """Float32 noise, shape (samples, channels)."""
    return np.random.default_rng(0).uniform(-0.5, 0.5, (samples, channels)).astype("float32")


def write(path: Path, audio: np.ndarray, **options) -> Path:
    soundfile.write(path, audio, 8_000, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(AudioError) as error:
        read_recording(path)
    return str(error.value)


@pytest.mark.parametrize("value", [1e15, -1e25, 3e38])
def test_samples_whose_power_would_overflow_are_refused(tmp_path, value):
    audio = noise(250)
    audio[120] = value
    assert "where full scale is 1" in refusal(write(tmp_path / "a.wav", audio, subtype="FLOAT"))
    audio[120] = 2.0**31  # integers stored as floating point numbers
    assert read_recording(write(tmp_path / "b.wav", audio, subtype="FLOAT")).frames == 250


def test_infinite_samples_that_cancel_cause_no_warning(tmp_path):
    audio = noise(250, 2)
    audio[120] = np.inf, -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AudioError, match="not numbers"):
            list(sliding_windows(write(tmp_path / "a.wav", audio, subtype="FLOAT"), 1.0))


@pytest.mark.parametrize("rate", [1, 9, 10_000_001, 0x7FFFFFFF])
def test_a_rate_that_no_recorder_has_is_a_damaged_header(tmp_path, rate):
    path = write(tmp_path / "a.wav", noise(500))
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    assert refusal(path) == f"unreadable: a sample rate of {rate} Hz, so its header is damaged"
    assert duration(path) == 0
    with pytest.raises(AudioError, match="a sample rate of"):
        list(sliding_windows(path, 4.0))
    content[24:28] = struct.pack("<I", 10)
    path.write_bytes(content)
    assert read_recording(path).sample_rate == 10


def test_an_ogg_with_a_page_missing_is_refused(tmp_path):
    path = write(tmp_path / "a.ogg", noise(48_000))
    content = path.read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    path.write_bytes(content[: pages[4]] + content[pages[5] :])
    assert refusal(path) == "damaged: a part of the Ogg stream is missing"


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_decoder_sent_before_the_beginning_of_an_open_file_raises_nothing_on_the_way(tmp_path):
    content = write(tmp_path / "a.aiff", noise(500)).read_bytes()
    with pytest.raises(AudioError, match="unreadable"):
        read_recording(io.BytesIO(content[:40]))


def test_many_channels_are_read_in_shorter_blocks(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", noise(500, 40))
    whole = read_recording(path)
    monkeypatch.setattr(decode, "BLOCK_SAMPLES", 1_000)
    with soundfile.SoundFile(path) as audio:
        assert frames_at_once(audio, decode.BLOCK_FRAMES) == 25
    assert read_recording(path).digest == whole.digest
