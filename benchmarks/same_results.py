"""Whether two checkouts give the same results, bit for bit: data, trainings, a study, a cross-validation, predictions.

Each checkout runs the same `watkins` commands in a folder of its own, with one thread; then all that must not differ is
compared, one line a thing. The exit status is 1 if anything differs. One side takes some five minutes of one core.

Examples:
    python benchmarks/same_results.py CHECKOUT OTHER_CHECKOUT
    python benchmarks/same_results.py --record before.json CHECKOUT
    python benchmarks/same_results.py --against before.json CHECKOUT

A key that has another name in the last checkout is given with --rename 'OLD=>NEW'; it is put into the options
of the commands, and the names of metrics, parameters and columns are read by it.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SEED = 3
CUTS = 1
"""So many cuts of each tape of the demo's archive are in the small one that most jobs use."""
TIMES = {"seconds", "epoch_seconds", "samples_per_second", "time"}
"""Columns of the history that differ from run to run."""
TRIAL = {"trial", "state", "val_macro_f1", "epochs"}
NOT_PARAMETERS = {"seconds", "run", "host", "continues", "duplicate_of", "problem"}
MASKS = ["augment.freq_mask=8", "augment.time_mask=20", "augment.mixup=0.4", "train.class_weights=sampled"]
Record = dict[str, Any]


