"""Windows over long recordings: nothing missed, nothing invented, whatever the length and the overlap."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.stream import duration, sliding_windows

RATE = 1_000


def recorded(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def noise(length: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(length).uniform(-0.5, 0.5, (length, channels)).astype("float32")


@settings(deadline=None, max_examples=80)
@given(length=st.integers(20, 9_000), window=st.integers(20, 3_000), overlap=st.floats(0, 0.95))
def test_every_sample_is_in_a_window_and_no_window_leaves_the_file(tmp_path_factory, length, window, overlap):
    samples = noise(length)
    path = recorded(tmp_path_factory.mktemp("property") / "a.wav", samples)
    windows = list(sliding_windows(path, window / RATE, overlap))
    covered = np.zeros(length, bool)
    for each in windows:
        start, end = round(each.start_s * RATE), round(each.end_s * RATE)
        assert 0 <= start < end <= length
        np.testing.assert_array_equal(each.waveform, samples[start:end, 0])
        assert end - start == min(window, length)
        covered[start:end] = True
    assert covered.all()
    starts = [round(each.start_s * RATE) for each in windows]
    assert starts == sorted(set(starts))
    step = max(1, round(window * (1 - overlap)))
    assert set(np.diff(starts[:-1])) <= {step}
    assert len(windows) == 1 or starts[-1] - starts[-2] <= step


def test_a_cut_no_longer_than_a_window_is_what_training_hears_of_it(tmp_path):
    silence = np.zeros((300, 1), "float32")
    path = recorded(tmp_path / "a.wav", np.concatenate([silence, noise(400), silence]))
    [window] = sliding_windows(path, 1.0)
    np.testing.assert_array_equal(window.waveform, noise(400)[:, 0])
    assert (window.start_s, window.end_s) == (0.0, 1.0)
    [longer] = sliding_windows(recorded(tmp_path / "b.wav", noise(1_010)), 1.0, slack_s=0.01)
    assert len(longer.waveform) == 1_000


def test_digital_silence_has_nothing_to_hear(tmp_path):
    samples = noise(6_000)
    samples[1_500:4_500] = 0
    windows = list(sliding_windows(recorded(tmp_path / "a.wav", samples), 1.0, 0.5))
    silent = [each.start_s for each in windows if each.waveform is None]
    assert silent == [1.5, 2.0, 2.5, 3.0, 3.5]


def test_each_channel_is_heard_by_itself_or_all_are_mixed(tmp_path):
    samples = noise(2_500, channels=3)
    samples[:, 1] = 0
    path = recorded(tmp_path / "a.wav", samples)
    mixed = list(sliding_windows(path, 1.0, 0.0))
    np.testing.assert_allclose(mixed[0].waveform, samples[:1_000].mean(axis=1), atol=1e-7)
    each = list(sliding_windows(path, 1.0, 0.0, each_channel=True))
    assert [window.channel for window in each] == [1, 2, 3] * 3
    np.testing.assert_array_equal(each[2].waveform, samples[:1_000, 2])
    assert [window.waveform is None for window in each] == [False, True, False] * 3


def test_what_is_left_of_a_truncated_recording_is_heard_before_it_is_told(tmp_path):
    whole = recorded(tmp_path / "a.wav", noise(10_000)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    heard = []
    with pytest.raises(AudioError, match="truncated"):
        for window in sliding_windows(tmp_path / "cut.wav", 1.0):
            heard.append(window)
    assert 4.8 < heard[-1].end_s < 5.1
    (tmp_path / "short.wav").write_bytes(whole[: len(whole) // 50])
    heard = []
    with pytest.raises(AudioError, match="truncated"):
        for window in sliding_windows(tmp_path / "short.wav", 1.0):
            heard.append(window)
    assert len(heard) == 1 and heard[0].waveform is not None
    soundfile.write(tmp_path / "a.flac", noise(20_000), 8_000)
    (tmp_path / "cut.flac").write_bytes((tmp_path / "a.flac").read_bytes()[:-9_000])
    heard = []
    with pytest.raises(AudioError):
        for window in sliding_windows(tmp_path / "cut.flac", 0.5):
            heard.append(window)
    assert heard


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not numbers"), (np.inf, "not numbers"), (1e25, "full scale")])
def test_a_stretch_of_numbers_that_are_none_or_too_large_costs_only_its_windows(tmp_path, value, reason):
    samples = noise(5_000)
    samples[2_100:2_200] = value
    heard = []
    with pytest.raises(AudioError, match=reason):
        for window in sliding_windows(recorded(tmp_path / "a.wav", samples), 1.0, 0.0):
            heard.append(window)
    assert [window.waveform is None for window in heard] == [False, False, True, False, False]


def test_a_hole_in_an_ogg_stream_is_told_after_what_is_around_it(tmp_path):
    soundfile.write(tmp_path / "a.ogg", noise(48_000), 8_000)
    content = (tmp_path / "a.ogg").read_bytes()
    pages = [match.start() for match in re.finditer(b"OggS", content)]
    (tmp_path / "a.ogg").write_bytes(content[: pages[4]] + content[pages[5] :])
    heard = []
    with pytest.raises(AudioError, match="a part of the Ogg stream is missing"):
        for window in sliding_windows(tmp_path / "a.ogg", 1.0):
            heard.append(window)
    assert len(heard) > 3


def test_what_cannot_be_opened_is_told_and_lasts_no_time(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF, but not really")
    (tmp_path / "headerless.raw").write_bytes(bytes(1_000))
    for name in ("a.wav", "gone.wav", "headerless.raw"):
        with pytest.raises(AudioError, match="unreadable"):
            list(sliding_windows(tmp_path / name, 1.0))
        assert duration(tmp_path / name) == 0
    soundfile.write(tmp_path / "empty.wav", np.empty(0), RATE)
    with pytest.raises(AudioError, match="empty"):
        list(sliding_windows(tmp_path / "empty.wav", 1.0))
