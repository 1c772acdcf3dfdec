"""Several channels as one: no sound is lost because a cable was turned round, and unrelated channels are the mean."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.audio.decode import read_recording
from watkins_ml.audio.mixing import TURNED, mixed
from watkins_ml.audio.stream import sliding_windows

RATE = 8_000


def noise(channels: int = 1, samples: int = 4_000, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal((samples, channels))).astype("float32")


def likeness(first: np.ndarray, second: np.ndarray) -> float:
    return abs(np.corrcoef(first, second)[0, 1])


CALL = np.sin(2 * np.pi * 700 * np.arange(4_000) / RATE)[:, None].astype("float32") * 0.3 + noise()
INVERTED = {
    "exactly": np.hstack([CALL, -CALL]),
    "all but the last bit": np.hstack([CALL, -CALL - 3e-5]),
    "with other noise": np.hstack([CALL, -CALL]) + 0.2 * noise(2, seed=1),
    "weaker": np.hstack([CALL, -0.8 * CALL]),
    "with offsets": np.hstack([CALL + 0.2, -CALL + 0.2]),
    "two pairs": np.hstack([CALL, -CALL, noise(seed=5), -noise(seed=5)]) + 0.01 * noise(4, seed=2),
    "beside dead channels": np.hstack([CALL, 0 * CALL, -CALL, 0 * CALL + 0.1]),
    "half of many": np.hstack([CALL * (-1) ** number for number in range(100)]),
}


@pytest.mark.parametrize("channels", INVERTED.values(), ids=INVERTED)
def test_inverted_channels_do_not_cancel(channels):
    waveform, turned = mixed(channels)
    assert turned and waveform.dtype == np.float32 and waveform.shape == (4_000,)
    assert likeness(waveform, CALL[:, 0]) > (0.6 if channels.shape[1] == 4 else 0.98)
    assert waveform.std() > 0.1


RELATED = {
    "the same": np.hstack([CALL, CALL]),
    "unrelated": noise(2),
    "many unrelated": noise(30),
    "a dead one": np.hstack([CALL, 0 * CALL]),
    "an offset beside it": np.hstack([CALL, 0 * CALL + 0.3]),
    "slightly opposed": np.hstack([noise(seed=1) - 0.3 * noise(seed=2), noise(seed=2) - 0.1 * noise(seed=1)]),
    "one of four": np.hstack([CALL, CALL, CALL, -CALL]),
    "silence": np.zeros((4_000, 2), "float32"),
}


@pytest.mark.parametrize("channels", RELATED.values(), ids=RELATED)
def test_other_channels_are_their_mean(channels):
    waveform, turned = mixed(channels)
    assert not turned
    np.testing.assert_allclose(waveform, channels.mean(axis=1), atol=1e-6)


@given(
    signs=st.lists(st.sampled_from([-1, 1]), min_size=2, max_size=6),
    offsets=st.lists(st.floats(-0.5, 0.5), min_size=6, max_size=6),
    seed=st.integers(0, 99),
)
def test_no_way_of_turning_channels_round_loses_the_sound(signs, offsets, seed):
    channels = np.hstack([sign * CALL + offset for sign, offset in zip(signs, offsets, strict=False)])
    channels += 0.05 * noise(len(signs), seed=seed)
    waveform, _ = mixed(channels.astype("float32"))
    assert likeness(waveform, CALL[:, 0]) > 0.98 and waveform.std() > 0.04


def test_a_recording_is_told_to_be_inverted_by_file_and_over_time(tmp_path):
    call = np.tile(CALL, (6, 1))
    soundfile.write(tmp_path / "a.wav", np.hstack([call, -call]), RATE, subtype="PCM_16")
    recording = read_recording(tmp_path / "a.wav", 1.0, most=16)
    assert recording.notes == (TURNED,)
    assert all(likeness(window, call[start : start + RATE, 0]) > 0.999
               for window, start in zip(recording.windows, recording.starts, strict=True))  # fmt: skip
    for window in sliding_windows(tmp_path / "a.wav", 1.0):
        start = round(window.start_s * RATE)
        assert window.notes == (TURNED,)
        assert likeness(window.waveform, call[start : start + RATE, 0]) > 0.999
    assert not any(window.notes for window in sliding_windows(tmp_path / "a.wav", 1.0, each_channel=True))
