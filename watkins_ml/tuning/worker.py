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
from watkins_ml.core.errors import ResourceError, UserError, first_line, sentence
from watkins_ml.core.memory import use_memory_freely
from watkins_ml.runs.lifecycle import RunInterruptedError, ShortageError, shortages
from watkins_ml.runs.train import read_inputs
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.storage import DatabaseUnavailableError, StudyDatabase
from watkins_ml.tuning.study import HOST, Claim, Study, TrialLostError
from watkins_ml.tuning.trial import PrunedError, TrialRunner
from watkins_ml.tuning.trials import INTERRUPTED, SHORT

FAILURES = 3
"""A worker gives up after so many failed trials in a row: then it is not the point in the search space."""


@dataclass(frozen=True)
class Assignment:
    """The arguments of a worker process."""

    recipe: StudyRecipe
    data_digest: str
    storage: str
    folder: Path
    number: int
    """Number among this machine's workers, from 1."""
    threads: int | None
    """Threads of torch; None is torch's default."""

    @property
    def log(self) -> Path:
        return self.folder / f"worker-{HOST}-{self.number}.log"


class StopRequest:
    """A request to stop (SIGTERM, or the end of this worker's command), raised only inside a `with` block."""

    def __init__(self) -> None:
        self.requested, self._is_inside = False, False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the command stops us
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Thread(target=self._watch_parent, daemon=True).start()

    def _on_signal(self, *_: object) -> None:
        self.requested = True
        if self._is_inside:
            raise KeyboardInterrupt("asked to stop")

    def _watch_parent(self) -> None:
        if parent := multiprocessing.parent_process():
            parent.join()
            os.kill(os.getpid(), signal.SIGTERM)

    def __enter__(self) -> None:
        self._is_inside = True
        if self.requested:
            raise KeyboardInterrupt("asked to stop")

    def __exit__(self, *_: object) -> None:
        self._is_inside = False


class StudyReporter:
    """Reports the epochs of a trial to the study."""

    def __init__(self, study: Study, trial: optuna.Trial):
        self.study, self.trial = study, trial

    def report(self, epoch: int, value: float) -> None:
        self.study.report(self.trial, epoch, value)

    def should_prune(self) -> bool:
        return self.study.should_prune(self.trial)


class Log(io.TextIOBase):
    """A worker's output, appended to its log; on a full disk lines are lost and the trial continues."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            os.write(2, text.encode("utf-8", "backslashreplace"))
        return len(text)


def work(assignment: Assignment, reason: Connection) -> None:
    """Main function of a worker process; where it cannot go on, it sends and logs the reason and exits with 1."""
    stop = StopRequest()
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
    def __init__(self, assignment: Assignment, stop: StopRequest):
        self.recipe, self.stop = assignment.recipe, stop
        self.fault: str | None = None
        """A fault of disk, data, memory or device that stops this worker."""
        _set_up_device(assignment)
        inputs = read_inputs(self.recipe.config)
        if inputs.data.digest != assignment.data_digest:
            raise UserError(f"{self.recipe.config.data.dir}: not the prepared data that the study was started with")
        database = StudyDatabase(assignment.storage, self.recipe.settings.heartbeat_seconds)
        self.study = Study.open(database, self.recipe, assignment.folder, assignment.data_digest)
        link = {"uid": self.study.uid, "name": self.recipe.name}
        self.runner = TrialRunner(assignment.folder, link, inputs)

    def work(self) -> None:
        """Work until the study is done or this worker is asked to stop.

        Raises:
            ResourceError: disk, data, memory, device or database failed; the running trial can be continued.
            UserError: several trials in a row failed.
        """
        failures = 0
        while not self.stop.requested and failures < FAILURES:
            self.runner.inputs.data.check()  # here, so that changed data do not count as a failed trial
            claim = self.study.claim()
            if claim is not None:
                failures = failures + 1 if self.attempt(claim) is TrialState.FAIL else 0
                if self.fault:
                    break
            elif self.study.is_settled:
                break
            else:  # others are running; the trial of one that dies is to be continued
                time.sleep(1.0)
        self.runner.wait_for_upload()
        if self.fault:
            raise ResourceError(self.fault)
        if failures >= FAILURES:
            raise UserError(f"the last {failures} trials of this worker failed ({self.problem})")

    def attempt(self, claim: Claim) -> TrialState | None:
        """Run a trial and store how it ended; None if it is continued elsewhere or later."""
        err.print()
        err.print(f"trial {claim.trial.number} in {claim.run}: {claim.trial.params}")
        with self.study.heartbeat(claim.trial):
            try:
                state, value, attributes = self._result(claim)
            except TrialLostError as error:
                err.print(str(error), style="yellow")
                self.study.release(claim)
                return None
            except ResourceError:
                self.study.release(claim)
                raise
            if not self._finish(claim, state, value, attributes | self.runner.places(claim.run)):
                err.print(f"trial {claim.trial.number} was finished by another worker", style="yellow")
                self.runner.close_lost(claim.run)
            elif state is TrialState.PRUNED:
                self.runner.drop_checkpoints(claim.run)
        self.problem = attributes.get("ended", "")
        return None if self.problem == INTERRUPTED else state

    def _finish(self, claim: Claim, state: TrialState, value: float | None, attributes: dict[str, object]) -> bool:
        """As `Study.finish`; on a full disk the trial is left to be recognised as abandoned."""
        try:
            return self.study.finish(claim, state, value, **attributes)
        except ResourceError as error:
            raise ResourceError(self.fault or str(error)) from None

    def _result(self, claim: Claim) -> tuple[TrialState, float | None, dict[str, object]]:
        """State, value and attributes with which a trial ends."""
        number = claim.trial.number
        attributes: dict[str, object] = {}
        try:
            with self.stop:
                config = self.recipe.at(claim.trial.params)
                if (earlier := self.study.duplicate_of(claim.trial)) is not None:
                    attributes["duplicate_of"] = earlier.number
                    value = self.runner.record_duplicate(claim.run, number, config, earlier)
                else:
                    value = self.runner.run(claim.run, number, config, StudyReporter(self.study, claim.trial))
            return TrialState.COMPLETE, value, attributes
        except PrunedError as pruned:
            return TrialState.PRUNED, None, attributes | {"ended": str(pruned)}
        except (RunInterruptedError, KeyboardInterrupt):
            return TrialState.FAIL, None, {"ended": INTERRUPTED}
        except (TrialLostError, DatabaseUnavailableError):
            raise
        except (ResourceError, OSError) as error:
            if isinstance(error, ShortageError) and SHORT in claim.trial.user_attrs:
                return TrialState.FAIL, None, {"ended": f"again: {first_line(error)}"}
            self.fault = sentence(error)
            short: dict[str, object] = {SHORT: True} if isinstance(error, ShortageError) else {}
            return TrialState.FAIL, None, short | {"ended": INTERRUPTED}
        except Exception as error:  # the study goes on, whatever failed in one trial
            err.print(f"trial {number} failed: {error}", style="yellow")
            return TrialState.FAIL, None, {"ended": f"{type(error).__name__}: {first_line(error)}"}


def _set_up_device(assignment: Assignment) -> None:
    import torch

    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    if torch.cuda.is_available():  # workers take the GPUs in turn
        torch.cuda.set_device((assignment.number - 1) % torch.cuda.device_count())