class Side:
    """One checkout with its working folder, and the results of its commands."""

    def __init__(self, checkout: Path, folder: Path, weights: str, renamed: dict[str, str]):
        self.checkout, self.folder, self.weights, self.renamed = checkout.resolve(), folder.resolve(), weights, renamed
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "WATKINS_"))
        }
        self.environment |= {"PYTHONPATH": str(self.checkout), "OMP_NUM_THREADS": "1"}
        self.record: Record = {}

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """Start a `watkins` command in the working folder; its output is appended to `output.txt` there."""
        with open(self.folder / "output.txt", "a", encoding="utf-8") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "watkins_ml", *map(str, arguments)],
                cwd=self.folder, env=self.environment, stdout=output, stderr=output, text=True,
            )  # fmt: skip

    def watkins(self, *arguments: object) -> None:
        """Run a command to its end; its failure ends everything."""
        begun = time.perf_counter()
        status = self.start(*arguments).wait()
        print(f"  {time.perf_counter() - begun:6.1f} s  watkins {arguments[0]}", file=sys.stderr, flush=True)
        if status:
            tail = (self.folder / "output.txt").read_text(encoding="utf-8")[-2000:]
            sys.exit(f"{self.checkout}: watkins {' '.join(map(str, arguments))} failed:\n{tail}")

    def overrides(self, *settings: str) -> list[str]:
        """Options that change a recipe, by the names that this checkout knows."""
        for old, new in self.renamed.items():
            settings = tuple(each.replace(old, new) for each in settings)
        return [part for each in (f"train.seed={SEED}", "train.device=cpu", *settings) for part in ("-o", each)]

    def recipe(self, name: str) -> Path:
        return self.checkout / "experiments" / name

    def demo_recipe(self, name: str) -> Path:
        return next(path for path in sorted((self.checkout / "watkins_ml").rglob(name)) if "demo" in str(path.parent))

    def old_name(self, name: str) -> str:
        """The name that a key of this checkout had before."""
        for old, new in self.renamed.items():
            name = name.replace(new, old)
        return name

    def note(self, thing: str, value: Any) -> None:
        self.record[thing] = value

    def note_data(self, title: str, folder: Path) -> None:
        """The digest, the split and each spectrogram by the path of its recording."""
        self.note(f"{title}: digest", json.loads((folder / "dataset.json").read_text(encoding="utf-8"))["data_digest"])
        self.note(f"{title}: classes", json.loads((folder / "annotations" / "classes.json").read_text("utf-8")))
        self.note(f"{title}: rejected", rows(folder / "annotations" / "rejected.csv"))
        sides, tensors = {}, {}
        for side in ("train", "val", "test"):
            for row in rows(folder / "annotations" / f"{side}.csv"):
                sides[row["path"]] = f"{side} {row['label']} {row['tape']}"
                tensors[row["path"]] = digest(torch.load(folder / row["spectrogram"], weights_only=True))
        self.note(f"{title}: side, label and tape of {len(sides)} recordings", sides)
        self.note(f"{title}: spectrograms of {len(tensors)} recordings", tensors)

    def note_run(self, title: str, run: Path) -> None:
        """History, predictions, metrics and the model, where the run has them."""
        self.note(f"{title}: history", without(rows(run / "history.csv"), TIMES))
        for table in sorted(run.glob("preds/*.csv")):
            self.note(f"{title}: predictions on {table.stem}", rows(table))
        metrics = json.loads((run / "reports" / "metrics.json").read_text(encoding="utf-8"))
        self.note(f"{title}: metrics", {self.old_name(key): value for key, value in metrics.items()})
        if (run / "model" / "model.json").exists():
            described = json.loads((run / "model" / "model.json").read_text(encoding="utf-8"))
            self.note(f"{title}: temperature", described["temperature"])
            self.note(f"{title}: frontend and classes", {key: described[key] for key in ("frontend", "classes")})
            for part in ("weights", "novelty"):
                if (path := run / "model" / f"{part}.pt").exists():
                    tensors = torch.load(path, weights_only=True, map_location="cpu")
                    self.note(f"{title}: {part}", {name: digest(tensors[name]) for name in sorted(tensors)})

    # the jobs, in the order in which they need each other

    def demo(self) -> None:
        """The demo to the end of its first epoch: its archive, its data, and the first line of its history."""
        folder = self.folder / "demo"
        process = self.start("demo", "--out", folder, "--seed", SEED)
        begun, history = time.monotonic(), []
        while len(history) < 2 and process.poll() is None and time.monotonic() - begun < 600:
            time.sleep(0.2)
            history = [line for path in folder.glob("runs/*/history.csv") for line in path.read_text().splitlines(True)]
            history = [line for line in history if line.endswith("\n")]
        process.terminate()
        process.wait()
        if len(history) < 2:
            sys.exit(f"{self.checkout}: watkins demo did not train; see {self.folder / 'output.txt'}")
        ocean = {str(path.relative_to(folder)): sha256(path.read_bytes()) for path in sorted(folder.rglob("*.wav"))}
        self.note(f"demo: {len(ocean)} generated recordings", ocean)
        self.note_data("demo data", folder / "data")
        (run,) = folder.glob("runs/*")
        self.note("demo baseline: first epoch", without(rows(run / "history.csv"), TIMES)[:1])

    def prepare(self) -> None:
        """The small archive, and the data made of it."""
        seen: dict[str, int] = {}
        for path in sorted((self.folder / "demo" / "ocean").rglob("*.wav")):
            seen[path.name[:5]] = seen.get(path.name[:5], 0) + 1
            if seen[path.name[:5]] <= CUTS:
                (self.folder / "small" / path.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.folder / "small" / path.parent.name)
        self.watkins("prepare", "small", "--out", "data", "--seed", SEED, "--min-clips", 5)
        self.note_data("small data", self.folder / "data")

    def train(self, title: str, recipe: Path, *settings: str) -> None:
        run = f"runs/{title.replace(' ', '-')}"
        self.watkins("train", recipe, *self.overrides(*settings), "--run-dir", run)
        self.note_run(title, self.folder / run)

    def trainings(self) -> None:
        """Both shipped recipes, the baseline with every augmentation, and the demo's recipe of EfficientNet."""
        self.train("baseline", self.recipe("baseline.yaml"), "train.epochs=4", "data.batch_size=8")
        self.train("baseline with masks", self.recipe("baseline.yaml"), "train.epochs=2", "data.batch_size=8",
                   "tracking.register_as=null", *MASKS)  # fmt: skip
        weights = f"model.weights={self.weights}"
        self.train("efficientnet", self.recipe("efficientnet.yaml"), "train.epochs=2", "data.batch_size=16", weights)
        self.train("demo efficientnet", self.demo_recipe("efficientnet.yaml"), "train.epochs=1")

    def study(self) -> None:
        """Two trials of a frozen EfficientNet, whose features are cached."""
        settings = ["train.epochs=2", "data.batch_size=16", f"model.weights={self.weights}", "model.freeze_depth=9",
                    "study.search={optim.lr: {low: 0.0003, high: 0.01, log: true}}"]  # fmt: skip
        overrides = self.overrides(*settings)
        self.watkins("tune", self.recipe("tune-efficientnet.yaml"), *overrides, "--trials", 2, "--name", "study")
        trials = rows(self.folder / "runs" / "study" / "reports" / "trials.csv")
        named = [{self.old_name(key): value for key, value in row.items()} for row in trials]
        self.note("study: trials", without(named, NOT_PARAMETERS))
        for row in trials:
            self.note_run(f"study, trial {row['trial']}", self.folder / "runs" / "study" / Path(row["run"]).name)

    def crossval(self) -> None:
        settings = self.overrides("train.epochs=1", "data.batch_size=8")
        options = ["--folds", 3, "--seed", SEED, "--name", "folds"]
        self.watkins("crossval", self.recipe("baseline.yaml"), *settings, *options)
        for run in [self.folder / "runs" / "folds", *sorted((self.folder / "runs" / "folds").glob("fold-*"))]:
            self.note_run(f"crossval, {run.name}", run)

    def predict(self) -> None:
        """The registered baseline on a new recording and some cuts, with every window reported."""
        cuts = sorted((self.folder / "small").rglob("*.wav"))[::12]
        audio = [path.relative_to(self.folder) for path in (self.folder / "demo" / "new-recording.wav", *cuts)]
        options = ["--format", "csv", "--min-confidence", 0, "--max-novelty", "inf", "--top", 2, "--out"]
        for by in ("detection", "window"):
            self.watkins("predict", "models:/watkins-baseline@champion", *audio, "--by", by, *options, f"found-{by}")
            self.note(f"predict by {by}: detections", rows(self.folder / f"found-{by}" / "detections.csv"))

    def run(self, left_out: list[str]) -> Record:
        command = [sys.executable, "-c", "import watkins_ml; print(watkins_ml.__file__)"]
        used = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True).stdout
        if not Path(used.strip()).is_relative_to(self.checkout):
            sys.exit(f"{self.checkout}: python would run {used.strip() or 'nothing'}")
        print(f"{self.checkout} in {self.folder}", file=sys.stderr)
        jobs: list[Callable[[], None]] = [
            self.demo, self.prepare, self.trainings, self.study, self.crossval, self.predict
        ]  # fmt: skip
        begun = time.perf_counter()
        for job in jobs:
            if job.__name__ not in left_out:
                job()
        print(f"  {time.perf_counter() - begun:6.1f} s  in all", file=sys.stderr)
        return self.record


