"""Headers that say less or more than a file holds: what is there is heard, and nothing else; what differs is told."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.opening import open_audio
from watkins_ml.audio.stream import duration, sliding_windows

RATE, SAMPLES = 16_000, 48_000
CHUNKS = b"LIST\x0e\0\0\0INFOIART\x02\0\0\0me" + b"bext\x03\0\0\0abc\0" + b"iXML\x04\0\0\0<a/>"


def sound(samples: int = SAMPLES, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal((samples, channels))).astype("float32")


def written(container: str, subtype: str = "PCM_16", channels: int = 1, **options) -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, sound(channels=channels), RATE, format=container, subtype=subtype, **options)
    return bytearray(file.getvalue())


def put(content: bytearray, mark: bytes, offset: int, kind: str, value: int) -> bytearray:
    """`content` with a number at `offset` bytes behind the mark."""
    changed, place = bytearray(content), content.find(mark) + offset
    changed[place : place + struct.calcsize(kind)] = struct.pack(kind, value)
    return changed


def heard(content: bytes, tmp_path: Path) -> tuple[int, str | None]:
    """Samples and note (None where there is none) by each way of reading, which agree."""
    path = tmp_path / "a.audio"
    path.write_bytes(content)
    recording = read_recording(path)
    as_bytes = read_recording(io.BytesIO(content))
    assert (recording.frames, recording.digest, recording.notes) == (as_bytes.frames, as_bytes.digest, as_bytes.notes)
    windows = list(sliding_windows(path, 0.5, 0.5))
    assert round(windows[-1].end_s * RATE) == recording.frames
    assert duration(path) * RATE == recording.frames
    assert {window.notes for window in windows} == {recording.notes} and len(recording.notes) < 2
    return recording.frames, next(iter(recording.notes), None)


WAV, AIFF, AU, CAF, W64, RF64 = map(written, ("WAV", "AIFF", "AU", "CAF", "W64", "RF64"))
LONG = 0x7FFFFFFFFFFFFFFF
NO_LENGTH = {
    "wav": put(WAV, b"data", 4, "<I", 0),
    "wav, both sizes": put(put(WAV, b"data", 4, "<I", 0), b"RIFF", 4, "<I", 0),
    "wav, 24 bits": put(written("WAV", "PCM_24"), b"data", 4, "<I", 0),
    "wav, 8 bits": put(written("WAV", "PCM_U8"), b"data", 4, "<I", 0),
    "wav, float": put(written("WAV", "FLOAT"), b"data", 4, "<I", 0),
    "wav, double": put(written("WAV", "DOUBLE"), b"data", 4, "<I", 0),
    "wav, mu-law": put(written("WAV", "ULAW"), b"data", 4, "<I", 0),
    "wav, big-endian": put(written("WAV", endian="BIG"), b"data", 4, ">I", 0),
    "wav, extensible, stereo": put(written("WAVEX", "PCM_24", 2), b"data", 4, "<I", 0),
    "aiff": put(AIFF, b"SSND", 4, ">I", 0),
    "aiff, all sizes": put(put(put(AIFF, b"SSND", 4, ">I", 0), b"COMM", 10, ">I", 0), b"FORM", 4, ">I", 0),
    "aiff, header only": put(AIFF, b"SSND", 4, ">I", 8),
    "aiff, float": put(written("AIFF", "FLOAT"), b"SSND", 4, ">I", 0),
    "au": put(AU, b".snd", 8, ">I", 0),
    "caf": put(CAF, b"data", 4, ">q", 0),
    "w64": put(W64, b"data\xf3", 16, "<q", 24),
    "rf64": put(RF64, b"ds64", 16, "<q", 0),
}
OPEN = {
    "wav 0x7fffffff": put(WAV, b"data", 4, "<I", 0x7FFFFFFF),
    "wav 0xffffffff": put(WAV, b"data", 4, "<I", 0xFFFFFFFF),
    "wav 0x80000000": put(WAV, b"data", 4, "<I", 0x80000000),
    "aiff 0xffffffff": put(AIFF, b"SSND", 4, ">I", 0xFFFFFFFF),
    "au": put(AU, b".snd", 8, ">I", 0xFFFFFFFF),
    "caf": put(CAF, b"data", 4, ">q", -1),
    "rf64 without a length": put(RF64, b"ds64", 16, "<q", -1),
    "w64": put(W64, b"data\xf3", 16, "<q", LONG),
}
COUNTED = {
    "wav, the header as data": put(WAV, b"data", 4, "<I", len(WAV)),
    "wav, all but eight bytes": put(WAV, b"data", 4, "<I", len(WAV) - 8),
    "wav, a byte to make it even": put(WAV, b"data", 4, "<I", 2 * SAMPLES + 1),
    "wav, half a sample more": WAV + b"\x01",
    "aiff, the header as data": put(AIFF, b"SSND", 4, ">I", len(AIFF)),
    "au, the header as data": put(AU, b".snd", 8, ">I", len(AU)),
    "caf, the header as data": put(CAF, b"data", 4, ">q", len(CAF)),
    "w64, the header as data": put(W64, b"data\xf3", 16, "<q", len(W64) + 24),
}
FOLLOWED = {
    "wav": WAV + CHUNKS,
    "wav, its size counts them": put(WAV + CHUNKS, b"RIFF", 4, "<I", len(WAV + CHUNKS) - 8),
    "wav, filled up with zeros": WAV + CHUNKS + bytes(70_000),
    "wav, zeros": WAV + bytes(200_000),
    "wav, a chunk of a wrong length": put(WAV + CHUNKS * 3_000, b"LIST", 4, "<I", 1 << 31),
    "wav, id3": WAV + b"ID3\x03\0\0\0\0\x7f\x7f" + b"art" * 60_000,
    "wav, xml": WAV + b"<?xml version='1.0'?>" + b"<note/>" * 20_000,
    "wav, little junk": WAV + bytes(range(1, 255)) * 20,
    "wav, of no sound": put(WAV[:44], b"data", 4, "<I", 0) + CHUNKS,
    "aiff": AIFF + b"NAME\0\0\0\x04cut1" + (b"ANNO\0\0\3\xe8" + b"a" * 1_000) * 60,
    "caf": CAF + b"info\0\0\0\0\0\1\0\0" + b"a" * 65_536,
    "w64": W64 + b"list" + W64[28:40] + struct.pack("<Q", 24 + 65_536) + b"a" * 65_536,
}


@pytest.mark.parametrize("content", NO_LENGTH.values(), ids=NO_LENGTH)
def test_sound_whose_header_was_never_filled_in_is_read_and_told(tmp_path, content):
    note = "its header gives no length, but the file holds 3 s; all of it was read"
    assert heard(content, tmp_path) == (SAMPLES, note)


@pytest.mark.parametrize("content", OPEN.values(), ids=OPEN)
def test_a_length_that_a_stream_left_open_is_no_fault(tmp_path, content):
    assert heard(content, tmp_path) == (SAMPLES, None)


@pytest.mark.parametrize("content", COUNTED.values(), ids=COUNTED)
def test_a_header_that_counts_itself_takes_no_sound_away(tmp_path, content):
    assert heard(content, tmp_path) == (SAMPLES, None)


@pytest.mark.parametrize("content", FOLLOWED.values(), ids=FOLLOWED)
def test_what_follows_the_sound_is_neither_heard_nor_told(tmp_path, content):
    if len(content) < 200:
        with pytest.raises(AudioError, match="empty: no samples"):
            heard(content, tmp_path)
    else:
        assert heard(content, tmp_path) == (SAMPLES, None)


def test_bw64_is_wave_with_long_sizes(tmp_path):
    content = b"BW64" + RF64[4:]
    assert heard(content, tmp_path) == (SAMPLES, None)
    assert heard(content + CHUNKS, tmp_path) == (SAMPLES, None)


def test_only_the_length_of_the_samples_is_wrong(tmp_path):
    """Samples counted instead of bytes; the size of the whole file is right."""
    frames, note = heard(put(WAV, b"data", 4, "<I", SAMPLES), tmp_path)
    assert frames == SAMPLES
    assert note == "its header says 1.5 s, but the file holds 3 s; all of it was read"


def test_what_no_part_of_the_header_claims_is_told_and_not_read(tmp_path):
    half = put(put(WAV, b"data", 4, "<I", SAMPLES), b"RIFF", 4, "<I", SAMPLES + 36)
    frames, note = heard(half, tmp_path)
    assert frames == SAMPLES // 2
    assert note == "its header ends after 1.5 s; the 48,000 bytes behind that were not read"


@pytest.mark.parametrize("container", ["WAV", "AIFF", "AU", "CAF", "W64", "RF64"])
def test_a_file_that_was_cut_off_is_told_in_every_container(tmp_path, container):
    path = tmp_path / "a.audio"
    path.write_bytes(written(container)[:-40_000])
    with pytest.raises(AudioError, match=r"truncated: 56000 of 96000 bytes of audio are there"):
        read_recording(path)
    told = []
    with pytest.raises(AudioError, match="truncated"):
        for window in sliding_windows(path, 0.5):
            told.append(window)
    assert told[-1].end_s == 1.75


def test_packed_samples_without_a_length_are_not_taken_for_plain_ones(tmp_path):
    packed = written("WAV", "IMA_ADPCM")
    with pytest.raises(AudioError, match="its header gives no length, without which 24,576 packed bytes"):
        heard(put(packed, b"data", 4, "<I", 0), tmp_path)
    assert heard(put(packed, b"data", 4, "<I", len(packed)), tmp_path)[1] is None


@pytest.mark.parametrize("width", [2, 3])
def test_a_length_that_began_again_at_0_after_4_gib(tmp_path, width):
    """Sparse files: they take no disk. The first seconds of 4 GiB are sound, and the last."""
    subtype, length = {2: "PCM_16", 3: "PCM_24"}[width], (1 << 32) // 6 * 6 + 6 * SAMPLES
    head = put(put(written("WAV", subtype), b"data", 4, "<I", length % (1 << 32)), b"RIFF", 4, "<I", length % (1 << 32))
    path = tmp_path / "big.wav"
    with open(path, "wb") as file:
        file.write(head)
        file.seek(44 + length - width * SAMPLES)
        file.write(head[44:])
        file.write(CHUNKS)
    with open_audio(path) as audio:
        assert audio.frames == length // width
        assert "its header says" in audio.plan.note and "hours; all of it was read" in audio.plan.note
        audio.seek(audio.frames - SAMPLES)
        np.testing.assert_allclose(audio.read(SAMPLES + 99, dtype="float32"), sound()[:, 0], atol=1e-4)


@given(declared=st.integers(0, (1 << 32) - 1), riff=st.integers(0, (1 << 32) - 1), tail=st.binary(max_size=60))
def test_no_length_makes_samples_of_what_is_not_there(declared, riff, tail):
    content = put(put(WAV[:8_044], b"data", 4, "<I", declared), b"RIFF", 4, "<I", riff) + tail
    try:
        with open_audio(io.BytesIO(content)) as audio:
            samples = audio.read(dtype="float32")
    except AudioError:
        return
    assert len(samples) <= 4_000 + len(tail) // 2
    known = samples[:4_000]
    np.testing.assert_allclose(known, sound()[: len(known), 0], atol=1e-4)


def mp3(**options) -> bytes:
    """Three seconds that get louder, so that a variable bit rate begins low."""
    file, louder = io.BytesIO(), sound() * np.linspace(0, 3, SAMPLES)[:, None] ** 2
    soundfile.write(file, louder, RATE, format="MP3", subtype="MPEG_LAYER_III", **options)
    return file.getvalue()


def id3(length: int) -> bytes:
    size = bytes(length >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\x03\0\0" + size + bytes(range(256)) * (length // 256)


def frame_length(content: bytes) -> int:
    return next(at for at in range(4, 4_000) if content[at] == 0xFF and content[at + 1 : at + 2] == content[1:2])


VARIABLE = mp3(bitrate_mode="VARIABLE", compression_level=0.5)
BARE = VARIABLE[frame_length(VARIABLE) :]
"""Without the header of the encoder, which holds the length."""
V1 = b"TAG" + b"a" * 125
APE = b"APETAGEX" + struct.pack("<IIII8x", 2_000, 32, 0, 0)
MP3S = {
    "variable": BARE,
    "variable, tag": id3(4_096) + BARE,
    "variable, picture": id3(256 * 1_200) + BARE,
    "variable, tags": id3(256) + id3(1_024) + BARE + APE + V1,
    "constant": (constant := mp3(bitrate_mode="CONSTANT", compression_level=0.5))[frame_length(constant) :],
    "constant, picture": id3(256 * 1_200) + constant[frame_length(constant) :],
    "with its header, picture": id3(256 * 1_200) + VARIABLE,
    "with its header, tags": id3(256) + VARIABLE + APE + V1,
}


@pytest.mark.parametrize("content", MP3S.values(), ids=MP3S)
def test_a_whole_mp3_is_whole_with_or_without_its_header_and_tags(tmp_path, content):
    frames, note = heard(content, tmp_path)
    assert note is None
    assert SAMPLES <= frames <= SAMPLES + 5 * 576


def test_joined_mp3_files_are_heard_to_the_end(tmp_path):
    one = heard(BARE, tmp_path)[0]
    assert heard(BARE + BARE, tmp_path) == (2 * one + 529, None)  # the decoder leaves its delay away once
    for joined in (VARIABLE + VARIABLE, id3(512) + VARIABLE + V1 + id3(512) + VARIABLE + V1):
        frames, note = heard(joined, tmp_path)
        assert 2 * SAMPLES <= frames <= 2 * SAMPLES + 10 * 576
        assert note.startswith("its header says 3") and note.endswith("all of it was read")


def test_a_truncated_mp3_with_its_header_is_truncated(tmp_path):
    with pytest.raises(AudioError, match="truncated"):
        heard(id3(512) + VARIABLE[: len(VARIABLE) // 2], tmp_path)


@pytest.mark.parametrize("declared", [0, 20_000])
@pytest.mark.parametrize("blocks", [0.0, 1.0])
def test_a_flac_stream_that_says_less_than_it_holds(tmp_path, declared, blocks):
    whole = written("FLAC", compression_level=blocks)
    word = int.from_bytes(whole[18:26], "big") >> 36 << 36 | declared
    frames, note = heard(whole[:18] + word.to_bytes(8, "big") + whole[26:], tmp_path)
    assert frames == SAMPLES
    assert note == ("its header says 1.25 s, but the file holds 3 s; all of it was read" if declared else None)
    assert heard(id3(512) + whole, tmp_path) == (SAMPLES, None)
    assert heard(whole + b"junk" * 500, tmp_path) == (SAMPLES, None)


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_joined_ogg_streams_are_told(tmp_path, subtype):
    one = written("OGG", subtype)
    assert heard(one, tmp_path) == (SAMPLES, None)
    for other in (one, written("OGG", subtype)):  # the serial number is the same, or another
        assert heard(one + other, tmp_path) == (
            SAMPLES, "holds several Ogg streams one after the other; only the first was read"
        )  # fmt: skip
