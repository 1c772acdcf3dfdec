"""What a study costs: `watkins tune`'s own worker against bare Optuna around the same training function.

Both run the demo's baseline, a trial each in turns and in one process, so that a busy machine slows both; who is first
changes. The training function is the same (a run directory, the validation report, MLflow's copy); the peer keeps its
study in memory, ours in a database with locks, heartbeats and resumable trials. Printed: the ratio of the paired
trials, and without their noise what either does outside of the training function. At last a short real study, for the
processor time of the command that watches over the workers.

Example: python benchmarks/study_cost.py --pairs 8
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import optuna
import yaml
from bench import beside

from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.demo.ocean import generate_ocean
from watkins_ml.runs.train import read_inputs
from watkins_ml.tuning.recipe import StudyRecipe, load_study
from watkins_ml.tuning.record import StudyRecord
from watkins_ml.tuning.storage import quieten_optuna
from watkins_ml.tuning.trial import PrunedError, TrialRunner
from watkins_ml.tuning.tune import tune
from watkins_ml.tuning.worker import Assignment, Worker

RECIPE = Path(__file__).resolve().parents[1] / "watkins_ml" / "demo" / "baseline.yaml"
SEARCH = {"optim.lr": {"low": 0.0005, "high": 0.01, "log": True}, "model.dropout": {"low": 0.0, "high": 0.5}}


class NeverStops(nullcontext):
    """A worker's request to stop that never comes."""

    requested = False


@dataclass
class Clock:
    """Seconds inside the training function of each trial, without those that its reports to the study take."""

    inside: list[float] = field(default_factory=list)
    reporting: float = 0.0

    def time(self, function):
        def timed(*arguments):
            self.reporting, started = 0.0, time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.inside.append(time.perf_counter() - started - self.reporting)

        return timed

    def report(self, function):
        def timed(*arguments):
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.reporting += time.perf_counter() - started

        return timed


def describe(folder: Path, data: Path, trials: int, epochs: int) -> StudyRecipe:
    study = {"trials": trials, "startup_trials": 3, "pruner": "none", "search": SEARCH}
    tree = {
        "base": str(RECIPE), "data": {"dir": str(data)}, "study": study,
        "train": {"epochs": epochs, "early_stopping_patience": epochs, "device": "cpu"},
    }  # fmt: skip
    (folder / "cost.yaml").write_text(yaml.safe_dump(tree))
    return load_study(folder / "cost.yaml")


class Ours:
    """The worker of `watkins tune`, a trial at a time."""

    def __init__(self, recipe: StudyRecipe, folder: Path, digest: str):
        self.clock = Clock()
        storage = f"sqlite:///{folder / 'studies.db'}"
        self.worker = Worker(Assignment(recipe, digest, storage, folder, 1, None), NeverStops())
        self.worker.runner.run = self.clock.time(self.worker.runner.run)
        study = self.worker.study
        study.report, study.should_prune = self.clock.report(study.report), self.clock.report(study.should_prune)

    def trial(self) -> None:
        self.worker.attempt(self.worker.study.claim())


class Bare:
    """What people write who need no more: `study.optimize` with a function."""

    def __init__(self, recipe: StudyRecipe, folder: Path, digest: str):
        self.clock, self.recipe = Clock(), recipe
        runner = TrialRunner(folder, {"uid": f"bare {folder}", "name": "bare"}, read_inputs(recipe.config))
        self.run = self.clock.time(runner.run)
        self.runner = runner
        sampler = optuna.samplers.TPESampler(n_startup_trials=3, multivariate=True, seed=0)
        self.study = optuna.create_study(direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner())

    def trial(self, point: dict[str, object]) -> None:
        self.study.enqueue_trial(point)
        self.study.optimize(self._objective, n_trials=1)

    def _objective(self, trial: optuna.Trial) -> float:
        point = {key: trial._suggest(key, distribution) for key, distribution in self.recipe.space.items()}
        clock = self.clock

        class Watcher:
            report = staticmethod(clock.report(lambda epoch, value: trial.report(value, epoch)))
            should_prune = staticmethod(clock.report(trial.should_prune))

        try:
            return self.run(f"trial-{trial.number:03d}", trial.number, self.recipe.at(point), Watcher)
        except PrunedError as pruned:
            raise optuna.TrialPruned from pruned


