"""`watkins tune` itself: begin or continue a study, keep this machine's workers going, and conclude."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from optuna.trial import FrozenTrial

from watkins_ml.core.console import err, progress
from watkins_ml.core.device import choose_device
from watkins_ml.core.errors import SurroundingsError, UserError, sentence
from watkins_ml.core.locks import reading
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.models.registry import build_model
from watkins_ml.runs.lifecycle import shortages, signals_as_interrupts
from watkins_ml.tracking.server import check_address
from watkins_ml.tracking.sync import sync_all
from watkins_ml.tuning.display import has_result, line, note
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.record import StudyRecord, conclude
from watkins_ml.tuning.storage import DatabaseAwayError, StudyDatabase
from watkins_ml.tuning.study import Study, best_trial, counted
from watkins_ml.tuning.worker import Assignment, work

RUNS = Path("runs")
RESPAWNS = 3
"""So often a worker that was killed is replaced."""
REFRESH = 600.0
"""Seconds between two updates of the pictures in MLflow."""


@dataclass(frozen=True)
class Outcome:
    """What a study has come to."""

    study: Study
    best: FrozenTrial | None
    metrics: dict[str, float] | None
    """Of the best trial's run, with those on test; None if that run is on another machine."""
    protocol: str
    """Of the split that all this was found on."""

    @property
    def own(self) -> FrozenTrial | None:
        """The recipe's own point, if its trial was completed."""
        own = self.study.recipe.own_point
        return best_trial([trial for trial in self.study.trials if trial.params == own])


def tune(recipe: StudyRecipe, workers: int = 1, storage: str | None = None) -> Outcome:
    """Work on a study until it has all its trials; then evaluate, register and claim the champion alias for the best.

    Raises:
        UserError: bad data, weights, device or database, or a study of another recipe (before any trial); or it was
            interrupted, or all its workers gave up. The same call goes on where it was.
    """
    check_address()
    data = read_prepared(Path(recipe.config.data.dir))
    choose_device(recipe.config.train.device)
    build_model(recipe.config.model, len(data.classes))  # weights that do not fit fail here, before the study exists
    database = StudyDatabase(storage, recipe.settings.heartbeat_seconds)
    study = Study.begin(database, recipe, RUNS / recipe.name, data.digest)
    record = StudyRecord(study, data)
    record.check()
    try:
        with signals_as_interrupts(), shortages(), reading(data.folder.root, f"watkins tune ({study.folder})"):
            with record.open():
                outcome, is_kept = _tune(study, data, record, workers), record.is_mine
            if not is_kept:  # the command that kept it may have left
                with record.open(wait=60):
                    record.finish("FINISHED", outcome.best)
            return outcome
    except KeyboardInterrupt:
        raise _unfinished(study, "interrupted") from None
    except (SurroundingsError, OSError) as error:
        raise _unfinished(study, sentence(error)) from None


def _tune(study: Study, data: PreparedData, record: StudyRecord, workers: int) -> Outcome:
    status = "KILLED"
    try:
        with Crew(study, data, workers) as crew:
            _supervise(study, record, crew)
        if not study.is_settled:
            status = "FAILED"
            raise _unfinished(study, crew.reason)
        best = best_trial(study.trials)
        metrics = None if best is None else conclude(study, data, best)
    except DatabaseAwayError:
        raise  # it was waited for long enough; the same command or a sync closes the record
    except BaseException:
        with suppress(UserError, OSError):  # what stopped the study may stop this too; the same command closes it all
            _leave(study, record, status)
        raise
    _leave(study, record, "FINISHED", best)
    return Outcome(study, best, metrics, data.protocol)


def _leave(study: Study, record: StudyRecord, status: str, best: FrozenTrial | None = None) -> None:
    """Close everything that this command leaves behind, in the study and in MLflow."""
    study.bury()
    record.finish(status, best)
    sync_all(study.folder)


def _unfinished(study: Study, reason: str) -> UserError:
    try:
        done = sum(has_result(trial) for trial in counted(study.trials))
        stand = f" has {done} of {plural(study.recipe.settings.trials, 'trial')}"
    except SurroundingsError:  # the database is what is away
        stand = ""
    return UserError(f"study {study.recipe.name}{stand}: {reason}; the same command continues it")