def rows(path: Path) -> list[dict[str, str]]:
    """A table as it was written, so that equal means equal to the last digit; none where there is none."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without(table: list[dict[str, str]], columns: set[str]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if key not in columns} for row in table]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def digest(tensor: torch.Tensor) -> str:
    """Of form, kind and every bit."""
    raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode() + raw)


def differences(first: Any, second: Any, where: str = "") -> list[str]:
    """In what two records of one thing differ. What only the second has (a new column or metric) is no difference."""
    if isinstance(first, dict) and isinstance(second, dict):
        return [
            each
            for key in first
            for each in (
                differences(first[key], second[key], f"{where} {key}") if key in second else [f"{where} {key} is gone"]
            )
        ]
    if isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            return [f"{where} {len(first)} rows, then {len(second)}"]
        pairs = enumerate(zip(first, second, strict=True), start=1)
        return [each for row, pair in pairs for each in differences(*pair, f"{where} row {row}")]
    same = first == second or (first != first and second != second)
    return [] if same else [f"{where} {first!r}, then {second!r}"]


def compare(first: Record, second: Record, partly: bool = False) -> bool:
    """Print a line for each thing; whether all are the same. `partly`: the second side has left out some jobs."""
    fine = True
    for thing in [*(key for key in first if key in second or not partly), *(key for key in second if key not in first)]:
        if thing not in first or thing not in second:
            found = [f"only on the {'first' if thing in first else 'second'} side"]
        else:
            found = differences(first[thing], second[thing])
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        print(f"{thing}: {'; '.join(each.strip() for each in found[:3]) + more if found else 'same'}")
        fine = fine and not found
    return fine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", type=Path, nargs="+", metavar="CHECKOUT")
    parser.add_argument("--record", type=Path, metavar="FILE", help="store the results of the one checkout")
    parser.add_argument("--against", type=Path, metavar="FILE", help="compare the one checkout with this record")
    parser.add_argument("--weights", default="none", help="a file for EfficientNet, or none; a record has its own")
    parser.add_argument("--rename", action="append", default=[], metavar="OLD=>NEW", help="of the last checkout's keys")
    jobs = ["trainings", "study", "crossval", "predict"]
    explanation = "a job, to save time; predict needs the trainings"
    parser.add_argument("--leave-out", action="append", default=[], choices=jobs, help=explanation)
    parser.add_argument("--work", type=Path, help="keep the working folders here; default a temporary one")
    options = parser.parse_args()
    if len(options.checkouts) != (1 if options.record or options.against else 2):
        parser.error("two checkouts, or one with --record or --against")
    if not all("=>" in each for each in options.rename):
        parser.error("--rename: write it as OLD=>NEW")
    renamed = dict(each.split("=>", 1) for each in options.rename)
    reference = json.loads(options.against.read_text(encoding="utf-8")) if options.against else None
    weights = reference["weights"] if reference else options.weights
    weights = weights if weights == "none" else str(Path(weights).resolve())
    with tempfile.TemporaryDirectory() as temporary:
        records = [reference["record"]] if reference else []
        for number, checkout in enumerate(options.checkouts):
            folder = Path(options.work or temporary) / f"side-{len(records) + 1}"
            folder.mkdir(parents=True)
            last = number == len(options.checkouts) - 1
            records.append(Side(checkout, folder, weights, renamed if last else {}).run(options.leave_out))
    if options.record:
        text = json.dumps({"weights": weights, "seed": SEED, "record": records[0]}, indent=1)
        options.record.write_text(text, encoding="utf-8")
    if len(records) == 2:
        sys.exit(0 if compare(*records, partly=bool(options.leave_out)) else 1)


if __name__ == "__main__":
    main()
