"""Reading recordings: every format, rate and length that the issue names; damaged files refused with a reason."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.audio import decode
from watkins_ml.audio.decode import AudioError, read_recording, window_starts

SUFFIXES = ["wav", "flac", "ogg", "mp3", "aiff"]
RATES = [300, 5_000, 8_000, 44_100, 166_600, 200_000]
MP3_RATES = {8_000, 44_100}


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    """Float32 noise, shape (samples, channels)."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels)).astype("float32")


def write(path: Path, audio: np.ndarray, rate: int = 8_000, **options) -> Path:
    soundfile.write(path, audio, rate, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(AudioError) as error:
        read_recording(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def writable(suffix: str, rate: int) -> bool:
    return suffix != "mp3" or rate in MP3_RATES


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("suffix", "rate"), [(suffix, rate) for suffix in SUFFIXES for rate in RATES if writable(suffix, rate)]
)
def test_a_16_ms_cut_is_read_at_its_native_rate(tmp_path, suffix, rate, channels):
    samples = round(0.016 * rate)
    recording = read_recording(write(tmp_path / f"cut.{suffix}", noise(samples, channels), rate))
    assert (recording.sample_rate, recording.channels, recording.frames) == (rate, channels, samples)
    assert recording.waveform.shape == (samples,)
    assert recording.waveform.dtype == np.float32
    assert recording.duration_s == pytest.approx(0.016, rel=0.05)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_samples_are_those_that_were_written(tmp_path, suffix):
    time = np.arange(8_000) / 8_000
    tone = 0.5 * np.cos(2 * np.pi * 440 * time).astype("float32")
    waveform = read_recording(write(tmp_path / f"tone.{suffix}", tone)).waveform
    lossy = suffix in ("ogg", "mp3")
    assert np.corrcoef(waveform, tone)[0, 1] > (0.99 if lossy else 0.99999)
    assert np.abs(waveform).max() == pytest.approx(0.5, rel=0.2 if lossy else 0.001)


def test_stereo_becomes_the_mean_of_its_channels(tmp_path):
    stereo = noise(1_000, 2)
    waveform = read_recording(write(tmp_path / "s.wav", stereo, subtype="FLOAT")).waveform
    np.testing.assert_allclose(waveform, stereo.mean(axis=1), atol=1e-7)


def test_channels_in_antiphase_do_not_cancel_to_silence(tmp_path):
    audio = noise(400)
    path = write(tmp_path / "a.wav", np.column_stack([audio, -audio]), subtype="FLOAT")
    np.testing.assert_allclose(np.abs(read_recording(path).waveform), np.abs(audio.squeeze()), atol=1e-6)


@pytest.mark.parametrize("name", ["Risso's dolphin (1), take 2.wav", "ÆØÅ – bjørn.WAV", "a;b&c #3.flac", "-o.wav"])
def test_awkward_names_are_read(tmp_path, name):
    assert read_recording(write(tmp_path / name, noise(500))).frames == 500


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_open_file_reads_as_a_path_does(tmp_path, suffix):
    path = write(tmp_path / f"a.{suffix}", noise(4_000))
    assert read_recording(io.BytesIO(path.read_bytes())).digest == read_recording(path).digest


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.7, 0.95, 0.999])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_truncated_file_is_refused(tmp_path, suffix, kept):
    path = write(tmp_path / f"a.{suffix}", noise(24_000))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    reason = refusal(path)
    if suffix in ("wav", "aiff", "mp3"):
        assert reason.startswith("truncated")


def test_an_ogg_cut_between_two_pages_is_refused(tmp_path):
    path = write(tmp_path / "a.ogg", noise(24_000))
    content = path.read_bytes()
    path.write_bytes(content[: content.rindex(b"OggS")])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"Field notes of 12 May, no recording\n" * 50, "unreadable"),
        (b"RIFF\x24\x00\x00\x00WAVE", "unreadable"),
        (bytes(2_000), "unreadable"),
    ],
    ids=["no bytes", "text", "only the start of a header", "zeros"],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_holds_no_audio_is_refused(tmp_path, suffix, content, word):
    path = tmp_path / f"notes.{suffix}"
    path.write_bytes(content)
    assert refusal(path).startswith(word)


