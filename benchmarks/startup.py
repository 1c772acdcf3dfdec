"""How long `watkins` takes before it does anything: `--help`, and `train` until it has made its first step.

Each is a process of its own, in turns. `train` runs on a small generated ocean and ends with its first step; beside it
stands the import of the libraries alone that such a training cannot do without. Seconds of processors are told too,
since other work on the machine hardly changes them.

Example: python benchmarks/startup.py --rounds 5
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from bench import beside

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {
    "baseline": "import numpy, pandas, soundfile, soxr, torch, torchaudio, mlflow",
    "efficientnet": "import numpy, pandas, soundfile, soxr, torch, torchaudio, mlflow, torchvision.models",
}
FIRST_STEP = """
import os, sys
from watkins_ml.cli import main
from watkins_ml.training.trainer import Trainer
step = Trainer._step
def first(*arguments):
    step(*arguments)
    os._exit(0)
Trainer._step = first
sys.argv[0] = "watkins"
main()
sys.exit("no step was made")
"""


def make_data(folder: Path) -> Path:
    from watkins_ml.dataset.prepare import PrepareOptions, prepare
    from watkins_ml.demo.ocean import generate_ocean

    generate_ocean(folder / "ocean", seed=0)
    prepare(folder / "ocean", folder / "data", PrepareOptions(min_clips=3))
    return folder / "data"


def seconds(command: list[str], folder: Path) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    started = time.perf_counter()
    child = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = child.stderr.read().decode().strip()
    _, status, used = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"{' '.join(command[-3:])}: {said.splitlines()[-1] if said else status}")
    return {"seconds": time.perf_counter() - started, "of processors": used.ru_utime + used.ru_stime}


def commands(data: Path) -> dict[str, list[str]]:
    watkins = [sys.executable, "-m", "watkins_ml"]
    found = {"watkins --help": [*watkins, "--help"]}
    for name in ("prepare", "train", "tune", "crossval", "compare", "predict", "fetch"):
        found[f"watkins {name} --help"] = [*watkins, name, "--help"]
    for model, libraries in LIBRARIES.items():
        found[f"{model}: libraries alone"] = [sys.executable, "-c", libraries]
        settings = ["-o", f"data.dir={data}", *(["-o", "model.weights=none"] if model == "efficientnet" else [])]
        recipe = str(ROOT / "experiments" / f"{model}.yaml")
        found[f"{model}: train to its first step"] = [sys.executable, "-c", FIRST_STEP, "train", recipe, *settings]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        every = commands(make_data(Path(folder)))
        for turn in range(options.rounds + 1):
            for name, command in every.items():
                found = seconds(command, Path(folder))
                if turn:  # the first fills the disk's cache
                    rows.append({"what": name, "turn": turn, **found})
                    print(rows[-1], file=sys.stderr)
    found = pd.DataFrame(rows)
    for model in LIBRARIES:
        whole, alone = (
            found[found["what"] == f"{model}: {part}"].set_index("turn").drop(columns="what")
            for part in ("train to its first step", "libraries alone")
        )
        beyond = (whole - alone).reset_index().assign(what=f"{model}: beyond its libraries")
        found = pd.concat([found, beyond])
        beside(f"start of train to its first step, {model}", "importing its libraries", alone.seconds / whole.seconds)
    of_help = found.loc[found["what"] == "watkins --help", "seconds"]
    beside("watkins --help", "half a second", 0.5 / of_help)
    print(f"{os.cpu_count()} cores, {options.rounds} rounds in turns, medians (range)")
    spread = found.groupby("what", sort=False).agg(
        {
            name: lambda s: f"{s.median():.2f} ({s.min():.2f}–{s.max():.2f})"
            for name in rows[0]
            if name not in ("what", "turn")
        }
    )
    print(spread.to_string())


if __name__ == "__main__":
    main()
