"""What tests of `watkins prepare` ask of a prepared folder, and the command as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

from tests.support import forked
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.dataset.prepare import prepare

SIDES = ("train", "val", "test")
OTHER_FRONTEND = FrontendSettings(sample_rate=8_000, n_fft=4096)


def table(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / "annotations" / f"{name}.csv", dtype={"tape": str, "cut_id": str}, keep_default_na=False)


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file that a user sees."""
    files = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith((".scan", ".writing"))]
    return {path.relative_to(out).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def spectrograms(out: Path) -> dict[str, Path]:
    """Where the spectrogram of each recording on the sides lies."""
    names = (name for side in SIDES for name in table(out, side)["spectrogram"])
    return {f"{path.parent.name}/{path.stem}": path for path in map(out.joinpath, names)}


def start(*arguments: object, **options) -> forked.Popen:
    command = [sys.executable, "-m", "watkins_ml", "prepare", *map(str, arguments), "--min-clips", "3"]
    return forked.Popen(command, stdout=subprocess.DEVNULL, text=True, **options)


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


class Killed(BaseException):
    """Ends a run at once, as a kill does."""


def killed_at(step: int, monkeypatch, *arguments) -> bool:
    """Prepare, but die before the given change of the file system; False if the run ended before."""
    left = [step]

    def dying(call):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return call(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(Path, "rmdir", dying(Path.rmdir))
        try:
            prepare(*arguments)
        except Killed:
            return True
    return False
