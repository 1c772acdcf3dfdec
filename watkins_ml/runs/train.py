"""One tracked run from configuration to registered model; what `watkins train` does."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from torch import nn

from watkins_ml.config import ExperimentConfig, validate
from watkins_ml.core.console import err
from watkins_ml.core.device import choose_device, choose_precision
from watkins_ml.core.distributed import current
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.locks import reading
from watkins_ml.core.metric_names import (
    BEST_VAL_CONTROL_MACRO_F1,
    renamed,
)
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import load_sides, open_side
from watkins_ml.dataset.split import assert_no_tape_crosses, leak_stamp
from watkins_ml.dataset.targets import LABELS
from watkins_ml.models.registry import build_model, try_model
from watkins_ml.runs.lifecycle import interruptible, run_lifecycle, shortages
from watkins_ml.runs.network_input import Inputs, with_input
from watkins_ml.runs.refit import CHECKPOINT, refit_network
from watkins_ml.runs.reports import report_test, report_validation, side_logits
from watkins_ml.runs.save_model import save_model
from watkins_ml.tracking.records import TRAIN, Launch
from watkins_ml.tracking.run_files import check_confined
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import check_address
from watkins_ml.tracking.uploader import Uploader
from watkins_ml.training.checkpoints import Checkpoint, drop_previous, latest_checkpoint
from watkins_ml.training.features import FeatureCache
from watkins_ml.training.loop import Recorder, fit
from watkins_ml.transforms.transform import of_windows


@dataclass(frozen=True)
class RunResult:
    """Where a run's record is and what it scored."""

    run_dir: Path
    metrics: dict[str, float]


def run_experiment(config: ExperimentConfig, run_dir: Path | None = None, launch: Launch | None = None) -> RunResult:
    """Train, evaluate, track and register one model.

    Raises:
        UserError: bad data, weights or device (before anything is written), or a full disk.
    """
    check_address()
    current().broadcast(config.model_dump())
    inputs = read_inputs(config)
    try_model(config.model, len(inputs.data.classes), inputs.data.input.shape, inputs.data.task)
    run = RunDirectory.create(run_dir, config, inputs.data, launch=launch)
    with run.training(), reading(inputs.data.folder.root, f"watkins train ({run.root})"):
        return RunResult(run.root, train_and_report(config, inputs, run, None))


def resume_experiment(run_dir: Path, config: ExperimentConfig) -> RunResult:
    """Go on with a run that was interrupted; a finished one is only sent where it has not arrived.

    Raises:
        UsageError: `config` is not what the run began with.
        UserError: other data, a run that is still training, or whatever `run_experiment` raises.
    """
    run = RunDirectory(run_dir)
    check_confined(run.root)
    if (command := run.facts.command) != TRAIN:
        raise UsageError(f"--resume {run_dir}: belongs to a `{command}`, which goes on with it")
    run.assert_same(config)
    check_address()
    with run.training(), reading(Path(config.data.dir), f"watkins train ({run.root})"):
        if run.facts.status == "FINISHED":
            run.close_if_dead()
            with Uploader(run):
                err.print(f"{run.root}: this run has finished")
            current().broadcast(None)
            return RunResult(run.root, run.read_metrics())
        current().broadcast(config.model_dump())
        inputs = read_inputs(config)
        if inputs.data.digest != run.facts.data_digest:
            raise UserError(
                f"{config.data.dir}: prepared anew since {run.root} began (data digest {inputs.data.digest}, then "
                f"{run.facts.data_digest}); start a new run"
            )
        start = latest_checkpoint(run.checkpoints)
        run.resume(config, inputs.data, None if start is None else start.facts)
        err.print(f"Resuming {run.root} after epoch {start.facts['epoch'] if start else 0}")
        for change in run.changed_environment(config, inputs.data):
            err.print(f"{change}: the history may end otherwise in its last digits", style="yellow")
        return RunResult(run.root, train_and_report(config, inputs, run, start))


def help_training() -> None:
    """What every process but the first does in a training: its part of the work, without a record.

    Raises:
        UserError: other data than the first process has, or whatever ends a training.
    """
    group = current()
    settings = group.broadcast()
    if settings is None:  # the run to be resumed had finished
        return
    config = validate(settings, "the configuration of the first process")
    inputs = read_inputs(config)
    with interruptible(group.broadcast()), reading(inputs.data.folder.root, "watkins train"):
        network = train(config, inputs, None, None)
        side_logits(network, inputs.data, inputs.val)
        if config.train.refit:
            network = refit_network(config, *inputs, None)
        side_logits(network, inputs.data, open_side(inputs.data, "test"))


