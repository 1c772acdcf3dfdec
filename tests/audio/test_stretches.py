"""Stretches of long recordings: the grid of windows, and what is decoded of each."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.stream import sliding_windows
from watkins_ml.audio.stretches import read_stretch, read_stretches, window_grid

RATE = 1_000


@pytest.fixture
def stereo(tmp_path):
    samples = np.random.default_rng(0).integers(-9_000, 9_000, (100_000, 2), dtype="int16")
    samples[40_000:50_000] = 0
    for suffix in (".wav", ".flac"):
        soundfile.write(tmp_path / f"long{suffix}", samples, RATE)
    return tmp_path, samples.astype(np.float32) / 32_768


@given(frames=st.integers(1, 500), window=st.integers(1, 120), step=st.integers(1, 120))
@settings(deadline=None)
def test_the_grid_covers_every_sample_where_steps_leave_no_gap(frames, window, step):
    starts = window_grid(frames, window, min(step, window))
    covered = np.zeros(frames, bool)
    for start in starts:
        covered[start : start + window] = True
    assert covered.all()
    assert (np.diff(starts) > 0).all()
    assert starts[-1] == max(0, frames - window) or starts[-1] + window >= frames


@pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.9])
def test_the_grid_is_that_of_predictions(stereo, overlap):
    folder, samples = stereo
    seconds = 4.01
    wanted = [window.start_s for window in sliding_windows(folder / "long.wav", seconds, overlap)]
    window = round(seconds * RATE)
    starts = window_grid(len(samples), window, max(1, round(window * (1 - overlap))))
    assert (starts / RATE).tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_overlapping_near_and_distant_stretches_are_the_samples_of_the_file(stereo, suffix):
    folder, samples = stereo
    starts = [0, 1_000, 1_500, 5_000, 5_001, 90_000, 99_000]
    for channel in (0, 2):
        mono = samples.mean(axis=1) if channel == 0 else samples[:, 1]
        for start, found in zip(starts, read_stretches(folder / f"long{suffix}", starts, 2_000, channel), strict=True):
            assert (found.start, found.problem) == (start, None)
            np.testing.assert_allclose(found.waveform, mono[start : start + 2_000], atol=1e-6)


def test_silence_and_a_cut_off_end_are_told_of_the_stretch_alone(stereo):
    folder, _ = stereo
    problems = [each.problem for each in read_stretches(folder / "long.wav", [30_000, 42_000, 60_000], 2_000)]
    assert problems == [None, "silent: every sample has the same value", None]
    content = (folder / "long.flac").read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    found = list(read_stretches(folder / "cut.flac", [0, 90_000], 2_000))
    assert found[0].problem is None
    assert found[1].problem is not None


def test_a_stretch_is_a_recording_of_its_own(stereo):
    folder, samples = stereo
    found = read_stretch(folder / "long.wav", (1.5, 2.25), 1, excerpt_s=4.0)
    assert (found.sample_rate, found.frames, found.windows) == (RATE, 750, ())
    np.testing.assert_allclose(found.waveform, samples[1_500:2_250, 0], atol=1e-6)
    with pytest.raises(AudioError, match="silent"):
        read_stretch(folder / "long.wav", (42, 43), 0, 1.0)
    with pytest.raises(AudioError, match="unreadable"):
        read_stretch(folder / "gone.wav", (42, 43), 0, 1.0)


def test_a_stretch_is_cut_into_excerpts_as_a_recording_of_its_own_is(stereo):
    folder, samples = stereo
    soundfile.write(folder / "part.wav", samples[1_000:5_000, 0], RATE, subtype="FLOAT")
    for most in (1, 5):
        alone = read_recording(folder / "part.wav", 1.5, most)
        found = read_stretch(folder / "long.wav", (1, 5), 1, 1.5, most)
        assert np.array_equal(found.waveform, alone.waveform)
        assert len(found.windows) == len(alone.windows) == (3 if most > 1 else 0)
        assert all(map(np.array_equal, found.windows, alone.windows))
        assert [at - 1_000 for at in found.starts] == list(alone.starts)