def test_a_header_without_samples_is_empty(tmp_path):
    assert refusal(write(tmp_path / "a.wav", np.zeros(0))).startswith("empty")


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_silent_file_is_refused(tmp_path, suffix, channels):
    assert refusal(write(tmp_path / f"a.{suffix}", np.zeros((8_000, channels)))).startswith("silent")


def test_a_constant_offset_is_silence(tmp_path):
    assert refusal(write(tmp_path / "a.wav", np.full(8_000, 0.25))).startswith("silent")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 50, 120, 249], ids=["first sample", "first block", "middle block", "last sample"])
def test_samples_that_are_no_numbers_are_refused(tmp_path, monkeypatch, value, where):
    monkeypatch.setattr(decode, "BLOCK_FRAMES", 100)
    audio = noise(250)
    audio[where] = value
    assert "not numbers" in refusal(write(tmp_path / "a.wav", audio, subtype="FLOAT"))


def test_a_missing_file_is_unreadable(tmp_path):
    assert refusal(tmp_path / "gone.wav").startswith("unreadable")


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000], ids=["ffmpeg", "largest signed", "sox"])
def test_a_wav_header_of_unknown_length_is_accepted(tmp_path, length):
    path = write(tmp_path / "stream.wav", noise(3_000))
    whole = read_recording(path)
    content = bytearray(path.read_bytes())
    at = content.index(b"data") + 4
    content[at : at + 4] = struct.pack("<I", length)
    content[4:8] = struct.pack("<I", 0xFFFFFFFF)
    path.write_bytes(content)
    assert read_recording(path).digest == whole.digest


def test_the_same_audio_in_wav_flac_and_aiff_has_one_digest(tmp_path):
    audio = (noise(5_000, 2) * 32_767).astype("int16")
    digests = {
        read_recording(write(tmp_path / name, audio, subtype="PCM_16")).digest for name in ("a.wav", "b.flac", "c.aiff")
    }
    assert len(digests) == 1


def test_other_audio_another_rate_or_another_channel_count_has_another_digest(tmp_path):
    audio = noise(5_000)
    changed = audio.copy()
    changed[2_500] += 0.01
    variants = [(audio, 8_000), (audio, 8_001), (changed, 8_000), (np.tile(audio, (1, 2)), 8_000), (audio[1:], 8_000)]
    digests = {
        read_recording(write(tmp_path / f"{number}.wav", *variant)).digest for number, variant in enumerate(variants)
    }
    assert len(digests) == len(variants)


