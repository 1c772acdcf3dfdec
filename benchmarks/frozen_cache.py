"""What kept outputs of frozen stages save: seconds an epoch of EfficientNet-B0, naive against cached.

For each freeze depth two trainings of the same recipe take turns in one process, an epoch each, so that a busy machine
slows both. An epoch is training, validation and checkpoint; the first one of each training is left out. Printed: the
medians with quartiles, the ratio of the paired epochs, what the first pass over the recordings takes, and the largest
relative difference between the two histories of validation loss.

Example: python benchmarks/frozen_cache.py --data data --weights efficientnet_b0.pth
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from bench import beside
from torch import nn

from watkins_ml.config import ExperimentConfig, load_config
from watkins_ml.core.console import err
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import Side, load_side
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.demo.ocean import generate_ocean
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.training.features import FeatureCache, Shortened
from watkins_ml.training.loop import fit

RECIPE = Path(__file__).parents[1] / "experiments" / "efficientnet.yaml"
LARGE = 15_000
"""Recordings of the whole Watkins database."""


class TimedStore(FeatureCache):
    """A feature store that notes how long the first pass took."""

    seconds = 0.0

    def shorten(self, *arguments) -> Shortened:
        started = time.perf_counter()
        shortened = super().shorten(*arguments)
        object.__setattr__(self, "seconds", time.perf_counter() - started)
        return shortened

    def size(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("*")) if self.folder.exists() else 0


@dataclass
class Recorder:
    """Times the epochs of one of two trainings that take turns; only one of them runs at a time."""

    checkpoints: Path
    mine: threading.Semaphore
    others: threading.Semaphore
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    _started: float = 0.0

    def begin(self) -> None:
        self.mine.acquire()
        self._started = time.perf_counter()

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self.seconds.append(time.perf_counter() - self._started)
        self.losses.append(metrics["val_loss"])
        random = torch.get_rng_state()  # so that dropout is the same in both
        self.others.release()
        self.begin()
        torch.set_rng_state(random)


def train(config: ExperimentConfig, splits: list[Side], classes: list[str], recorder: Recorder, store) -> None:
    recorder.begin()
    build: partial[nn.Module] = partial(build_model, config.model, len(classes))
    fit(config, build, *splits, len(classes), partial(score_epoch, classes=classes), recorder, features=store)
    recorder.others.release()


def measure(config: ExperimentConfig, data: PreparedData, splits: list[Side], folder: Path) -> tuple:
    """Both trainings of one freeze depth: the recorders of the naive and the cached one, and the store."""
    gates = threading.Semaphore(1), threading.Semaphore(0)
    naive, cached = Recorder(folder / "naive", *gates), Recorder(folder / "cached", *gates[::-1])
    store = TimedStore(folder / "features", data.digest, 1000)
    threads = [
        threading.Thread(target=train, args=(config, splits, data.classes, *of))
        for of in ((naive, None), (cached, store))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return naive, cached, store


def row(depth: int, naive: Recorder, cached: Recorder, store: TimedStore, recordings: int) -> str:
    seconds = [np.array(recorder.seconds[1:]) for recorder in (naive, cached)]
    texts = ["{1:8.2f} ({0:.2f}-{2:.2f})".format(*np.quantile(each, [0.25, 0.5, 0.75])) for each in seconds]
    beside(f"epoch on kept outputs, {depth} frozen stages", "the same without", seconds[0] / seconds[1])
    low, middle, high = np.quantile(seconds[0] / seconds[1], [0.25, 0.5, 0.75])
    off = max(abs(one / other - 1) for one, other in zip(naive.losses, cached.losses, strict=True))
    text = f"{depth:>5} {texts[0]:>24} {texts[1]:>24} {middle:8.2f} ({low:.2f}-{high:.2f})"
    if size := store.size():
        kept = f"{store.seconds:8.1f} s {size / 1e6:8.1f} MB {size / recordings * LARGE / 1e9:8.2f} GB"
    else:
        kept = f"{'nothing is kept':>34}"
    return f"{text:<79} {kept} {off:13.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="prepared data; default the demo's ocean, made anew")
    parser.add_argument("--weights", default="none", help="imagenet, or a weights file; default none")
    parser.add_argument("--depths", type=int, nargs="+", default=[0, 3, 6, 8, 9], help="freeze depths")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of each training, the first one uncounted")
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("--epochs must be 2 or more")
    if arguments.data is not None and not (arguments.data / "dataset.json").exists():
        parser.error(f"--data {arguments.data}: not a folder that `watkins prepare` has finished")
    with tempfile.TemporaryDirectory(prefix="watkins-frozen-") as name:
        root, folder = Path(name), arguments.data
        if folder is None:
            generate_ocean(root / "ocean")
            folder = root / "data"
            prepare(root / "ocean", folder, PrepareOptions())
        data = read_prepared(folder)
        splits = [load_side(data, side) for side in ("train", "val")]
        recordings = sum(map(len, splits))
        fixed = [f"data.dir={folder}", f"model.weights={arguments.weights}", "augment.time_roll=false",
                 f"train.epochs={arguments.epochs}", f"train.early_stopping_patience={arguments.epochs}"]  # fmt: skip
        counted = f"median (quartiles) of {arguments.epochs - 1} epochs"
        print(f"{recordings} recordings, {torch.get_num_threads()} threads; {counted}")
        print(f"{'depth':>5} {'naive, s':>24} {'cached, s':>24} {'naive / cached':>22}"
              f"{'first pass':>12} {'on disk':>11} {f'of {LARGE}':>11} {'loss differs':>13}", flush=True)  # fmt: skip
        for depth in arguments.depths:
            config = load_config(RECIPE, [*fixed, f"model.freeze_depth={depth}"])
            err.print(f"Freeze depth {depth}")
            print(row(depth, *measure(config, data, splits, root / str(depth)), recordings), flush=True)


if __name__ == "__main__":
    main()
