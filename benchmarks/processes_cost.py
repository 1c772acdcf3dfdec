"""Seconds an epoch of one process, of one with more threads, and of several processes with one thread each.

They take turns, a training of a few epochs each, so that a busy machine slows all; the first epoch of each training
does not count. Printed: medians, and the ratio to one process with as many threads as there are processes.

Example: python benchmarks/processes_cost.py --data data --processes 2 --rounds 3
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

RECIPES = Path(__file__).resolve().parents[1] / "experiments"


def epoch_seconds(folder: Path, arguments: argparse.Namespace, processes: int, threads: int) -> list[float]:
    """Train into a new run directory in `folder`; the seconds of its epochs but the first."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = [f"data.dir={arguments.data.resolve()}", f"train.epochs={arguments.epochs}", "train.device=cpu"]
    settings += [f"train.early_stopping_patience={arguments.epochs}", *arguments.override]
    settings += ["tracking.register_as=null"]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "watkins_ml", "train"]
    command += [str(RECIPES / f"{arguments.recipe}.yaml"), *(word for each in settings for word in ("-o", each))]
    run = folder / f"{processes}-{threads}-{len(list(folder.iterdir()))}"
    nobody = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    environment = os.environ | nobody | {"OMP_NUM_THREADS": str(threads)}
    subprocess.run([*command, "--run-dir", str(run)], check=True, env=environment, capture_output=True)
    return pd.read_csv(run / "timing.csv")["epoch_seconds"].tolist()[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared data")
    parser.add_argument("--recipe", choices=["baseline", "efficientnet"], default="baseline")
    parser.add_argument("--override", "-o", action="append", default=[], help="key.path=value; may be given again")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if min(arguments.processes, arguments.epochs) < 2 or arguments.rounds < 1:
        parser.error("--processes and --epochs must be 2 or more, --rounds 1 or more")
    if not (arguments.data / "dataset.json").exists():
        parser.error(f"--data {arguments.data}: not a folder that `watkins prepare` has finished")
    count = arguments.processes
    ways = {"one process, one thread": (1, 1), f"one process, {count} threads": (1, count),
            f"{count} processes, one thread each": (count, 1)}  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="watkins-processes-") as folder:
        for _ in range(arguments.rounds):
            for name, (processes, threads) in ways.items():
                found[name] += epoch_seconds(Path(folder), arguments, processes, threads)
    base = np.median(found[f"one process, {count} threads"])
    for name, seconds in found.items():
        print(f"{name:32} {np.median(seconds):8.2f} s an epoch   ratio {np.median(seconds) / base:5.2f}")


if __name__ == "__main__":
    main()
