"""A worker: a process that takes trial after trial of a study until none is left."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import optuna
from optuna.trial import TrialState

from watkins_ml.core.console import err
from watkins_ml.core.errors import SurroundingsError, UserError, first_line, sentence
from watkins_ml.core.memory import use_memory_freely
from watkins_ml.runs.lifecycle import RunInterruptedError, ShortageError, shortages
from watkins_ml.runs.train import read_inputs
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.storage import DatabaseAwayError, StudyDatabase
from watkins_ml.tuning.study import HOST, INTERRUPTED, SHORT, Claim, Study, TrialLostError
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


class Log(io.TextIOBase):
    """What a worker says, added to its log; a disk that is full takes the words and not the trial."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return len(text)


def work(assignment: Assignment, reason: Connection) -> None:
    """The life of a worker process; if it has to give up, it tells the reason, also in its log, and exits with 1."""
    stop = Stop()
    use_memory_freely()
    try:
        with open(assignment.log, "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        sys.stdout = sys.stderr = Log()
        with shortages():
            Worker(assignment, stop).work()
    except (UserError, OSError) as error:
        reason.send(sentence(error))
        err.print(f"watkins: {sentence(error)}")
        sys.exit(1)


class Worker:
    def __init__(self, assignment: Assignment, stop: Stop):
        self.recipe, self.stop = assignment.recipe, stop
        self.outside: str | None = None
        """What broke around the study, so that this worker cannot go on."""
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
            SurroundingsError: something around the study broke; the trial at work is left to be continued.
            UserError: one trial after the other fails.
        """
        failures = 0
        while not self.stop.requested and failures < FAILURES:
            self.runner.inputs.data.check()  # here, for it is no fault of the next trial
            claim = self.study.claim()
            if claim is not None:
                failures = failures + 1 if self.attempt(claim) is TrialState.FAIL else 0
                if self.outside:
                    break
            elif self.study.is_settled:
                break
            else:  # others still work; should one of them die, its trial has to be continued
                time.sleep(1.0)
        self.runner.wait_for_upload()
        if self.outside:
            raise SurroundingsError(self.outside)
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
                self.study.leave(claim)
                return None
            except SurroundingsError:
                self.study.leave(claim)
                raise
            if not self._finish(claim, state, value, attributes):
                err.print(f"trial {claim.trial.number} was brought to its end by another worker", style="yellow")
                self.runner.disown(claim.run)
            elif state is TrialState.PRUNED:
                self.runner.forget(claim.run)
        self.problem = attributes.get("ended", "")
        return None if self.problem == INTERRUPTED else state

    def _finish(self, claim: Claim, state: TrialState, value: float | None, attributes: dict[str, object]) -> bool:
        """As `Study.finish`; a database on a disk that is full is not told, which the next worker understands."""
        try:
            return self.study.finish(claim, state, value, **attributes)
        except SurroundingsError as error:
            raise SurroundingsError(self.outside or str(error)) from None

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
        except (SurroundingsError, OSError) as error:
            if isinstance(error, ShortageError) and SHORT in claim.trial.user_attrs:
                return TrialState.FAIL, None, {"ended": f"again: {first_line(error)}"}
            self.outside = sentence(error)
            short = {SHORT: True} if isinstance(error, ShortageError) else {}
            return TrialState.FAIL, None, {"ended": INTERRUPTED} | short
        except Exception as error:  # whatever breaks a trial, the study goes on
            err.print(f"trial {number} failed: {error}", style="yellow")
            return TrialState.FAIL, None, {"ended": f"{type(error).__name__}: {first_line(error)}"}


def _set_up_device(assignment: Assignment) -> None:
    import torch

    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    if torch.cuda.is_available():  # one GPU a worker, as far as they go round
        torch.cuda.set_device((assignment.number - 1) % torch.cuda.device_count())
