"""Trainings in double precision, where rounding cannot hide a wrong gradient; alone or as one of several distributed.

Arguments: the file for the histories of the first process, and names of RECIPES. With DEVICE=cuda in the environment
all are on one GPU.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import distributed as dist

from tests.support import EXPERIMENTS
from tests.support.small import CLASSES, bands, contradicted
from watkins_ml.config import load_config
from watkins_ml.core import device, distributed
from watkins_ml.core.distributed import init_process_group
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.training.loop import fit

DEVICE = os.environ.get("DEVICE", "cpu")
PLAIN = ["data.batch_size=7", f"train.device={DEVICE}", "train.amp=none", "train.epochs=3", "data.dir=none"]
EFFICIENTNET = ["model.weights=none", "data.batch_size=8"]
RECIPES: dict[str, tuple[str, list[str]]] = {
    "baseline": ("baseline", []),
    "masked-mixed-smoothed-and-sampled": (
        "baseline",
        [
            "augment.freq_mask=8",
            "augment.time_mask=6",
            "augment.mixup=0.4",
            "train.label_smoothing=0.1",
            "train.class_weights=sampled",
        ],
    ),
    "averaged-clipped-and-by-tape": (
        "baseline",
        ["train.ema_decay=0.6", "optim.clip_norm=0.3", "optim.layer_decay=0.8", "train.class_weights=tapes"],
    ),
    "other-windows-speeds-and-seas": (
        "baseline",
        ["augment=[{name: random_excerpt}, {name: speed}, {name: ocean_noise}]", "train.class_weights=sampled"],
    ),
    "mixed-and-weighted": ("baseline", ["augment.mixup=0.4"]),
    "smoothed-and-weighted": ("baseline", ["train.label_smoothing=0.1"]),
    "stopped-early": ("baseline", ["train.epochs=30", "train.early_stopping_patience=2", "optim.lr=0.003"]),
    "efficientnet": ("efficientnet", [*EFFICIENTNET, "model.freeze_depth=0", "train.epochs=1"]),
    "frozen": ("efficientnet", [*EFFICIENTNET, "model.freeze_depth=6", "train.epochs=1"]),
    "head-only": ("efficientnet", [*EFFICIENTNET, "model.freeze_depth=9", "train.epochs=1"]),
}
RECORDINGS = 22
"""The last batch of seven has one recording: with three processes, two have none."""


class History:
    """A recorder of epochs."""

    def __init__(self, folder: Path):
        self.checkpoints, self.rows = folder, []

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self.rows.append(metrics)


def history(name: str, is_first: bool) -> list[dict[str, float]]:
    model, overrides = RECIPES[name]
    config = load_config(EXPERIMENTS / f"{model}.yaml", [*PLAIN, *overrides])
    train, val = bands(RECORDINGS), bands(11, seed=1)
    val = contradicted(val) if name == "stopped-early" else val
    with tempfile.TemporaryDirectory() as folder:
        record = History(Path(folder))
        build = partial(build_model, config.model, 3)
        fit(config, build, train, val, 3, partial(score_epoch, classes=CLASSES), record if is_first else None)
    return record.rows


def share_one_gpu(count: int) -> None:
    """Let processes be a group on a machine with one GPU: a single one, which meets NCCL, or several over gloo."""
    distributed._launched = lambda: True
    if count > 1:  # NCCL wants a GPU for each
        device._local_device = lambda *_: torch.device("cuda", 0)
        begin = dist.init_process_group
        dist.init_process_group = lambda backend, **settings: begin("gloo", **settings)


def main() -> None:
    torch.set_num_threads(1)
    if DEVICE == "cuda" and "WORLD_SIZE" in os.environ:
        share_one_gpu(int(os.environ["WORLD_SIZE"]))
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    with init_process_group() as group:
        found = {name: history(name, group.is_first) for name in sys.argv[2:]}
        if group.is_first:
            Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
