"""Small trainings without recordings: classes that differ by band, recipes, and a run directory whose power goes."""

from __future__ import annotations

import pandas as pd
import torch

from watkins_ml.dataset.loading import Side, Windows
from watkins_ml.tracking.rundir import RunDirectory

CLASSES = ["low", "middle", "high"]


def bands(count: int = 24, seed: int = 0) -> Side:
    """Noise spectrograms (count, 1, 32, 24) in which each class is louder in a band of its own; every fourth recording
    has three windows."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    spectrograms = torch.randn(count, 1, 32, 24, generator=generator)
    for row, label in enumerate(labels.tolist()):
        spectrograms[row, 0, 10 * label : 10 * label + 10] += 3
    tapes = [f"{label}-{row % 5}" for row, label in enumerate(labels.tolist())]
    counts = torch.where(torch.arange(count) % 4 == 1, 3, 1)
    windows = spectrograms[counts > 1].repeat_interleave(3, 0)
    windows = windows + torch.randn(windows.shape, generator=generator)
    return Side(pd.DataFrame({"label": labels, "tape": tapes}), spectrograms, labels, Windows(counts, windows))


def contradicted(split: Side) -> Side:
    """The same sounds under other names: the better a network learns the one, the worse it does here."""
    return Side(split.frame, split.spectrograms, (split.labels + 1) % 3)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


class CutOff(RunDirectory):
    """A run directory whose power goes when an epoch is to be recorded."""

    def __init__(self, root, epoch: int):
        super().__init__(root)
        self.last_epoch = epoch

    def epoch(self, metrics, timing) -> None:
        if metrics["epoch"] > self.last_epoch:
            raise KeyboardInterrupt
        super().epoch(metrics, timing)


RECIPES = {
    "baseline": {},
    "weighted-less-and-still": {"overrides": ["train.class_weights=none", "augment.time_roll=false"]},
    "masked-mixed-smoothed-and-sampled": {
        "overrides": [
            "augment.freq_mask=8",
            "augment.time_mask=6",
            "augment.mixup=0.4",
            "train.label_smoothing=0.1",
            "train.class_weights=sampled",
        ]
    },
    "averaged-by-tape-along-a-cosine": {
        "overrides": [
            "train.ema_decay=0.8",
            "train.class_weights=tapes",
            "train.monitor=val_calibrated_loss",
            "optim.schedule=cosine",
            "optim.warmup_epochs=1",
            "optim.clip_norm=0.5",
            "optim.layer_decay=0.7",
            "augment=[{name: filter_augment}, {name: background}, {name: bandwidth}, {name: freq_mixstyle}]",
        ]
    },
    "other-windows-speeds-and-seas": {
        "overrides": [
            "augment=[{name: random_excerpt}, {name: speed}, {name: ocean_noise, highest_snr: 60}]",
            "train.class_weights=sampled",
        ]
    },
    "by-validation-loss": {
        "overrides": ["train.monitor=val_loss", "optim.plateau_patience=0", "optim.lr=0.004"],
        "val": contradicted(bands(12, seed=1)),
    },
    "bf16": {"overrides": ["train.amp=bf16"]},
    "plateau": {"overrides": ["optim.plateau_patience=0", "optim.lr=0.004"], "val": contradicted(bands(12, seed=1))},
    "efficientnet": {"model": "efficientnet", "overrides": ["model.freeze_depth=2"]},
}
