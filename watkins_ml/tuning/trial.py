"""One trial as one tracked run: everything that `watkins train` leaves, but nothing read of the test split."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from optuna.trial import FrozenTrial, TrialState

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.errors import ResourceError, UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.metric_names import BEST_VAL_MACRO_F1, VAL_MACRO_F1
from watkins_ml.models.registry import family
from watkins_ml.runs.lifecycle import run_lifecycle, shortages
from watkins_ml.runs.reports import report_validation
from watkins_ml.runs.save_model import save_model
from watkins_ml.runs.train import Inputs, read_inputs, record_result, train
from watkins_ml.tracking.records import TUNE
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.uploader import Uploader
from watkins_ml.training.checkpoints import Checkpoint, drop_previous, latest_checkpoint
from watkins_ml.tuning.study import TrialLostError
from watkins_ml.tuning.trials import value_of


class PrunedError(Exception):
    """The pruner stopped the trial."""

    def __init__(self, epoch: int):
        super().__init__(f"pruned at epoch {epoch}")
        self.epoch = epoch


class Reporter(Protocol):
    """Receives the epochs of a trial; `report` may raise TrialLostError."""

    def report(self, epoch: int, value: float) -> None: ...

    def should_prune(self) -> bool: ...


class TrialRecorder:
    """Records a trial's epochs in its run directory, then in the study."""

    def __init__(self, run: RunDirectory, reporter: Reporter, epochs: int):
        self.run, self.reporter, self.epochs = run, reporter, epochs
        self.checkpoints = run.checkpoints

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        self.run.epoch(metrics, timing)
        self.reporter.report(int(metrics["epoch"]), metrics[VAL_MACRO_F1])
        self.check_pruning(int(metrics["epoch"]))

    def report_history(self) -> None:
        """Report the epochs of an earlier worker, since in the study this is another trial."""
        rows = self.run.read_history().to_dict("records") if self.run.history.exists() else []
        for row in rows:
            self.reporter.report(int(row["epoch"]), row[VAL_MACRO_F1])
        if rows:  # the earlier worker may have been killed before it checked
            self.check_pruning(int(rows[-1]["epoch"]))

    def check_pruning(self, epoch: int) -> None:
        if epoch < self.epochs and self.reporter.should_prune():  # after the last epoch pruning saves nothing
            raise PrunedError(epoch)


class TrialRunner:
    """Runs the trials of one worker: the data are loaded once, and a trial is sent while the next one trains."""

    def __init__(self, folder: Path, study: dict[str, str], inputs: Inputs):
        """`study` holds the uid and the name of the study."""
        self.folder, self.study, self.inputs = folder, study, inputs
        self._sending: Uploader | None = None

    def run(self, name: str, number: int, config: ExperimentConfig, reporter: Reporter) -> float:
        """Train, or continue from the last checkpoint of an earlier worker; the trial's value.

        Raises:
            PrunedError: the pruner stopped the trial; its record is complete.
            TrialLostError: another worker has taken the trial over.
            RunInterruptedError: this worker was asked to stop.
            ResourceError: disk, memory, device, data or database failed; the trial can be continued.
            UserError: the training failed.
        """
        run = self._open(name, number, config)
        recorder = TrialRecorder(run, reporter, config.train.epochs)
        if run.facts.status == "FINISHED":  # its worker was killed before it reported this
            recorder.report_history()
            return run.read_metrics()[BEST_VAL_MACRO_F1]
        with self._recording(run, config):
            start = latest_checkpoint(run.checkpoints)
            if run.entries()[-1].kind != "datasets":  # not new
                run.resume(config, self.inputs.data, None if start is None else start.facts)
            return self._train(config, run, start, recorder)

    def places(self, name: str) -> dict[str, object]:
        """Where a trial's run is, for its attributes: the run directory and, where it is known by now, MLflow's id."""
        run = RunDirectory(self.folder / name)
        found: dict[str, object] = {"run_dir": str(run.root)}
        with suppress(UserError):  # how a trial ended is known without its record too
            if (run_id := run.facts.mlflow_run_id) is not None:
                found["mlflow_run_id"] = run_id
        return found

    def _open(self, name: str, number: int, config: ExperimentConfig) -> RunDirectory:
        run = RunDirectory(self.folder / name)
        if not run.facts_file.exists():
            shutil.rmtree(run.root, ignore_errors=True)  # its worker was killed while creating it
            study = self.study | {"trial": number}
            record = RunDirectory(self.folder)
            launch = record.facts.launch.of_part if record.facts_file.exists() else None
            return RunDirectory.create(run.root, config, self.inputs.data, TUNE, launch, study=study)
        if (whole := run.facts.study) is None or whole.uid != self.study["uid"]:
            raise UserError(f"{run.root}: a run of another study; move it away")
        run.open_journal(config, self.inputs.data)  # an earlier worker may have been killed before this
        run.record_once("tags", values={"watkins.trial": str(number)})
        return run

    @contextmanager
    def _recording(self, run: RunDirectory, config: ExperimentConfig) -> Iterator[None]:
        """Record and upload what happens in the block; the rest of the upload runs beside the next trial."""
        again = "`watkins tune` continues it"
        stops = (PrunedError, TrialLostError, ResourceError, OSError)
        uploader = Uploader(run, config.tracking.system_metrics or run.facts.launch.system_metrics)
        # wait for a `watkins sync` that may be reading it
        with run.training(wait=60), disk_errors(f"cannot write to {run.root}", "make room"):
            uploader.start()
            try:
                with run_lifecycle(run, again, stops), shortages():
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
        self, config: ExperimentConfig, run: RunDirectory, start: Checkpoint | None, recorder: TrialRecorder
    ) -> float:
        try:
            recorder.report_history()
            self._load_other_inputs(config)
            network = train(config, self.inputs, run, start, recorder)
        except PrunedError as pruned:
            run.record_once("tags", values={"watkins.state": "pruned", "pruned_at_epoch": str(pruned.epoch)})
            raise
        metrics = report_validation(network, self.inputs, run, config.train.monitor)
        save_model(network, config, self.inputs.data, run, metrics)
        record_result(run, None, metrics)
        drop_previous(run.checkpoints)
        return metrics[BEST_VAL_MACRO_F1]

    def _load_other_inputs(self, config: ExperimentConfig) -> None:
        """Where the search is over settings of a family's own frontend, such as an encoder's playback speeds."""
        own, data = family(config.model.name).own_input, self.inputs.data
        if own is not None and data.as_prepared is not None and own.settings(config.model) != data.own_input:
            self.inputs = read_inputs(config, data.as_prepared)

    def record_duplicate(self, name: str, number: int, config: ExperimentConfig, earlier: FrozenTrial) -> float:
        """Record a trial with the result of an earlier one at the same point; raises PrunedError if that was."""
        run = self._open(name, number, config)
        with self._recording(run, config):
            run.record_once("tags", values={"watkins.state": "duplicate", "duplicate_of": str(earlier.number)})
            if earlier.state is TrialState.PRUNED:
                raise PrunedError(earlier.last_step or 0)
            run.record_once("metrics", step=0, values={BEST_VAL_MACRO_F1: earlier.value})
        return value_of(earlier)

    def drop_checkpoints(self, name: str) -> None:
        """Delete the checkpoints of a trial that is not continued."""
        shutil.rmtree(self.folder / name / "checkpoints", ignore_errors=True)

    def close_lost(self, name: str) -> None:
        """Close the record of a trial that another worker has finished."""
        run = RunDirectory(self.folder / name)
        run.record("tags", values={"watkins.state": "taken over by another worker"})
        run.finish("KILLED")
