"""The epoch loop: step, validate, schedule, checkpoint, stop early."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.console import err, progress
from watkins_ml.core.device import choose_device, make_repeatable
from watkins_ml.core.metric_names import TRAIN_LOSS, VAL_ACCURACY, VAL_CALIBRATED_LOSS, VAL_LOSS, VAL_MACRO_F1
from watkins_ml.core.wording import plural
from watkins_ml.dataset.loading import Side
from watkins_ml.training.checkpoints import Checkpoint, save_checkpoint, save_last, told_checkpoint
from watkins_ml.training.features import FeatureStore
from watkins_ml.training.monitor import TITLES, is_tie
from watkins_ml.training.trainer import Score, Trainer, balanced_weights
from watkins_ml.training.whole_batch import join


class Recorder(Protocol):
    """Whoever keeps the history; the loop calls it once an epoch."""

    checkpoints: Path

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None: ...


def fit(
    config: ExperimentConfig,
    build: Callable[[], nn.Module],
    train: Side,
    val: Side,
    species: int,
    score: Score,
    recorder: Recorder | None,
    start: Checkpoint | None = None,
    features: FeatureStore | None = None,
) -> nn.Module:
    """Train to the last epoch, or until none is better (`train.monitor`) for long enough; returns the best network.

    With `start`, go on from there: history and weights end as those of a training never interrupted, bit for bit
    on the same machine's CPU. With `features`, the outputs of frozen stages are computed once for all trainings where
    that pays (they differ in the last bits from those of a whole network, which depend on the size of the batch).

    Several processes (see `processes`) train one network: the first has `build`'s weights, `start` and the recorder.

    Raises:
        UserError: the loss is not a number any more.
    """
    make_repeatable(config.train.seed, config.train.compile)
    alike = config.train.class_weights == "none"
    weights = torch.ones(species) if alike else balanced_weights(train.labels, species)
    trainer = Trainer(config, build(), weights, choose_device(config.train.device))
    trainer.model.load_state_dict(trainer.group.told_tensors(trainer.model.state_dict()))
    if (start := told_checkpoint(start, trainer.group)) is not None:
        trainer.restore(start)
        if recorder is not None:  # a kill may have come before it, or torn it
            save_checkpoint(recorder.checkpoints / "best.pt", trainer.best)
    if features is not None and not config.augment.is_on:  # what is changed is another input in every epoch
        train, val, trainer.forward = features.shorten(trainer.model, train, val, trainer.device, trainer.precision)
    train, val = train.near(trainer.device), val.near(trainer.device)
    trainer.learn = join(trainer.model, trainer.forward, trainer.group)
    if config.train.compile:
        trainer.learn = torch.compile(trainer.learn, dynamic=False)  # for whole batches, and the smaller last one
    for metrics, timing in _epochs(trainer, train, val, score):
        last = trainer.checkpoint({"metrics": metrics, "timing": timing})
        if recorder is not None:
            save_last(recorder.checkpoints, last)
            if trainer.progress.stale_epochs == 0:
                save_checkpoint(recorder.checkpoints / "best.pt", trainer.best)
            recorder.epoch(metrics, timing)
    trainer.model.load_state_dict(trainer.best.tensors["model"])
    return trainer.model


def _epochs(trainer: Trainer, train: Side, val: Side, score: Score):
    """Yield metrics and timing, epoch after epoch."""
    limits = trainer.config.train
    steps = -(-len(train) // trainer.config.data.batch_size)
    with progress() as bar:
        task = bar.add_task("", total=limits.epochs * steps, note="")
        while trainer.progress.epoch < limits.epochs and trainer.progress.stale_epochs < limits.early_stopping_patience:
            epoch = trainer.progress.epoch + 1
            bar.update(task, description=f"Epoch {epoch}/{limits.epochs}", completed=(epoch - 1) * steps)

            def on_step(note: str, task=task) -> None:
                bar.update(task, advance=1, note=note)

            started = time.perf_counter()
            rate = trainer.optimizer.param_groups[0]["lr"]
            metrics = {"epoch": epoch, **trainer.train_epoch(train, on_step)}
            trained = time.perf_counter() - started
            metrics |= trainer.validate(val, score) | {"learning_rate": rate}
            metrics = trainer.group.told(metrics)  # one judgement decides what all do next
            before = trainer.best and trainer.best.facts["metrics"]
            is_best = trainer.judge(metrics)
            seconds = time.perf_counter() - started
            timing = {"epoch": epoch, "epoch_seconds": seconds, "samples_per_second": len(train) / trained}
            err.print(_line(metrics, limits.epochs, seconds) + _standing(metrics, before, is_best, limits.monitor))
            yield metrics, timing
        err.print(_ending(trainer))


def _line(metrics: dict[str, float], epochs: int, seconds: float) -> str:
    return (
        f"epoch {metrics['epoch']:>3}/{epochs}  train loss {metrics[TRAIN_LOSS]:.4f}"
        f"  val loss {metrics[VAL_LOSS]:.4f}  val accuracy {metrics[VAL_ACCURACY]:.3f}"
        f"  val macro F1 {metrics[VAL_MACRO_F1]:.3f}  {seconds:.1f} s  "
    )


def _standing(metrics: dict[str, float], best: dict[str, float] | None, is_best: bool, monitor: str) -> str:
    """Whether an epoch is better than the best one before it, and by what where that is not plain."""
    told = "best so far" if best is None or is_best else f"best: epoch {best['epoch']}"
    if best is None or not is_tie(metrics, best, monitor):
        return told
    loss = f"{'lower' if is_best else 'higher'} calibrated loss {metrics[VAL_CALIBRATED_LOSS]:.4f}"
    return f"{told} (equal macro F1, {loss})"


def _ending(trainer: Trainer) -> str:
    """Why training ends, and which network is kept."""
    limits, stale = trainer.config.train, trainer.progress.stale_epochs
    title, best = TITLES[limits.monitor], trainer.best.facts["metrics"]
    stopped = f"Stopped early: no better {title} for {plural(stale, 'epoch')}. "
    kept = f"Kept: epoch {best['epoch']}, {title} {best[limits.monitor]:.4f}"
    if limits.monitor != VAL_LOSS:
        kept += f" (of equals the lowest calibrated loss, {best[VAL_CALIBRATED_LOSS]:.4f})"
    return (stopped if trainer.progress.epoch < limits.epochs else "") + kept
