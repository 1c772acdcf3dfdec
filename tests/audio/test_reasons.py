"""The reason that is given for a file that cannot be used is true."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import soundfile

from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.formats import AUDIO_SUFFIXES, OTHER_AUDIO, reason_of_name
from watkins_ml.audio.stream import sliding_windows

TONE = 0.3 * np.sin(2 * np.pi * 700 * np.arange(8000) / 8000)
FORMATS = {
    ".wav": "WAV", ".wave": "WAV", ".bwf": "WAVEX", ".rf64": "RF64", ".w64": "W64", ".aif": "AIFF", ".aiff": "AIFF",
    ".aifc": "AIFF", ".au": "AU", ".snd": "AU", ".caf": "CAF", ".flac": "FLAC", ".mp3": "MP3", ".ogg": "OGG",
    ".oga": "OGG", ".opus": "OGG", ".avr": "AVR", ".htk": "HTK", ".iff": "SVX", ".svx": "SVX", ".8svx": "SVX",
    ".nist": "NIST", ".sph": "NIST", ".paf": "PAF", ".pvf": "PVF", ".sds": "SDS", ".sf": "IRCAM", ".voc": "VOC",
    ".wve": "WVE",
}  # fmt: skip
CONTENTS = {
    b"<html><body>404 Not Found</body></html>": "not audio but a web page, as servers send instead of a file",
    b"\n<!DOCTYPE html>\n<html>": "not audio but a web page",
    b'{"error": "rate limit"}': 'not audio but text; it begins with \'{"error": "rate limit"}\'',
    "Notizen über Wale\r\n".encode("utf-16"): "not audio but text; it begins with 'Notizen über Wale'",
    b"PK\x03\x04" + bytes(range(100)): "not audio but a zip archive",
    b"\x1f\x8b\x08" + bytes(100): "not audio but a gzip archive",
    b"%PDF-1.4": "not audio but a PDF document",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n": "pointer of Git LFS; fetch the file itself",
    b"\0\0\0\x20ftypM4A " + bytes(40): "MPEG-4 (M4A, MP4, MOV), which cannot be read; convert it to WAV or FLAC",
    b"\x30\x26\xb2\x75\x8e\x66" + bytes(range(40)): "Windows Media (WMA), which cannot be read",
    bytes(4000): "not audio: it begins with nothing but zero bytes",
    b"": "empty: no bytes",
}


def said_of(path) -> tuple[str, str]:
    """What both ways of reading say of a file."""
    with pytest.raises(AudioError) as whole:
        read_recording(path)
    with pytest.raises(AudioError) as windows:
        list(sliding_windows(path, 4.0))
    return str(whole.value), str(windows.value)


@pytest.mark.parametrize("suffix", sorted(AUDIO_SUFFIXES - {".mp2"}))
def test_every_format_that_folders_are_searched_for_is_read(tmp_path, suffix):
    path, subtype = tmp_path / f"a{suffix}", {"subtype": "OPUS"} if suffix == ".opus" else {}
    soundfile.write(path, TONE, 8000, format=FORMATS[suffix], **subtype)
    recording = read_recording(path)
    assert recording.sample_rate == 8000 and abs(recording.waveform).max() > 0.2
    assert next(sliding_windows(path, 0.5)).waveform is not None


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg"])
@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
def test_what_is_no_audio_is_told_as_what_it_is(tmp_path, content, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    for said in said_of(path)[: 2 if content else 1]:
        assert CONTENTS[content] in said and "does not exist" not in said


def test_a_file_that_exists_is_not_said_to_be_missing(tmp_path):
    (tmp_path / "a.mp3").write_bytes(np.random.default_rng(0).bytes(3000))
    for said in said_of(tmp_path / "a.mp3"):
        assert "exist" not in said and "pipe" not in said
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere")
    assert said_of(tmp_path / "link.wav")[1] == "unreadable: a link to nothing"


def test_a_pipe_a_socket_and_a_device_are_told_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(tmp_path)
        listening.bind("b.wav")
        (tmp_path / "c.wav").symlink_to("/dev/zero")
        for name, what in {"a": "a pipe", "b": "a socket", "c": "a device"}.items():
            assert said_of(tmp_path / f"{name}.wav")[1] == f"unreadable: {what}, not a file"


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.zeros(800), "silent: every sample has the same value"),
        (np.full(800, 0.25), "silent: every sample has the same value"),
        (5e-6 * TONE, "silent: every sample is below -100 dB of full scale"),
        (np.full(800, np.nan), "holds samples that are not numbers"),
        (np.full(800, np.inf), "holds infinite samples, which are not numbers"),
        (np.zeros(0), "empty: no samples"),
    ],
)
def test_samples_that_cannot_be_used_are_told_as_what_they_are(tmp_path, samples, reason):
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="FLOAT")
    with pytest.raises(AudioError) as error:
        read_recording(tmp_path / "a.wav")
    assert str(error.value) == reason


def test_other_kinds_of_audio_are_not_called_no_audio(tmp_path):
    assert not OTHER_AUDIO & AUDIO_SUFFIXES
    assert reason_of_name(tmp_path / "a.M4A") == "a format that cannot be read (.m4a); convert it to WAV or FLAC"
    assert reason_of_name(tmp_path / "a.txt") == "not an audio file"
