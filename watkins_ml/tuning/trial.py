"""One trial as one tracked run: everything that `watkins train` leaves, but nothing read of the test split."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.errors import SurroundingsError, UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.metric_names import BEST_VAL_MACRO_F1, VAL_MACRO_F1
from watkins_ml.runs.lifecycle import run_lifecycle, shortages
from watkins_ml.runs.save_model import save_model
from watkins_ml.runs.train import Inputs, record_result, report_validation, train
from watkins_ml.tracking.records import TUNE
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.uploader import Uploader
from watkins_ml.training.checkpoints import Checkpoint, drop_previous, latest_checkpoint
from watkins_ml.tuning.study import TrialLostError


class PrunedError(Exception):
    """The trial has fallen behind the others."""

    def __init__(self, epoch: int):
        super().__init__(f"pruned at epoch {epoch}")
        self.epoch = epoch


class Watcher(Protocol):
    """Who hears of a trial's epochs; `report` may raise TrialLostError."""

    def report(self, epoch: int, value: float) -> None: ...

    def should_prune(self) -> bool: ...


class WatchedRun:
    """The recorder of a trial's training: the run directory first, then the study."""

    def __init__(self, run: RunDirectory, watcher: Watcher, epochs: int):
        self.run, self.watcher, self.epochs = run, watcher, epochs
        self.checkpoints = run.checkpoints

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self.run.epoch(metrics, timing)
        self.watcher.report(int(metrics["epoch"]), metrics[VAL_MACRO_F1])
        self.judge(int(metrics["epoch"]))

    def replay(self) -> None:
        """Report the epochs of the worker before, for this is another trial in the study's eyes."""
        rows = self.run.read_history().to_dict("records") if self.run.history.exists() else []
        for row in rows:
            self.watcher.report(int(row["epoch"]), row[VAL_MACRO_F1])
        if rows:  # that worker may have been killed before it could ask
            self.judge(int(rows[-1]["epoch"]))

    def judge(self, epoch: int) -> None:
        if epoch < self.epochs and self.watcher.should_prune():  # after the last one nothing is left to save
            raise PrunedError(epoch)


class TrialRunner:
    """Runs the trials of one worker: the data are loaded once, and a trial is sent while the next one trains."""

    def __init__(self, folder: Path, study: dict[str, str], inputs: Inputs):
        """`study` holds the uid and the name of the study."""
        self.folder, self.study, self.inputs = folder, study, inputs
        self._sending: Uploader | None = None

    def run(self, name: str, number: int, config: ExperimentConfig, watcher: Watcher) -> float:
        """Train, or go on from the last checkpoint of a worker that was killed; the trial's value.

        Raises:
            PrunedError: the trial was stopped for its bad prospects; its record is complete.
            TrialLostError: another worker has it now.
            RunInterruptedError: this worker was told to stop.
            SurroundingsError: it can go on once the disk, the memory, the device, the data or the database are back.
            UserError: the training failed.
        """
        run = self._open(name, number, config)
        watched = WatchedRun(run, watcher, config.train.epochs)
        if run.facts.status == "FINISHED":  # its worker was killed before it could say so
            watched.replay()
            return run.read_metrics()[BEST_VAL_MACRO_F1]
        with self._recording(run, config):
            start = latest_checkpoint(run.checkpoints)
            if run.entries()[-1].kind != "datasets":  # not just made
                run.resume(config, self.inputs.data, None if start is None else start.facts)
            return self._train(config, run, start, watched)

    def _open(self, name: str, number: int, config: ExperimentConfig) -> RunDirectory:
        run = RunDirectory(self.folder / name)
        if not run.facts_file.exists():
            shutil.rmtree(run.root, ignore_errors=True)  # its maker was killed in the first moment
            study = self.study | {"trial": number}
            return RunDirectory.create(run.root, config, self.inputs.data, TUNE, study=study)
        if (whole := run.facts.study) is None or whole.uid != self.study["uid"]:
            raise UserError(f"{run.root}: a run of another study; move it away")
        run.open_journal(config, self.inputs.data)  # a kill may have come before it; what comes first is sent first
        run.record_once("tags", values={"watkins.trial": str(number)})
        return run

    @contextmanager
    def _recording(self, run: RunDirectory, config: ExperimentConfig) -> Iterator[None]:
        again = "`watkins tune` goes on with it"
        stops = (PrunedError, TrialLostError, SurroundingsError, OSError)
        uploader = Uploader(run, config.tracking.system_metrics)
        # a `watkins sync` may be looking at it just now
        with run.training(wait=60), disk_errors(f"cannot write to {run.root}", "make room"):
            with self._in_background(uploader), run_lifecycle(run, again, stops), shortages():
                yield

    @contextmanager
    def _in_background(self, uploader: Uploader) -> Iterator[None]:
        """Send while the trial runs, and what is left of it while the next one does."""
        uploader.start()
        try:
            yield
        finally:
            uploader.close()
            self.wait_for_upload()
            self._sending = uploader

    def wait_for_upload(self) -> None:
        """Wait until the last trial has been sent, or cannot be."""
        if self._sending is not None:
            self._sending.join()
            self._sending = None

    def _train(
        self, config: ExperimentConfig, run: RunDirectory, start: Checkpoint | None, watched: WatchedRun
    ) -> float:
        try:
            watched.replay()
            network = train(config, self.inputs, run, start, watched)
        except PrunedError as pruned:
            run.record_once("tags", values={"watkins.state": "pruned", "pruned_at_epoch": str(pruned.epoch)})
            raise
        metrics = report_validation(network, self.inputs, run, config.train.monitor)
        save_model(network, config, self.inputs.data, run, metrics)
        record_result(run, None, metrics)
        drop_previous(run.checkpoints)
        return metrics[BEST_VAL_MACRO_F1]

    def answer(self, name: str, number: int, config: ExperimentConfig, twin: FrozenTrial) -> float:
        """Record a trial whose result is known from an earlier one at the same point; raises as that one did."""
        run = self._open(name, number, config)
        with self._recording(run, config):
            run.record_once("tags", values={"watkins.state": "duplicate", "duplicate_of": str(twin.number)})
            if twin.state is TrialState.PRUNED:
                raise PrunedError(twin.last_step or 0)
            run.record_once("metrics", step=0, values={BEST_VAL_MACRO_F1: twin.value})
        return twin.value

    def forget(self, name: str) -> None:
        """Drop the checkpoints of a trial that nobody goes on with."""
        shutil.rmtree(self.folder / name / "checkpoints", ignore_errors=True)

    def disown(self, name: str) -> None:
        """Close the record of a trial that another worker has brought to its end meanwhile."""
        run = RunDirectory(self.folder / name)
        run.record("tags", values={"watkins.state": "taken over by another worker"})
        run.finish("KILLED")
