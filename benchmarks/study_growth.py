"""How a study grows with its workers: `watkins tune` itself with 1, 2 and 4 of them, on one machine and one database.

Every study tries the same number of points, none is pruned, and each worker has one thread. They take turns, so that a
busy machine slows all. Printed: trials a minute from the start of the first to the end of the last trial, by the
study's own times, and the ratio to one worker; then the whole command, with the start of its processes, the test of the
best trial and the pictures. More workers than cores share them.

Example: python benchmarks/study_growth.py --workers 1 2 4 --trials 16 --rounds 2
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna
import yaml
from bench import beside
from study_cost import RECIPE, SEARCH

from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.demo.ocean import generate_ocean


def recipe(folder: Path, data: Path, arguments: argparse.Namespace) -> Path:
    study = {"trials": arguments.trials, "startup_trials": arguments.trials, "pruner": "none", "search": SEARCH}
    epochs = {"epochs": arguments.epochs, "early_stopping_patience": arguments.epochs, "device": "cpu"}
    path = folder / "growth.yaml"
    path.write_text(yaml.safe_dump({"base": str(RECIPE), "data": {"dir": str(data)}, "study": study, "train": epochs}))
    return path


def run(path: Path, workers: int, turn: int) -> tuple[float, float]:
    """Trials a minute, and the seconds of the whole command."""
    folder = path.parent / f"{workers}-{turn}"
    folder.mkdir()
    storage = f"sqlite:///{folder / 'studies.db'}"
    command = [sys.executable, "-m", "watkins_ml", "tune", str(path), "--workers", str(workers)]
    own = {"MLFLOW_TRACKING_URI": "", "OMP_NUM_THREADS": "1", "WATKINS_STORAGE": storage}
    started = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=os.environ | own, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        sys.exit(f"watkins tune --workers {workers}: {(done.stderr.strip().splitlines() or ['no word'])[-1]}")
    trials = optuna.load_study(study_name=path.stem, storage=storage).trials
    span = max(trial.datetime_complete for trial in trials) - min(trial.datetime_start for trial in trials)
    return 60 * len(trials) / span.total_seconds(), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--trials", type=int, default=8, help="of each study")
    parser.add_argument("--epochs", type=int, default=2, help="of each trial")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--data", type=Path, help="prepared data; default the demo's ocean, made anew")
    arguments = parser.parse_args()
    if min(*arguments.workers, arguments.epochs, arguments.rounds) < 1 or arguments.trials < max(arguments.workers):
        parser.error("--workers, --epochs and --rounds must be 1 or more, --trials not fewer than workers")
    if len(set(arguments.workers)) < len(arguments.workers):
        parser.error("--workers: each number once")
    if arguments.data and not (arguments.data / "dataset.json").exists():
        parser.error(f"--data {arguments.data}: not a folder that `watkins prepare` has finished")
    found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in arguments.workers}
    with tempfile.TemporaryDirectory(prefix="watkins-growth-") as name:
        folder = Path(name)
        data = arguments.data and arguments.data.resolve()
        if data is None:
            generate_ocean(folder / "ocean")
            prepare(folder / "ocean", data := folder / "data", PrepareOptions())
        path = recipe(folder, data, arguments)
        for turn in range(arguments.rounds):
            for workers in arguments.workers[:: -1 if turn % 2 else 1]:
                found[workers].append(run(path, workers, turn))
    cores, base = os.cpu_count(), np.median([rate for rate, _ in found[arguments.workers[0]]])
    print(f"{cores} cores, {arguments.trials} trials a study, medians of {arguments.rounds} rounds")
    for workers, measured in found.items():
        rate, seconds = np.median(measured, axis=0)
        if workers != arguments.workers[0]:
            beside(
                f"study with {workers} workers", f"with {arguments.workers[0]}", [each / base for each, _ in measured]
            )
        print(f"{workers:>3} workers {rate:8.1f} trials a minute   ratio {rate / base:5.2f}   whole {seconds:6.1f} s")


if __name__ == "__main__":
    main()
