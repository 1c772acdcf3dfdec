"""Speed of the training loop: both models, beside a bare PyTorch loop over tensors that are in memory already.

`watkins train`'s own loop and a bare one (shuffle, forward, loss, backward, AdamW; nothing counted, nothing shown)
take turns in one process, an epoch each, on random spectrograms of 128 × 400, so that a busy machine slows both; the
first epoch of each is left out. Printed: training clips per second of both, the ratio of paired epochs (1 is the bare
loop), a whole epoch of ours with validation and checkpoint, the peak memory of the process, each row's its own, and two
floors of an epoch: its multiplications at the rate of a large matrix product, and what its layers read and write, each
by itself, at the rate of a copy; both rates measured on the device (fused layers and caches can be below the second).

`--clips 1000 4000 15000` shows how an epoch grows; `--streamed` reads the spectrograms from files, as where the memory
cannot take them; `--alone` leaves out the bare loop, and the memory is that of a training; `--give-back` lets freed
memory go back to the system, as other programs do; `--one-by-one` lets Python start the kernels of every step on a GPU,
instead of replaying them; `-o` changes the recipe, as for `watkins train`.

Example: python benchmarks/training_speed.py --models baseline --clips 512 --epochs 5 -o train.amp=bf16
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from bench import beside
from predict_speed import peak_mib
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from watkins_ml.audio.frontend import FrontendSettings
from watkins_ml.config import ExperimentConfig, load_config
from watkins_ml.core.device import autocast, choose_device, choose_precision
from watkins_ml.core.errors import UserError
from watkins_ml.core.memory import keep_freed_memory
from watkins_ml.dataset.layout import DataFolder, PreparedData
from watkins_ml.dataset.loading import Side, open_side
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.training import cuda_graph
from watkins_ml.training.loop import fit

HERE = Path(__file__).resolve().parents[1] / "experiments"
RECIPES = {"baseline": HERE / "baseline.yaml", "efficientnet": HERE / "efficientnet.yaml"}
SHAPE = (1, 128, 400)
SPECIES = 44


class Bare:
    """What one writes who wants only speed: all tensors on the device, nothing read back before the epoch ends."""

    def __init__(self, config: ExperimentConfig, train: Side):
        self.device = choose_device(config.train.device)
        self.precision = choose_precision(config.train.amp, self.device)
        self.batch = config.data.batch_size
        self.model = build_model(config.model, SPECIES).to(self.device, memory_format=torch.channels_last)
        trainable = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=config.optim.lr, weight_decay=config.optim.weight_decay)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision is torch.float16)
        self.spectrograms = train.spectrograms.to(self.device)
        self.labels = train.labels.to(self.device)

    def epoch(self) -> float:
        """Seconds of a pass."""
        self.model.train()
        with as_fast_as_possible():
            started = now(self.device)
            for chosen in torch.randperm(len(self.labels), device=self.device).split(self.batch):
                self.step(chosen)
            return now(self.device) - started

    def step(self, chosen: torch.Tensor) -> None:
        with autocast(self.device, self.precision):
            logits = self.model(self.spectrograms[chosen])
        loss = F.cross_entropy(logits.float(), self.labels[chosen])
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


@contextmanager
def as_fast_as_possible():
    """Without what makes a training repeatable."""
    repeatable, random = torch.are_deterministic_algorithms_enabled(), torch.get_rng_state()
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    yield
    torch.use_deterministic_algorithms(repeatable, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.set_rng_state(random)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


@dataclass
class Turns:
    """The loop's recorder: after each epoch of ours one of the bare loop."""

    checkpoints: Path
    bare: Bare | None
    floors: tuple[float, float] | None = None
    """Seconds of an epoch; see `floors`."""
    ours: list[float] = field(default_factory=list)
    """Training clips per second, epoch by epoch."""
    theirs: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    """Seconds from epoch to epoch of ours, with validation, checkpoint and all else."""
    begun: float = 0.0

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self.whole.append(time.perf_counter() - self.begun)
        self.ours.append(timing["samples_per_second"])
        if self.bare is not None:
            self.theirs.append(len(self.bare.labels) / self.bare.epoch())
        self.begun = time.perf_counter()


class Traffic(TorchDispatchMode):
    """Counts the bytes that every operation reads and writes."""

    bytes = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        if not function.is_view:
            tensors = filter(torch.is_tensor, tree_leaves((arguments, keywords, result)))
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        return result


def floors(bare: Bare) -> tuple[float, float]:
    """Seconds that an epoch needs at least for its multiplications, and for its memory."""
    size = 8192 if bare.device.type == "cuda" else 1024
    left = torch.randn(size, size, device=bare.device, dtype=bare.precision or torch.float32)
    large = torch.empty(2, 1 << 26, device=bare.device)
    product, copy = (best(work, bare.device) for work in (lambda: left @ left, lambda: large[0].copy_(large[1])))
    rows = torch.arange(bare.batch, device=bare.device)
    with FlopCounterMode(display=False) as work, autocast(bare.device, bare.precision):
        bare.model(bare.spectrograms[rows])
    with Traffic() as traffic:
        bare.step(rows)
    steps = len(bare.labels) / bare.batch
    multiplied = 3 * work.get_total_flops()  # back through a layer are two more products; counted by torch, too many
    return steps * multiplied * product / (2 * size**3), steps * traffic.bytes * copy / large.nbytes


