"""`watkins tune`: start or continue a study, supervise this machine's workers, and evaluate the best trial."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

from optuna.trial import FrozenTrial

from watkins_ml.core.console import err, progress
from watkins_ml.core.device import choose_device
from watkins_ml.core.errors import ResourceError, UserError, sentence
from watkins_ml.core.locks import reading
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.models.registry import try_model
from watkins_ml.runs.lifecycle import shortages, signals_as_interrupts
from watkins_ml.tracking.records import Launch
from watkins_ml.tracking.server import check_address
from watkins_ml.tracking.sync import sync_all
from watkins_ml.tuning.display import has_result, line, note
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.record import StudyRecord, evaluate_best
from watkins_ml.tuning.storage import DatabaseUnavailableError, StudyDatabase
from watkins_ml.tuning.study import Study
from watkins_ml.tuning.trials import best_trial, counted
from watkins_ml.tuning.worker import Assignment, work

RUNS = Path("runs")
RESPAWNS = 3
"""So often a worker that was killed is replaced."""
REFRESH = 600.0
"""Seconds between two updates of the plots in MLflow."""


@dataclass(frozen=True)
class Outcome:
    """The result of a study."""

    study: Study
    best: FrozenTrial | None
    metrics: dict[str, float] | None
    """Metrics of the best trial's run, with those on test; None if that run is on another machine."""
    protocol: str
    """Split protocol of the prepared data."""

    @property
    def own(self) -> FrozenTrial | None:
        """The trial of the recipe's own values, if it was completed."""
        own = self.study.recipe.own_point or {}
        return best_trial([trial for trial in self.study.trials if trial.params == own])


def tune(recipe: StudyRecipe, workers: int = 1, storage: str | None = None, launch: Launch | None = None) -> Outcome:
    """Work on a study until it has all its trials; then evaluate, register and claim the champion alias for the best.

    Raises:
        UserError: bad data, weights, device or database, or a study of another recipe (before any trial); or it was
            interrupted, or all its workers stopped. The same call continues it.
    """
    check_address()
    data = read_prepared(Path(recipe.config.data.dir))
    choose_device(recipe.config.train.device)
    try_model(recipe.config.model, len(data.classes), data.input.shape, data.task)
    database = StudyDatabase(storage, recipe.settings.heartbeat_seconds)
    study = Study.open(database, recipe, RUNS / recipe.name, data.digest)
    record = StudyRecord(study, data, launch)
    record.check()
    try:
        with signals_as_interrupts(), shortages(), reading(data.folder.root, f"watkins tune ({study.folder})"):
            with record.open():
                outcome, was_writer = _tune(study, data, record, workers), record.is_writer
            if not was_writer:  # the command that wrote it may have ended
                with record.open(wait=60):
                    record.finish("FINISHED", outcome.best)
            return outcome
    except KeyboardInterrupt:
        raise _unfinished(study, "interrupted") from None
    except (ResourceError, OSError) as error:
        raise _unfinished(study, sentence(error)) from None


def _tune(study: Study, data: PreparedData, record: StudyRecord, workers: int) -> Outcome:
    status = "KILLED"
    try:
        with WorkerPool(study, data, workers) as pool:
            _supervise(study, record, pool)
        if not study.is_settled:
            status = "FAILED"
            raise _unfinished(study, pool.reason)
        best = best_trial(study.trials)
        metrics = None if best is None else evaluate_best(study, data, best)
    except DatabaseUnavailableError:
        raise  # already retried; the same command or a sync closes the record
    except BaseException:
        with suppress(UserError, OSError):  # may fail for the same reason; the next call closes everything
            _close(study, record, status)
        raise
    _close(study, record, "FINISHED", best)
    return Outcome(study, best, metrics, data.protocol)


def _close(study: Study, record: StudyRecord, status: str, best: FrozenTrial | None = None) -> None:
    """Close what this command has open in the study and in MLflow."""
    study.fail_dead()
    record.finish(status, best)
    sync_all(study.folder)


