"""The study's own run: the parent of its trials in MLflow, with the table, the plots and the best trial."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from optuna.trial import FrozenTrial, TrialState

from watkins_ml.core.console import err
from watkins_ml.core.device import choose_device
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import write_csv
from watkins_ml.core.metric_names import BEST_VAL, BEST_VAL_MACRO_F1, CONTROL, TEST_ACCURACY, TRIAL, VAL_MACRO_F1
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.models.bundle import load_bundle
from watkins_ml.runs.reports import report_test
from watkins_ml.runs.save_model import complete_model
from watkins_ml.runs.train import record_result
from watkins_ml.tracking.records import TUNE, Launch, Metrics
from watkins_ml.tracking.rundir import RunDirectory, StillTrainingError
from watkins_ml.tracking.uploader import Uploader
from watkins_ml.tuning.plots import write_study_plots
from watkins_ml.tuning.study import Study
from watkins_ml.tuning.table import trials_table
from watkins_ml.tuning.trials import best_trial, value_of


class StudyRecord:
    """The run directory of a study on this machine; of several commands in one folder, one writes it."""

    def __init__(self, study: Study, data: PreparedData, launch: Launch | None = None):
        self.study, self.data, self.run = study, data, RunDirectory(study.folder)
        self.launch = launch or Launch()
        self.is_writer = False

    def check(self) -> None:
        """Refuse the folder of another study.

        Raises:
            UsageError: names the folder.
        """
        if self.run.facts_file.exists() and self.run.facts.uid != self.study.uid:
            raise UsageError(
                f"{self.run.root}: holds another study; move it away, or give this one another name with --name"
            )

    @contextmanager
    def open(self, wait: float = 0) -> Iterator[None]:
        """Write and upload the record, unless another command in this folder still does so after `wait` seconds."""
        with ExitStack() as stack:
            try:
                stack.enter_context(self.run.training(wait))
                self._start()
                stack.enter_context(Uploader(self.run))
                self.is_writer = True
            except StillTrainingError:
                self.check()  # it may have been created since the first check
            try:
                yield
            finally:
                self.is_writer = False

    def _start(self) -> None:
        self.check()
        recipe, database = self.study.recipe, self.study.database
        exists = self.run.facts_file.exists()
        if not exists:
            facts = {"uid": self.study.uid, "command": TUNE, "is_study": True}
            self.run.write_facts(recipe.config, self.data, self.launch, **facts)
        settings = {f"study.{key}": value for key, value in recipe.settings.model_dump(exclude={"trials"}).items()}
        tags = {"watkins.study": recipe.name, "study_storage": database.name}
        self.run.open_journal(recipe.config, self.data, settings | recipe.search_params(), **tags)
        self.run.record("tags", values={"study_trials": str(recipe.settings.trials)})
        if exists:
            self.run.update_facts(status="RUNNING")
            self.run.record("resume", epoch=None)

    def record_trial(self, trial: FrozenTrial) -> None:
        """Record the value of a trial that ended on this machine, and the best so far; the step is its number."""
        best = best_trial(self.study.trials)
        if not self.is_writer or trial.user_attrs.get("place") != self.study.locks.place or best is None:
            return
        values = {BEST_VAL_MACRO_F1: value_of(best)}
        if trial.state is TrialState.COMPLETE:
            values[TRIAL + VAL_MACRO_F1] = value_of(trial)
        known = {entry.step for entry in self.run.entries() if isinstance(entry, Metrics)}
        if trial.number not in known:
            self.run.record("metrics", step=trial.number, values=values)

    def publish(self) -> None:
        """Write and upload the table and the plots of the trials so far."""
        if not self.is_writer:
            return
        retry, study = self.study.database.retry, self.study.optuna
        write_csv(self.run.root / "reports" / "trials.csv", retry(lambda: trials_table(study)))
        retry(lambda: write_study_plots(study, self.run.root / "plots"))
        self.run.record("artifacts", paths=[name for name in ("reports", "plots") if (self.run.root / name).exists()])

    def finish(self, status: str, best: FrozenTrial | None = None) -> None:
        """End the record; FINISHED names the best trial. While workers of other machines go on it stays RUNNING."""
        if not self.is_writer:
            return
        self.publish()
        if best is not None:
            point = {f"best.{key}": str(value) for key, value in best.params.items()}
            self.run.record("tags", values={"best_trial": str(best.number), "best_run": best.user_attrs["run"]} | point)
        self.run.finish("RUNNING" if self.study.is_worked_on else status)


def evaluate_best(study: Study, data: PreparedData, best: FrozenTrial) -> dict[str, float] | None:
    """Evaluate the best trial on test, once, and promote it if it is better than the champion.

    None if its run is on another machine.

    Returns:
        the metrics of its run.
    """
    if best.user_attrs["place"] != study.locks.place:
        return None
    run = RunDirectory(study.run_of(best))
    with run.training(wait=600), Uploader(run):  # another command in this folder may do the same
        metrics = run.read_metrics()
        if TEST_ACCURACY not in metrics:
            err.print(f"Evaluating the best trial ({best.number}) on test")
            network = load_bundle(run.model).network.to(choose_device(study.recipe.config.train.device))
            complete_model(network, data, run, study.recipe.config)
            metrics |= report_test(network, data, run, metrics)
        if not run.facts.concluded:
            with_trial = {key for key in metrics if key.startswith(BEST_VAL) and not key.startswith(BEST_VAL + CONTROL)}
            tested = {key: value for key, value in metrics.items() if key not in with_trial}
            record_result(run, study.recipe.config.tracking.register_as, tested)
            run.update_facts(concluded=True)  # before run.json is sent; one killed here is finished by its next sync
            run.finish("FINISHED")
    return metrics
