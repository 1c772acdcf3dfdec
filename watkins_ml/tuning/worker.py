"""A worker: a process that takes trial after trial of a study until none is left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.trial import TrialState

from watkins_ml.console import err
from watkins_ml.endings import RunInterruptedError
from watkins_ml.errors import UserError, first_line
from watkins_ml.experiment import read_inputs
from watkins_ml.memory import use_memory_freely
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.storage import DatabaseAwayError, StudyDatabase
from watkins_ml.tuning.study import HOST, INTERRUPTED, Claim, Study, TrialLostError
from watkins_ml.tuning.trial import PrunedError, TrialRunner

FAILURES = 3
"""A worker gives up after so many failed trials in a row: then it is not the point in the search space."""


@dataclass(frozen=True)
class Assignment:
    """What a worker process is told."""

    recipe: StudyRecipe
    data_digest: str
    storage: str
    folder: Path
    number: int
    """Of this machine's workers, from 1."""
    threads: int | None
    """Threads to compute with; None leaves it to torch."""

    @property
    def log(self) -> Path:
        return self.folder / f"worker-{HOST}-{self.number}.log"


class Stop:
    """A request to stop (SIGTERM, or the command that began this worker is gone), heard only where it does no harm."""

    def __init__(self):
        self.requested, self._open = False, False
        signal.signal(signal.SIGTERM, self._hear)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to all; the command decides for us
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def _hear(self, *_: object) -> None:
        self.requested = True
        if self._open:
            raise KeyboardInterrupt("told to stop")

    def _watch_parent(self) -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    def __enter__(self) -> None:
        self._open = True
        if self.requested:
            raise KeyboardInterrupt("told to stop")

    def __exit__(self, *_: object) -> None:
        self._open = False


class StudyWatcher:
    """Passes a trial's epochs on to the study."""

    def __init__(self, study: Study, trial: optuna.Trial):
        self.study, self.trial = study, trial

    def report(self, epoch: int, value: float) -> None:
        self.study.report(self.trial, epoch, value)

    def should_prune(self) -> bool:
        return self.study.should_prune(self.trial)


def work(assignment: Assignment) -> None:
    """The life of a worker process; it exits with 1 and one line in its log if it has to give up."""
    stop = Stop()
    use_memory_freely()
    with open(assignment.log, "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        Worker(assignment, stop).work()
    except UserError as error:
        err.print(f"watkins: {error}")
        sys.exit(1)


class Worker:
    def __init__(self, assignment: Assignment, stop: Stop):
        self.recipe, self.stop = assignment.recipe, stop
        _set_up_device(assignment)
        inputs = read_inputs(self.recipe.config)
        if inputs.data.digest != assignment.data_digest:
            raise UserError(f"{self.recipe.config.data.dir}: prepared anew since the study began, or copied otherwise")
        database = StudyDatabase(assignment.storage, self.recipe.settings.heartbeat_seconds)
        self.study = Study.begin(database, self.recipe, assignment.folder, assignment.data_digest)
        link = {"uid": self.study.uid, "name": self.recipe.name}
        self.runner = TrialRunner(assignment.folder, link, inputs)

    def work(self) -> None:
        """Work until the study is done, or until told to stop.

        Raises:
            UserError: the database stays away, or one trial after the other fails.
        """
        failures = 0
        while not self.stop.requested and failures < FAILURES:
            self.runner.inputs.data.check()  # here, for it is no fault of the next trial
            claim = self.study.claim()
            if claim is not None:
                failures = failures + 1 if self.attempt(claim) is TrialState.FAIL else 0
            elif self.study.is_settled:
                break
            else:  # others still work; should one of them die, its trial has to be continued
                time.sleep(1.0)
        self.runner.wait_for_upload()
        if failures >= FAILURES:
            raise UserError(f"the last {failures} trials of this worker failed ({self.problem})")

    def attempt(self, claim: Claim) -> TrialState | None:
        """Work on a trial and tell the study how it ended; None if it goes on elsewhere or later."""
        err.print()
        err.print(f"trial {claim.trial.number} in {claim.run}: {claim.trial.params}")
        with self.study.heartbeat(claim.trial):
            try:
                state, value, attributes = self._result(claim)
            except TrialLostError as lost:
                err.print(str(lost), style="yellow")
                claim.lock.release()
                return None
            if not self.study.finish(claim, state, value, **attributes):
                err.print(f"trial {claim.trial.number} was brought to its end by another worker", style="yellow")
                self.runner.disown(claim.run)
            elif state is TrialState.PRUNED:
                self.runner.forget(claim.run)
        self.problem = attributes.get("ended", "")
        return None if self.problem == INTERRUPTED else state

    def _result(self, claim: Claim) -> tuple[TrialState, float | None, dict[str, object]]:
        """State, value and attributes with which a trial ends."""
        number, attributes = claim.trial.number, {}
        try:
            with self.stop:
                config = self.recipe.at(claim.trial.params)
                if (twin := self.study.twin(claim.trial)) is not None:
                    attributes["duplicate_of"] = twin.number
                    value = self.runner.answer(claim.run, number, config, twin)
                else:
                    value = self.runner.run(claim.run, number, config, StudyWatcher(self.study, claim.trial))
            return TrialState.COMPLETE, value, attributes
        except PrunedError as pruned:
            return TrialState.PRUNED, None, attributes | {"ended": str(pruned)}
        except (RunInterruptedError, KeyboardInterrupt):
            return TrialState.FAIL, None, {"ended": INTERRUPTED}
        except (TrialLostError, DatabaseAwayError):
            raise
        except Exception as error:  # whatever breaks a trial, the study goes on
            err.print(f"trial {number} failed: {error}", style="yellow")
            return TrialState.FAIL, None, {"ended": f"{type(error).__name__}: {first_line(error)}"}


def _set_up_device(assignment: Assignment) -> None:
    import torch

    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    if torch.cuda.is_available():  # one GPU a worker, as far as they go round
        torch.cuda.set_device((assignment.number - 1) % torch.cuda.device_count())
