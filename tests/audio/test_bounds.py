"""Memory does not follow what a header claims: rates, channels and lengths are bounded together."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.opening import RATES, SAMPLES_A_SECOND, WINDOW_SAMPLES
from watkins_ml.audio.stream import sliding_windows

CHILD = """
import resource, sys
from pathlib import Path
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.stream import sliding_windows
taken = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
frontend, path = Frontend(), Path(sys.argv[1])
frontend.file_windows(Path(sys.argv[2]))
before, heard = taken(), 0
frontend.file_windows(path)
for window in sliding_windows(path, frontend.settings.seconds, 0.5, each_channel=sys.argv[3] == "each"):
    heard += window.waveform is not None
print(taken() - before, heard)
"""


def recorded(path: Path, rate: int, channels: int, seconds: float) -> Path:
    """Sound for a moment at both ends, and zeros that take no disk between."""
    frames = round(rate * seconds)
    block = (3_000 * np.random.default_rng(0).standard_normal((min(frames, 1_000), channels))).astype("<i2").tobytes()
    size = 2 * frames * channels
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, channels, rate,
                         2 * rate * channels, 2 * channels, 16, b"data", size)  # fmt: skip
    with open(path, "wb") as file:
        file.write(header + block)
        file.seek(len(header) + size - len(block))
        file.write(block)
    return path


@pytest.mark.parametrize(
    ("rate", "channels", "seconds", "way"),
    [(2_500_000, 1, 30, "mix"), (96_000, 87, 4.5, "each")],
)
def test_the_largest_that_is_read_takes_some_hundred_megabytes(tmp_path, rate, channels, seconds, way):
    small = recorded(tmp_path / "small.wav", 16_000, 1, 1.0)
    large = recorded(tmp_path / "large.wav", rate, channels, seconds)
    done = subprocess.run(
        [sys.executable, "-c", CHILD, large, small, way], capture_output=True, text=True, check=True
    )  # fmt: skip
    megabytes, heard = map(int, done.stdout.split())
    assert heard >= 2 and megabytes < 450


@pytest.mark.parametrize(
    ("rate", "channels", "words"),
    [
        (10_000_000, 1, "a sample rate of 10000000 Hz, so its header is damaged"),
        (RATES[-1] + 1, 1, "a sample rate of 2500001 Hz"),
        (16_000, 1_000, "1,000 channels at 16,000 Hz are more than 8,388,608 samples a second"),
        (96_000, SAMPLES_A_SECOND // 96_000 + 1, "88 channels at 96,000 Hz are more than"),
    ],
)
def test_what_no_recorder_makes_is_refused_in_one_sentence(tmp_path, rate, channels, words):
    path = recorded(tmp_path / "a.wav", rate, channels, 0.1)
    for way in (read_recording, lambda path: list(sliding_windows(path, 4.0, each_channel=True))):
        with pytest.raises(AudioError, match=words):
            way(path)


def test_a_window_of_an_hour_is_refused_where_it_does_not_fit(tmp_path):
    path = recorded(tmp_path / "a.wav", 48_000, 2, 800.0)
    assert 2 * 48_000 * 800 > WINDOW_SAMPLES
    for way in (lambda: read_recording(path, 3_600.0), lambda: list(sliding_windows(path, 3_600.0))):
        with pytest.raises(AudioError, match=r"too large: 3,600 s of 2 channels at 48,000 Hz"):
            way()


def test_fast_recorders_of_ultrasound_are_read(tmp_path):
    for rate in (384_000, 1_000_000, RATES[-1]):
        noise = np.random.default_rng(0).uniform(-0.5, 0.5, 5_000)
        soundfile.write(tmp_path / "a.wav", noise, rate, subtype="FLOAT")
        assert read_recording(tmp_path / "a.wav").sample_rate == rate
