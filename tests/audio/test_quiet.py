"""libmpg123's own remarks do not reach the terminal; what anybody else writes there meanwhile does."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import soundfile

CHILD = """
import os, subprocess, sys, threading
from pathlib import Path
from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.opening import without_remarks
from watkins_ml.audio.stream import sliding_windows

def read(path):
    ways = read_recording, lambda path: list(sliding_windows(path, 1.0)), lambda path: read_recording(open(path, "rb"))
    for way in ways:
        try:
            way(path)
        except AudioError:
            pass

files = [Path(name) for name in sys.argv[1:]]
threads = [threading.Thread(target=read, args=(path,)) for path in files * 5]
for thread in threads:
    thread.start()
with without_remarks():
    print("python writes", file=sys.stderr, flush=True)
    os.write(2, b"descriptor writes\\n")
    subprocess.run(["sh", "-c", "echo child writes >&2"], check=True)
for thread in threads:
    thread.join()
import ctypes
libc = ctypes.CDLL(None)
libc.perror(b"C writes")
"""


def test_damaged_mp3_files_say_nothing_by_themselves(tmp_path):
    file, rng = io.BytesIO(), np.random.default_rng(0)
    soundfile.write(file, 0.1 * rng.standard_normal(48_000), 16_000, format="MP3", subtype="MPEG_LAYER_III")
    whole, noisy = file.getvalue(), bytearray(file.getvalue())
    for place in rng.integers(800, len(noisy), 200):
        noisy[place] ^= 0x55
    (tmp_path / "page.mp3").write_text("<html>404</html>" * 9)
    (tmp_path / "half.mp3").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "noisy.mp3").write_bytes(noisy)
    (tmp_path / "other.wav").write_bytes(noisy)
    loud = subprocess.run(
        [sys.executable, "-c", "import soundfile, sys; soundfile.read(sys.argv[1])", tmp_path / "noisy.mp3"],
        capture_output=True, text=True,
    ).stderr  # fmt: skip
    assert "error: " in loud or "Note: " in loud, "the library has become quiet by itself"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=True
    )
    lines = sorted(line for line in done.stderr.splitlines() if line)
    assert len(lines) == 4 and lines[0].startswith("C writes"), lines
    assert lines[1:] == ["child writes", "descriptor writes", "python writes"]
