"""Read damaged recordings by every way there is: `python read_mutants.py FIRST COUNT NAME…`, run by test_audio_fuzz."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.mutants import mutant
from watkins_ml.audio.decode import AudioError, read_recording
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import MOST_WINDOWS
from watkins_ml.audio.stream import duration, sliding_windows

SECONDS = 20
MEGABYTES = 1_000


def read(frontend: Frontend, path: Path, number: int) -> bool:
    """Whether the file could be used by file."""
    used = False
    with contextlib.suppress(AudioError):
        recording = frontend.read(path, MOST_WINDOWS)
        assert recording.frames > 0 and torch.isfinite(frontend.windows(recording)).all()
        used = True
    with contextlib.suppress(AudioError):
        as_bytes = read_recording(io.BytesIO(path.read_bytes()), 4.0, MOST_WINDOWS)
        assert np.isfinite(as_bytes.waveform).all()
    assert duration(path) >= 0
    with contextlib.suppress(AudioError):
        for window in sliding_windows(path, 4.0, 0.5, each_channel=number % 4 == 0, slack_s=0.01):
            assert window.waveform is None or np.isfinite(window.waveform).all()
            assert 0 <= window.start_s < window.end_s
    return used


def most_memory() -> int:
    """The most megabytes that this program had; `getrusage` counts what its parent had before it was started, too."""
    (most,) = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")]
    return int(most) // 1_000


def main() -> None:
    first, count, names = int(sys.argv[1]), int(sys.argv[2]), tuple(sys.argv[3:])
    torch.set_num_threads(1)
    frontend, used = Frontend(), 0
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            name, content = mutant(number, names)
            print(name, flush=True)
            path = Path(folder) / name
            path.write_bytes(content)
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            used += read(frontend, path, number)
            faulthandler.cancel_dump_traceback_later()
            path.unlink()
            taken = most_memory()
            if taken > MEGABYTES:
                sys.exit(f"{name} took {taken} MB")
    print(f"used {used}; {taken} MB")


if __name__ == "__main__":
    main()