def best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, the least of several times."""
    seconds = []
    for _ in range(8):
        started = now(device)
        work()
        seconds.append(now(device) - started)
    return min(seconds)


def random_split(clips: int, seed: int) -> Side:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(clips) % SPECIES
    return Side(pd.DataFrame({"label": labels.numpy()}), torch.randn(clips, *SHAPE, generator=generator), labels)


def on_disk(split: Side, folder: Path) -> Side:
    """The same, read from files as where the memory cannot take it."""
    folder.mkdir()
    names = [f"{row}.pt" for row in range(len(split))]
    for name, spectrogram in zip(names, split.spectrograms, strict=True):
        torch.save(spectrogram.clone(), folder / name)
    frame = split.frame.assign(spectrogram=names)
    data = PreparedData(DataFolder(folder), {"frontend": FrontendSettings().model_dump()}, [], {"train": frame})
    return open_side(data, "train")


def measure(config: ExperimentConfig, clips: int, streamed: bool, alone: bool) -> Turns:
    train, val = random_split(clips, 0), random_split(max(SPECIES, clips // 10), 1)
    classes = [f"species {number}" for number in range(SPECIES)]
    with tempfile.TemporaryDirectory() as folder:
        bare = None if alone else Bare(config, train)
        if streamed:
            train, val = (on_disk(split, Path(folder) / name) for name, split in (("train", train), ("val", val)))
        turns = Turns(Path(folder), bare, floors(bare) if bare else None, begun=time.perf_counter())
        build = partial[nn.Module](build_model, config.model, SPECIES)
        fit(config, build, train, val, SPECIES, partial(score_epoch, classes=classes), turns)
    return turns


def row(name: str, config: ExperimentConfig, clips: int, options: argparse.Namespace) -> str:
    if not options.give_back:
        keep_freed_memory()  # as the command does; the bare loop gains by it too
    if options.one_by_one:
        cuda_graph.WARM_UP = sys.maxsize
    turns = measure(config, clips, options.streamed, options.alone)
    ours, bare, whole = (np.array(each[1:]) for each in (turns.ours, turns.theirs, turns.whole))
    text = f"{name:<14}{clips:>8,}{np.median(ours):>12.1f}"
    if options.alone:
        text += f"{'–':>12}{'–':>24}"
    else:
        ratios = ours / bare
        beside(f"training loop, {name}, {clips:,} clips", "a bare PyTorch loop", ratios, peak_mib())
        text += f"{np.median(bare):>12.1f}{np.median(ratios):>10.3f} ({ratios.min():.3f}–{ratios.max():.3f})"
    text += f"{np.median(whole):>13.2f}{peak_mib():>12,.0f}"
    return text + "".join(f"{seconds:>14.2f}" for seconds in turns.floors or ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--clips", type=int, nargs="+", help="training clips; default 256, on a GPU 10784")
    parser.add_argument("--epochs", type=int, default=6, help="of each loop, the first one uncounted")
    parser.add_argument("--streamed", action="store_true", help="read spectrograms from the disk, batch by batch")
    parser.add_argument("--alone", action="store_true", help="without the bare loop")
    parser.add_argument("--give-back", action="store_true", help="let freed memory go back to the system")
    parser.add_argument("--one-by-one", action="store_true", help="replay no steps on a GPU")
    parser.add_argument("-o", "--override", action="append", default=[], help="key.path=value of the recipe")
    options = parser.parse_args()
    if options.epochs < 2 or min(options.clips or [32]) < 32:
        parser.error("--epochs must be 2 or more, --clips 32 or more")
    fixed = ["model.weights=none", "model.freeze_depth=0"]
    changes = [*options.override, f"train.epochs={options.epochs}", f"train.early_stopping_patience={options.epochs}"]
    try:
        recipes = {
            name: load_config(RECIPES[name], [*(fixed if name == "efficientnet" else []), *changes])
            for name in options.models
        }
        device = choose_device(next(iter(recipes.values())).train.device)
    except UserError as error:
        parser.error(str(error))
    card = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    print(f"{device.type}, {card}; torch {torch.__version__}; {os.cpu_count()} cores; {options.epochs - 1} epochs each")
    print(f"{'model':<14}{'clips':>8}{'clips/s':>12}{'bare':>12}{'ratio (range)':>24}{'epoch, s':>13}{'peak MiB':>12}"
          f"{'products, s':>14}{'memory, s':>14}")  # fmt: skip
    for name, config in recipes.items():
        for clips in options.clips or [10_784 if device.type == "cuda" else 256]:
            with ProcessPoolExecutor(1, get_context("spawn")) as process:  # for a memory of its own
                done = process.submit(row, name, config, clips, options)
                print(done.result(), flush=True)


if __name__ == "__main__":
    main()
