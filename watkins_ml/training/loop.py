"""The epoch loop: step, validate, schedule, checkpoint, stop early."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from rich.progress import TaskID
from torch import nn

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.console import err, progress
from watkins_ml.core.device import make_deterministic
from watkins_ml.core.metric_names import TRAIN_LOSS, VAL_ACCURACY, VAL_CALIBRATED_LOSS, VAL_LOSS, VAL_MACRO_F1
from watkins_ml.core.wording import plural
from watkins_ml.dataset.loading import Side
from watkins_ml.training.checkpoints import Checkpoint, save_checkpoint, save_last
from watkins_ml.training.compose import compose
from watkins_ml.training.features import FeatureCache
from watkins_ml.training.monitor import TITLES, is_tie
from watkins_ml.training.trainer import Score, Trainer


class Recorder(Protocol):
    """What records the history; the loop calls it once an epoch."""

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
    features: FeatureCache | None = None,
) -> nn.Module:
    """Train to the last epoch, or until none is better (`train.monitor`) for long enough; returns the best network.

    Args:
        species: number of classes.
        start: the checkpoint to resume from; history and weights end as those of a training never interrupted, bit
            for bit on the same machine's CPU.
        features: caches the outputs of frozen stages for all trainings, where that pays (they differ in the last bits
            from those of a whole network, which depend on the size of the batch).

    Several processes (see `core.distributed`) train one network: rank 0 has `build`'s weights, `start` and `recorder`.

    Raises:
        UserError: the loss is not a number any more.
    """
    make_deterministic(config.train.seed, config.train.compile)
    trainer, train, val = compose(config, build, train, val, species, start, features)
    if recorder is not None and trainer.best is not None:  # a kill may have come before it was written, or torn it
        save_checkpoint(recorder.checkpoints / "best.pt", trainer.best)
    for metrics, timing in _epochs(trainer, train, val, score):
        last = trainer.checkpoint({"metrics": metrics, "timing": timing})
        if recorder is not None:
            save_last(recorder.checkpoints, last)
            if trainer.best is not None and trainer.progress.stale_epochs == 0:
                save_checkpoint(recorder.checkpoints / "best.pt", trainer.best)
            recorder.epoch(metrics, timing)
    assert trainer.best is not None  # there is an epoch at least
    trainer.model.load_state_dict(trainer.best.tensors["model"])
    return trainer.model


def refit(
    config: ExperimentConfig,
    build: Callable[[], nn.Module],
    train: Side,
    val: Side,
    species: int,
    rates: list[float],
    checkpoint: Path | None,
    start: Checkpoint | None = None,
    features: FeatureCache | None = None,
) -> tuple[nn.Module, list[dict[str, float]]]:
    """Train on both sides together, an epoch at each of the learning rates; the network and a row an epoch.

    Args:
        checkpoint: where each epoch's state is written, to resume from as `start`; None for none.

    The other arguments, several processes and errors as those of `fit`.
    """
    make_deterministic(config.train.seed, config.train.compile)
    trainer, both, _ = compose(config, build, train, val, species, start, features, together=True)
    rows: list[dict[str, float]] = [] if trainer.best is None else list(trainer.best.facts["rows"])
    with progress() as bar:
        task = bar.add_task("", total=len(rates) * -(-len(both) // config.data.batch_size), note="")
        for epoch, rate in list(enumerate(rates, start=1))[len(rows) :]:
            bar.update(task, description=f"Refit {epoch}/{len(rates)}")
            trainer.learning_rate = rate
            measured = trainer.train_epoch(both, lambda note: bar.update(task, advance=1, note=note))
            rows = [*rows, {"epoch": epoch, "learning_rate": rate} | trainer.group.broadcast(measured)]
            trainer.progress.count(is_best=True)  # no validation is left to say otherwise
            state = trainer.checkpoint({"rows": rows, "rates": rates})
            if checkpoint is not None:
                save_checkpoint(checkpoint, state)
    assert trainer.best is not None  # there is an epoch at least
    trainer.model.load_state_dict(trainer.best.tensors["model"])
    return trainer.model, rows


def _epochs(trainer: Trainer, train: Side, val: Side, score: Score) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield metrics and timing, epoch after epoch."""
    limits = trainer.config.train
    steps = -(-len(train) // trainer.config.data.batch_size)
    with progress() as bar:
        task = bar.add_task("", total=limits.epochs * steps, note="")
        while trainer.progress.epoch < limits.epochs and trainer.progress.stale_epochs < limits.early_stopping_patience:
            epoch = trainer.progress.epoch + 1
            bar.update(task, description=f"Epoch {epoch}/{limits.epochs}", completed=(epoch - 1) * steps)

            def on_step(note: str, task: TaskID = task) -> None:
                bar.update(task, advance=1, note=note)

            started = time.perf_counter()
            rate = trainer.learning_rate
            metrics = {"epoch": epoch, **trainer.train_epoch(train, on_step)}
            trained = time.perf_counter() - started
            metrics |= trainer.validate(val, score) | {"learning_rate": rate}
            metrics = trainer.group.broadcast(metrics)  # all processes decide on the same numbers
            before = trainer.best and trainer.best.facts["metrics"]
            is_best = trainer.finish_epoch(metrics)
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
    standing = "best so far" if best is None or is_best else f"best: epoch {best['epoch']}"
    if best is None or not is_tie(metrics, best, monitor):
        return standing
    loss = f"{'lower' if is_best else 'higher'} calibrated loss {metrics[VAL_CALIBRATED_LOSS]:.4f}"
    return f"{standing} (equal macro F1, {loss})"


def _ending(trainer: Trainer) -> str:
    """Why training ends, and which network is kept."""
    limits, stale = trainer.config.train, trainer.progress.stale_epochs
    assert trainer.best is not None
    title, best = TITLES[limits.monitor], trainer.best.facts["metrics"]
    stopped = f"Stopped early: no better {title} for {plural(stale, 'epoch')}. "
    kept = f"Kept: epoch {best['epoch']}, {title} {best[limits.monitor]:.4f}"
    if limits.monitor != VAL_LOSS:
        kept += f" (of equals the lowest calibrated loss, {best[VAL_CALIBRATED_LOSS]:.4f})"
    return (stopped if trainer.progress.epoch < limits.epochs else "") + kept