@pytest.mark.parametrize("block", [1 << 20, 1_000, 999], ids=["one block", "many blocks", "odd blocks"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_excerpt_is_the_centre(tmp_path, monkeypatch, suffix, block):
    path = write(tmp_path / f"a.{suffix}", noise(16_000))
    whole = read_recording(path)
    monkeypatch.setattr(decode, "BLOCK_FRAMES", block)
    part = read_recording(path, excerpt_s=0.5)
    assert part.frames == whole.frames
    assert part.digest == whole.digest or suffix == "mp3"  # libmpg123 rounds by how much is read at once
    np.testing.assert_allclose(part.waveform, whole.waveform[6_000:10_000], atol=1e-6)


def test_a_file_shorter_than_the_excerpt_is_whole(tmp_path):
    path = write(tmp_path / "a.wav", noise(1_000))
    np.testing.assert_array_equal(read_recording(path, excerpt_s=4).waveform, read_recording(path).waveform)


@given(st.integers(1, 10_000), st.integers(1, 3_000), st.integers(1, 20), st.integers(0, 50))
def test_windows_cover_the_sound_in_order_with_the_fewest(length, window, most, slack):
    window = min(window, length)
    starts = window_starts(length, window, most, slack)
    assert 1 <= len(starts) <= most and starts == sorted(starts)
    assert starts[0] >= 0 and starts[-1] + window <= length
    covered = np.zeros(length, dtype=bool)
    for start in starts:
        covered[start : start + window] = True
    enough = -(-(length - slack) // window)
    if enough <= most:
        assert (~covered).sum() <= slack
        assert len(starts) == max(1, enough)  # one less could not
    if len(starts) > 1:
        assert covered[0] and covered[-1]
        steps = np.diff(starts)
        assert steps.max() - steps.min() <= 1
    if len(starts) % 2:
        assert starts[len(starts) // 2] == (length - window) // 2 == window_starts(length, window, 1)[0]


@pytest.mark.parametrize("block", [1 << 20, 999], ids=["one block", "many blocks"])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg"])
def test_windows_run_from_the_first_sound_to_the_last(tmp_path, monkeypatch, suffix, block):
    silence = np.zeros((5_000, 1), dtype="float32")
    path = write(tmp_path / f"a.{suffix}", np.concatenate([silence, noise(10_000), silence]))
    whole = read_recording(path).waveform
    monkeypatch.setattr(decode, "BLOCK_FRAMES", block)
    recording = read_recording(path, excerpt_s=0.5, most=16)
    starts = window_starts(len(whole), 4_000, 16)
    assert len(recording.windows) == len(starts) >= 3
    for window, start in zip(recording.windows, starts, strict=True):
        np.testing.assert_allclose(window, whole[start : start + 4_000], atol=1e-6)
    np.testing.assert_array_equal(recording.waveform, read_recording(path, excerpt_s=0.5).waveform)


def test_a_recording_of_one_window_has_no_others(tmp_path):
    for samples in (10, 4_000, 4_080):
        path = write(tmp_path / "a.wav", noise(samples))
        assert read_recording(path, excerpt_s=0.5, most=16, slack_s=0.01).windows == ()
    path = write(tmp_path / "a.wav", noise(4_081))
    assert len(read_recording(path, excerpt_s=0.5, most=16, slack_s=0.01).windows) == 2


def test_a_silent_window_between_sounds_is_left_away(tmp_path):
    audio = np.concatenate([noise(4_000), np.zeros((12_000, 1), dtype="float32"), noise(4_000)])
    recording = read_recording(write(tmp_path / "a.wav", audio), excerpt_s=0.5, most=16)
    assert len(recording.windows) == 2
    assert all(np.abs(window).max() > 0.4 for window in recording.windows)
    assert recording.starts == (0, 16_000)


def test_a_recording_says_where_in_the_file_its_excerpts_begin(tmp_path):
    silence = np.zeros((5_000, 1), dtype="float32")
    path = write(tmp_path / "a.wav", np.concatenate([silence, noise(10_000), silence]))
    assert read_recording(path).starts == (5_000,)
    audio = soundfile.read(path, dtype="float32")[0]
    for most in (1, 16):
        recording = read_recording(path, excerpt_s=0.5, most=most)
        for start, excerpt in zip(recording.starts, recording.windows or [recording.waveform], strict=True):
            np.testing.assert_array_equal(audio[start : start + 4_000], excerpt)


def test_a_very_long_recording_has_no_more_windows_than_asked_for(tmp_path):
    path = write(tmp_path / "long.wav", noise(decode.BLOCK_FRAMES + 17), 8_000)
    windows = read_recording(path, excerpt_s=1.0, most=16).windows
    assert len(windows) == 16
    assert all(len(window) == 8_000 and (window.base is None or window.base.nbytes < 100_000) for window in windows)


def test_a_long_recording_is_read_in_blocks_and_only_the_excerpt_kept(tmp_path):
    frames = decode.BLOCK_FRAMES * 2 + 17
    recording = read_recording(write(tmp_path / "long.wav", noise(frames), 96_000), excerpt_s=1.0)
    assert recording.frames == frames
    assert recording.waveform.base is None or recording.waveform.base.nbytes < 1_000_000
    assert len(recording.waveform) == 96_000
