"""Memory and speed of `watkins predict` by the length of the recording, and what it makes of nothing but noise.

Writes one recording of white noise a length, and judges each in a process of its own.

Example: python experiments/long_recordings.py results/real/watkins10/runs/baseline/fold-1 --minutes 10 60 180
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile


def write_noise(path: Path, minutes: int, rate: int) -> None:
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", rate, 1) as file:
        for _ in range(minutes):
            file.write(rng.normal(0, 0.05, 60 * rate).astype("float32"))


def predict(run: str, recording: Path, out: Path) -> tuple[float, float]:
    """Peak resident memory in MiB and seconds of `watkins predict`."""
    command = [sys.executable, "-m", "watkins_ml", "predict", run, str(recording), "--out", str(out)]
    started = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, used = os.wait4(child, 0)
    if status:  # it has said why
        sys.exit(os.waitstatus_to_exitcode(status))
    return used.ru_maxrss / 1024, time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run directory, or models:/NAME@champion")
    parser.add_argument("--minutes", type=int, nargs="+", default=[10, 60, 180])
    parser.add_argument("--rate", type=int, default=16_000, help="native sample rate in Hz")
    options = parser.parse_args()
    rows = []
    for minutes in options.minutes:
        with tempfile.TemporaryDirectory() as folder:
            recording, out = Path(folder) / f"{minutes}-minutes.wav", Path(folder) / "found"
            write_noise(recording, minutes, options.rate)
            memory, seconds = predict(options.run, recording, out)
            found = pd.read_csv(out / "detections.csv")
        heard = ", ".join(f"{row.species} {row.probability:.0%}" for row in found.itertuples()) or "nothing"
        rows.append(f"| {minutes} | {memory:,.0f} | {60 * minutes / seconds:.0f} | {heard} |")
    print("\n| minutes | peak memory, MiB | times real time | found in white noise |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
