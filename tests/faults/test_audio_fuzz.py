"""500 damaged files of every format: none crashes the decoder, hangs it for 20 s or takes a gigabyte, and none writes
a line to the terminal."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support import ROOT

CHILD = ROOT / "tests/support/read_mutants.py"
MUTANTS = 500
FORMATS = {
    "WAV of 16 bits": ["pcm16.wav", "long-pcm16.wav"],
    "WAV of 24 bits": ["pcm24.wav"],
    "WAV of floating point": ["float.wav", "long-float.wav"],
    "extensible WAV": ["extensible.wav"],
    "ADPCM": ["adpcm.wav"],
    "RF64": ["pcm16.rf64"],
    "Wave64": ["float.w64"],
    "AIFF": ["pcm16.aiff", "long-pcm16.aiff"],
    "AU": ["pcm16.au"],
    "CAF": ["pcm24.caf"],
    "FLAC": ["pcm16.flac", "pcm24.flac", "long-pcm16.flac"],
    "Vorbis": ["vorbis.ogg", "long-vorbis.ogg"],
    "Opus": ["opus.ogg"],
    "MP3": ["layer3.mp3", "long-layer3.mp3"],
}


@pytest.mark.faults
@pytest.mark.parametrize("names", FORMATS.values(), ids=FORMATS)
def test_damaged_files_are_read_or_refused(names):
    done = subprocess.run([sys.executable, CHILD, "10000", str(MUTANTS), *names], capture_output=True, text=True)
    read = done.stdout.splitlines()
    assert done.returncode == 0, f"{read[-1:]}: {done.stderr[-2_000:]}"
    assert done.stderr == "", done.stderr[:2_000]
    assert len(read) == MUTANTS + 1
    assert MUTANTS // 20 < int(read[-1].split()[1].strip(";")) < MUTANTS - MUTANTS // 20, "some can be used, others not"