def read_inputs(config: ExperimentConfig, data: PreparedData | None = None) -> Inputs:
    """What a training needs, from `config.data.dir` or of other sides of it; the same in all of its processes."""
    group = current()
    if config.data.batch_size < group.world_size:
        raise UsageError(
            f"data.batch_size {config.data.batch_size}: too small for {group.world_size} processes to share"
        )
    choose_precision(config.train.amp, choose_device(config.train.device))
    data = data or read_prepared(Path(config.data.dir))
    data = with_input(config, data)
    if data.protocol == "tape":
        everything = pd.concat([frame.assign(side=side) for side, frame in data.sides.items()], ignore_index=True)
        assert_no_tape_crosses(everything["tape"], everything["side"])
    if (digest := group.broadcast(data.digest)) != data.digest:
        raise UserError(
            f"{config.data.dir}: not the data on {socket.gethostname()} that the first process has (data digest "
            f"{data.digest}, not {digest}); copy that folder"
        )
    drawn = ("train", "val")[: 1 + config.train.refit] if of_windows(config.augment) else ()
    inputs = Inputs(data, *load_sides(data, ("train", "val"), config.data.memory_gb, drawn))
    group.barrier()  # before anything is written, all can read
    return inputs


def train_and_report(
    config: ExperimentConfig,
    inputs: Inputs,
    run: RunDirectory,
    start: Checkpoint | None,
    how_to_continue: str | None = None,
) -> dict[str, float]:
    """One whole run from here on, sent while it goes on; the final metrics.

    `how_to_continue` tells how to continue it if it is interrupted (default: the command that resumes this run).
    """
    group = current()
    how_to_continue = how_to_continue or f"continue with: {group.command} train --resume {run.root}"
    group.broadcast(how_to_continue)
    if group.world_size > 1:
        err.print(f"{group.world_size} processes; if one of them dies, {how_to_continue}")
    uploader = Uploader(run, config.tracking.system_metrics or run.facts.launch.system_metrics)
    for sentence in leak_stamp(inputs.data.protocol).values():
        err.print(sentence, style="yellow")
    with disk_errors(f"cannot write to {run.root}", f"make room and {how_to_continue}"), uploader:
        with run_lifecycle(run, how_to_continue), shortages(how_to_continue):
            return _train_and_report(config, inputs, run, start)


def _train_and_report(
    config: ExperimentConfig, inputs: Inputs, run: RunDirectory, start: Checkpoint | None
) -> dict[str, float]:
    network = unseen = train(config, inputs, run, start)
    err.print("Evaluating on validation and test")
    metrics = report_validation(network, inputs, run, config.train.monitor, config.train.refit)
    if config.train.refit:
        network = refit_network(config, *inputs, run)
    metrics |= report_test(network, inputs.data, run, metrics, (inputs.train, inputs.val), config.train.refit)
    save_model(network, config, inputs.data, run, metrics, unseen)
    record_result(run, config.tracking.register_as, metrics)
    drop_previous(run.checkpoints)
    (run.checkpoints / CHECKPOINT).unlink(missing_ok=True)
    return metrics


def train(
    config: ExperimentConfig,
    inputs: Inputs,
    run: RunDirectory | None,
    start: Checkpoint | None,
    recorder: Recorder | None = None,
) -> nn.Module:
    """The network of the best epoch; `recorder` (default: the run itself, if there is one) hears of each."""
    from watkins_ml.evaluation.labels import score_labels_epoch
    from watkins_ml.evaluation.metrics import score_epoch

    data, train, val = inputs
    score = score_labels_epoch if data.task == LABELS else score_epoch
    return fit(
        config,
        partial(build_model, config.model, len(data.classes), pretrained=start is None and current().is_first),
        train,
        val,
        len(data.classes),
        partial(score, classes=data.classes),
        recorder or run,
        start,
        FeatureCache(data.folder.root / "features", data.digest, config.data.feature_cache_gb),
    )


def record_result(run: RunDirectory, register_as: str | None, metrics: dict[str, float]) -> None:
    """Enter the final metrics and the model in the journal; the model is registered under a name, or only logged."""
    values = {key: value for key, value in metrics.items() if value == value}
    run.record_once("metrics", step=0, values=values)  # MLflow draws what has only step 0 as a bar a run
    facts = run.facts
    tags = {key: str(value) for key, value in renamed(facts.model or {}).items()}
    tags |= {key: str(metrics[key]) for key in (BEST_VAL_CONTROL_MACRO_F1,) if key in metrics}
    tags |= leak_stamp(facts.split_protocol or "")
    run.record_once("model", register_as=register_as, tags=tags)
