"""What tracking costs a training: the demo's baseline with the journal and an MLflow server, and with neither.

Two trainings of the same recipe take turns in one process, two epochs at a time, so that a busy machine slows both;
the second epoch of each turn counts, for in it the uploader sends what the first has recorded. Printed: the ratio of
the paired epochs, and as an upper bound without their noise what tracking does in an epoch (the training waits for
the journal's disk; the uploader's thread takes processor time that the training could have had).

Example: python benchmarks/tracking_cost.py --pairs 10
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from bench import beside

from watkins_ml.config import load_config
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import load_side
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.demo.ocean import generate_ocean
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client, server_command
from watkins_ml.tracking.uploader import Uploader
from watkins_ml.training.loop import fit

RECIPE = Path(__file__).resolve().parents[1] / "watkins_ml" / "demo" / "baseline.yaml"


class Turns:
    """Two trainings that take turns; only one of them runs at a time."""

    def __init__(self):
        self._gates = {True: threading.Semaphore(1), False: threading.Semaphore(0)}

    def wait(self, tracked: bool) -> None:
        self._gates[tracked].acquire()

    def give(self, tracked: bool) -> None:
        self._gates[not tracked].release()


@dataclass
class Recorder:
    """Times each epoch of a training and, if it is tracked, records it as a run does."""

    turns: Turns
    checkpoints: Path
    uploader: TimedUploader | None = None
    seconds: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    """Seconds in which the training stood still for the record."""
    _started: float = 0.0

    def begin(self) -> None:
        self.turns.wait(self.uploader is not None)
        self._started = time.perf_counter()

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        before = time.perf_counter()
        if self.uploader is not None:
            self.uploader.upload.run.epoch(metrics, timing)
        now = time.perf_counter()
        self.waited.append(now - before)
        self.seconds.append(now - self._started)
        if metrics["epoch"] % 2 == 0:
            if self.uploader is not None:
                self.uploader.settle()
            self.turns.give(self.uploader is not None)
            self.turns.wait(self.uploader is not None)
        self._started = time.perf_counter()


class TimedUploader(Uploader):
    """The uploader, which also notes the processor time of its thread."""

    cpu = 0.0

    def _loop(self) -> None:
        original = self.upload.send

        def send() -> int:
            before = time.thread_time()
            try:
                return original()
            finally:
                self.cpu += time.thread_time() - before

        self.upload.send = send
        super()._loop()

    def settle(self) -> None:
        """Wait until everything recorded is sent."""
        while self.upload.missing:
            time.sleep(0.01)


def train(data: PreparedData, config, recorder: Recorder) -> None:
    recorder.begin()
    splits = [load_side(data, side) for side in ("train", "val")]
    build = partial(build_model, config.model, len(data.classes))
    fit(config, build, *splits, len(data.classes), partial(score_epoch, classes=data.classes), recorder)
    recorder.turns.give(recorder.uploader is not None)


def measure(data: PreparedData, pairs: int, folder: Path) -> dict[str, np.ndarray | float]:
    """Epoch seconds of both trainings, and what tracking does an epoch."""
    limits = [f"train.epochs={2 * pairs + 2}", f"train.early_stopping_patience={2 * pairs + 2}", "train.device=cpu"]
    config = load_config(RECIPE, [*limits, f"data.dir={data.folder.root}"])
    run, turns = RunDirectory.create(folder / "run", config, data), Turns()
    with TimedUploader(run) as uploader:
        uploader.settle()  # the run's start and the import of MLflow are not an epoch's cost
        uploader.cpu = 0.0
        recorders = [Recorder(turns, run.checkpoints, uploader), Recorder(turns, folder / "untracked" / "checkpoints")]
        threads = [threading.Thread(target=train, args=(data, config, recorder)) for recorder in recorders]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.finish("FINISHED")
    tracked, untracked = (np.array(recorder.seconds[3::2]) for recorder in recorders)  # the first turn warms up
    return {
        "tracked": tracked, "untracked": untracked, "waited": float(np.median(recorders[0].waited)),
        "cpu": uploader.cpu / len(recorders[0].seconds),
    }  # fmt: skip


def start_server(folder: Path) -> tuple[subprocess.Popen, str]:
    """A real `mlflow server` on this machine, on a core that the training would like to have too."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "mlflow" / "artifacts").mkdir(parents=True)
    command = server_command("127.0.0.1", port, backend=None)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(
        command, cwd=folder, env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}, **quiet
    )
    address = f"http://127.0.0.1:{port}"
    os.environ["MLFLOW_TRACKING_URI"] = address
    deadline = time.monotonic() + 120
    while True:
        try:
            client().search_experiments()
            return process, address
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="how many pairs of epochs (default 10)")
    parser.add_argument("--data", type=Path, help="prepared data; default the demo's ocean, made anew")
    arguments = parser.parse_args()
    if arguments.pairs < 1:
        parser.error("--pairs must be 1 or more")
    data = arguments.data.resolve() if arguments.data else None
    if data is not None and not (data / "dataset.json").exists():
        parser.error(f"--data {arguments.data}: not a folder that `watkins prepare` has finished")
    with tempfile.TemporaryDirectory(prefix="watkins-cost-") as name:
        folder = Path(name)
        os.chdir(folder)
        if data is None:
            generate_ocean(folder / "ocean")
            data = folder / "data"
            prepare(folder / "ocean", data, PrepareOptions())
        server, _ = start_server(folder)
        try:
            found = measure(read_prepared(data), arguments.pairs, folder)
        finally:
            server.terminate()
            server.wait()
    ratios = found["tracked"] / found["untracked"]
    beside("epoch with tracking", "the same without", 1 / ratios)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    epoch = float(np.median(found["untracked"]))
    work = found["waited"] + found["cpu"]
    print(f"\nepoch without tracking        {epoch:8.3f} s (median of {len(ratios)})")
    print(f"tracked / untracked           {middle:8.4f}   (quartiles {low:.4f} to {high:.4f})")
    print(f"the training waits            {1000 * found['waited']:8.1f} ms an epoch for the journal")
    print(f"the uploader's processor time {1000 * found['cpu']:8.1f} ms an epoch")
    print(f"both, as share of an epoch    {100 * work / epoch:8.2f} %")


if __name__ == "__main__":
    main()