def measure(recipe: StudyRecipe, folder: Path, pairs: int) -> dict[str, np.ndarray]:
    digest = read_prepared(Path(recipe.config.data.dir)).digest
    (folder / "ours").mkdir()
    ours, bare = Ours(recipe, folder / "ours", digest), Bare(recipe, folder / "bare", digest)
    seconds = {"ours": [], "bare": []}
    point = dict(recipe.own_point)
    for number in range(pairs + 1):
        order = ("ours", "bare") if number % 2 else ("bare", "ours")
        for name in order:
            started = time.perf_counter()
            ours.trial() if name == "ours" else bare.trial(point)
            seconds[name].append(time.perf_counter() - started)
    ours.worker.runner.wait_for_upload()
    bare.runner.wait_for_upload()
    found = {name: np.array(each[1:]) for name, each in seconds.items()}  # the first pair warms up
    for name, peer in (("ours", ours), ("bare", bare)):
        found[f"{name} outside"] = found[name] - np.array(peer.clock.inside[1:])
    return found


def watching(recipe: StudyRecipe) -> tuple[float, float]:
    """Of the command itself, whose workers are other processes: processor seconds in all, and a second while it waits.

    It waits between the end of the first trial and that of the last.
    """
    marks: list[tuple[float, float]] = []
    note = StudyRecord.note

    def marked(record: StudyRecord, trial: optuna.trial.FrozenTrial) -> None:
        marks.append((time.perf_counter(), time.process_time()))
        note(record, trial)

    StudyRecord.note, began = marked, time.process_time()
    tune(recipe)
    (first, first_cpu), (last, last_cpu) = marks[0], marks[-1]
    return time.process_time() - began, (last_cpu - first_cpu) / (last - first)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="how many pairs of trials (default 8)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a trial (default 4)")
    parser.add_argument("--data", type=Path, help="prepared data; default the demo's ocean, made anew")
    arguments = parser.parse_args()
    if arguments.pairs < 1 or arguments.epochs < 1:
        parser.error("--pairs and --epochs must be 1 or more")
    data = arguments.data.resolve() if arguments.data else None
    if data is not None and not (data / "dataset.json").exists():
        parser.error(f"--data {arguments.data}: not a folder that `watkins prepare` has finished")
    quieten_optuna()
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    with tempfile.TemporaryDirectory(prefix="watkins-cost-") as name:
        folder = Path(name)
        os.chdir(folder)
        if data is None:
            generate_ocean(folder / "ocean")
            data = folder / "data"
            prepare(folder / "ocean", data, PrepareOptions())
        found = measure(describe(folder, data, arguments.pairs + 1, arguments.epochs), folder, arguments.pairs)
        cpu, waiting = watching(describe(folder, data, 3, arguments.epochs))
    beside("trial of a study", "bare Optuna", found["bare"] / found["ours"])
    low, middle, high = np.quantile(found["ours"] / found["bare"], [0.25, 0.5, 0.75])
    outside = {name: float(np.median(found[f"{name} outside"])) for name in ("ours", "bare")}
    trial = float(np.median(found["bare"]))
    print(f"\na trial with bare Optuna            {trial:8.2f} s (median of {arguments.pairs})")
    print(f"ours / bare                         {middle:8.4f}   (quartiles {low:.4f} to {high:.4f})")
    print(f"outside the training function, ours {1000 * outside['ours']:8.1f} ms a trial")
    print(f"outside the training function, bare {1000 * outside['bare']:8.1f} ms a trial")
    print(f"the difference, as share of a trial {100 * (outside['ours'] - outside['bare']) / trial:8.2f} %")
    print(f"the command that watches            {100 * waiting:8.2f} % of a core while it waits")
    print(f"  with its start, test and pictures {cpu:8.1f} s of processor time")


if __name__ == "__main__":
    main()