class Crew:
    """The worker processes of this machine."""

    def __init__(self, study: Study, data: PreparedData, workers: int):
        cores = os.cpu_count() or 1
        threads = max(1, cores // workers) if workers > 1 else None
        self._assignments = [
            Assignment(study.recipe, data.digest, study.database.url, study.folder, number, threads)
            for number in range(1, workers + 1)
        ]
        self._context = multiprocessing.get_context("spawn")
        self._left = {number: RESPAWNS for number in range(workers)}
        self._reasons: dict[int, Connection] = {}
        self.reason = "its workers were told to stop"
        self.processes: list[multiprocessing.Process] = []

    def start(self) -> None:
        for number in range(len(self._assignments)):
            self.processes.append(self._process(number))
            self._launch(self.processes[-1])

    def _process(self, number: int) -> multiprocessing.Process:
        self._reasons[number], reason = self._context.Pipe(duplex=False)
        arguments = (self._assignments[number], reason)
        return self._context.Process(target=work, args=arguments, name=f"worker-{number + 1}", daemon=True)

    def _launch(self, process: multiprocessing.Process) -> None:
        """Start it deaf to Ctrl-C, which a terminal sends to all: this process decides for the workers."""
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, heard)

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if any(process.is_alive() for process in self.processes):
            self.stop()

    def tend(self) -> bool:
        """Replace the workers that were killed; False when none is left."""
        for number, process in enumerate(self.processes):
            if process.exitcode is None or process.exitcode == 0:
                continue
            log = self._assignments[number].log
            if process.exitcode > 0:
                self._hear(number, log)
            elif self._left[number]:
                self._left[number] -= 1
                err.print(f"Worker {number + 1} was killed (signal {-process.exitcode}); another takes its place")
                self.processes[number] = self._process(number)
                self._launch(self.processes[number])
            else:
                memory = ", as systems do that have no memory left; take fewer --workers" * (process.exitcode == -9)
                self.reason = f"worker {number + 1} was killed again and again{memory}; see {log}"
        return any(process.is_alive() for process in self.processes)

    def _hear(self, number: int, log: Path) -> None:
        """Why a worker gave up, once; from itself, for its log may be on a full disk."""
        if (reasons := self._reasons.pop(number, None)) is None:
            return
        self.reason = reasons.recv() if reasons.poll() else _last_line(log)
        if any(process.is_alive() for process in self.processes):
            err.print(f"Worker {number + 1} has stopped: {self.reason}", style="yellow")

    def stop(self) -> None:
        """Let the workers close their trials; a second Ctrl-C kills them."""
        begun = [process for process in self.processes if process.pid is not None]
        try:
            for process in begun:
                process.terminate()
            with suppress(OSError):  # the terminal may be gone
                err.print("Stopping: the running trials are closed, so that they can go on later")
            for process in begun:
                process.join()
        except KeyboardInterrupt:
            for process in begun:
                process.kill()
                process.join()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.removeprefix("watkins: ") for line in reversed(lines) if line.strip()), f"see {log}")


def _supervise(study: Study, record: StudyRecord, crew: Crew) -> None:
    """Show how the study goes until this machine's workers have nothing left to do."""
    known = {trial.number for trial in study.trials if trial.state.is_finished()}
    refreshed = time.monotonic()
    with progress(slow=True) as bar:
        task = bar.add_task(study.recipe.name, total=study.recipe.settings.trials, note="")
        crew.start()
        working = True
        while working:
            working = crew.tend()
            trials = study.trials
            for trial in trials:
                if trial.state.is_finished() and trial.number not in known:
                    known.add(trial.number)
                    record.note(trial)
                    err.print(line(trial, trials, study.recipe.settings.trials))
            if time.monotonic() - refreshed > REFRESH:
                record.publish()
                refreshed = time.monotonic()
            done = sum(has_result(trial) for trial in counted(trials))
            bar.update(task, completed=done, note=note(trials))
            if working:
                time.sleep(1.0)