def _unfinished(study: Study, reason: str) -> UserError:
    try:
        done = sum(has_result(trial) for trial in counted(study.trials))
        status = f" has {done} of {plural(study.recipe.settings.trials, 'trial')}"
    except ResourceError:  # the database itself is unavailable
        status = ""
    return UserError(f"study {study.recipe.name}{status}: {reason}; the same command continues it")


class WorkerPool:
    """The worker processes of this machine."""

    def __init__(self, study: Study, data: PreparedData, workers: int):
        cores = os.cpu_count() or 1
        threads = max(1, cores // workers) if workers > 1 else None
        self._assignments = [
            Assignment(study.recipe, data.digest, study.database.url, study.folder, number, threads)
            for number in range(1, workers + 1)
        ]
        self._context = multiprocessing.get_context("spawn")
        self._respawns = {number: RESPAWNS for number in range(workers)}
        self._reasons: dict[int, Connection] = {}
        self.reason = "its workers were asked to stop"
        self.processes: list[SpawnProcess] = []

    def start(self) -> None:
        for number in range(len(self._assignments)):
            self.processes.append(self._process(number))
            self._launch(self.processes[-1])

    def _process(self, number: int) -> SpawnProcess:
        self._reasons[number], reason = self._context.Pipe(duplex=False)
        arguments = (self._assignments[number], reason)
        return self._context.Process(target=work, args=arguments, name=f"worker-{number + 1}", daemon=True)

    def _launch(self, process: SpawnProcess) -> None:
        """Start it ignoring Ctrl-C, which a terminal sends to every process: this process stops the workers."""
        handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, handler)

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        if any(process.is_alive() for process in self.processes):
            self.stop()

    def check(self) -> bool:
        """Replace the workers that were killed; False when none is left."""
        for number, process in enumerate(self.processes):
            if process.exitcode is None or process.exitcode == 0:
                continue
            log = self._assignments[number].log
            if process.exitcode > 0:
                self._report_exit(number, log)
            elif self._respawns[number]:
                self._respawns[number] -= 1
                err.print(f"Worker {number + 1} was killed (signal {-process.exitcode}); it is replaced")
                self.processes[number] = self._process(number)
                self._launch(self.processes[number])
            else:
                memory = ", probably for lack of memory; take fewer --workers" * (process.exitcode == -9)
                self.reason = f"worker {number + 1} was killed repeatedly{memory}; see {log}"
        return any(process.is_alive() for process in self.processes)

    def _report_exit(self, number: int, log: Path) -> None:
        """Print once why a worker stopped; through its pipe, since its log may be on a full disk."""
        if (reasons := self._reasons.pop(number, None)) is None:
            return
        self.reason = reasons.recv() if reasons.poll() else _last_line(log)
        if any(process.is_alive() for process in self.processes):
            err.print(f"Worker {number + 1} has stopped: {self.reason}", style="yellow")

    def stop(self) -> None:
        """Let the workers close their trials; a second Ctrl-C kills them."""
        started = [process for process in self.processes if process.pid is not None]
        try:
            for process in started:
                process.terminate()
            with suppress(OSError):  # the terminal may be gone
                err.print("Stopping: the running trials are closed and can be continued")
            for process in started:
                process.join()
        except KeyboardInterrupt:
            for process in started:
                process.kill()
                process.join()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.removeprefix("watkins: ") for line in reversed(lines) if line.strip()), f"see {log}")


def _supervise(study: Study, record: StudyRecord, pool: WorkerPool) -> None:
    """Show the study's progress until this machine's workers have finished."""
    known = {trial.number for trial in study.trials if trial.state.is_finished()}
    refreshed = time.monotonic()
    with progress(slow=True) as bar:
        task = bar.add_task(study.recipe.name, total=study.recipe.settings.trials, note="")
        pool.start()
        working = True
        while working:
            working = pool.check()
            trials = study.trials
            for trial in trials:
                if trial.state.is_finished() and trial.number not in known:
                    known.add(trial.number)
                    record.record_trial(trial)
                    err.print(line(trial, trials, study.recipe.settings.trials))
            if time.monotonic() - refreshed > REFRESH:
                record.publish()
                refreshed = time.monotonic()
            done = sum(has_result(trial) for trial in counted(trials))
            bar.update(task, completed=done, note=note(trials))
            if working:
                time.sleep(1.0)
