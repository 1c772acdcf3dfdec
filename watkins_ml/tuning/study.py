"""A study in its database: which worker has which trial, how it ended, and which trials are to be continued.

Optuna stores the trials. Every change that depends on the study's state is made under one lock on all machines, so that
no trial is lost, counted twice or given to two workers. A trial ends as COMPLETE, PRUNED or FAIL; one that its worker
abandoned (killed, or asked to stop) ends as FAIL and is followed by another trial at the same point, which continues in
the same run directory from its last checkpoint.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from watkins_ml.config import with_earlier_flat
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.metric_names import BEST_VAL_MACRO_F1
from watkins_ml.core.wording import differences
from watkins_ml.tuning.ownership import TrialLocks
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.sampling import pruner, sampler
from watkins_ml.tuning.storage import StudyDatabase
from watkins_ml.tuning.trials import INTERRUPTED, SHORT, counted, deaths, is_abandoned, run_name

ATTRIBUTE = "watkins"
"""The study's attribute that holds its uid and the recipe that it was created with."""
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
HOST = socket.gethostname()


class TrialLostError(Exception):
    """Another worker has taken this trial over, because this one sent no heartbeat for too long."""


@dataclass(frozen=True)
class Claim:
    """One trial that this process works on; no other process does while this one holds the lock."""

    trial: optuna.Trial
    run: str
    """Name of the trial's run directory."""
    lock: FileLock


class Study:
    """One study of a recipe on one data set, shared by all workers.

    `folder` is this machine's folder for the study's run directories.
    """

    def __init__(self, database: StudyDatabase, recipe: StudyRecipe, folder: Path, optuna_study: optuna.Study):
        self.database, self.recipe, self.folder, self.optuna = database, recipe, folder, optuna_study
        self.optuna.pruner = pruner(recipe)
        self.uid: str = optuna_study.user_attrs[ATTRIBUTE]["uid"]
        self.locks = TrialLocks(folder)

    @classmethod
    def open(cls, database: StudyDatabase, recipe: StudyRecipe, folder: Path, data_digest: str) -> Study:
        """Open the study of the recipe's name, or create it with the recipe's own point as first trial.

        Raises:
            UsageError: the study exists with another recipe or other data, or another program made it.
        """
        return database.retry(lambda: cls._open(database, recipe, folder, data_digest))

    @classmethod
    def _open(cls, database: StudyDatabase, recipe: StudyRecipe, folder: Path, data_digest: str) -> Study:
        identity = recipe.identity() | {"data digest": data_digest}
        with database.exclusive(recipe.name):
            try:
                study = optuna.create_study(storage=database.storage, study_name=recipe.name, direction="maximize")
            except DuplicatedStudyError:
                study = optuna.load_study(storage=database.storage, study_name=recipe.name)
            stored = study.user_attrs.get(ATTRIBUTE)
            if stored is None and study.get_trials(deepcopy=False):
                raise UsageError(
                    f"study {recipe.name} on {database.name}: made by another program; give yours a name with --name"
                )
            if stored is None:
                study.set_user_attr(ATTRIBUTE, {"uid": uuid.uuid4().hex, "identity": identity})
                study.set_metric_names([BEST_VAL_MACRO_F1])
            elif changed := differences(with_earlier_flat(stored["identity"]), identity):
                raise UsageError(
                    f"study {recipe.name} on {database.name}: its recipe has changed ({'; '.join(changed)}); "
                    "change it back to continue, or give the new study another name with --name"
                )
            begun = len(study.get_trials(deepcopy=False))  # more than none of a grid: a process died in the midst of it
            for point in recipe.first_points[begun:] if begun < len(recipe.first_points) else ():
                study.enqueue_trial(point)
        return cls(database, recipe, folder, study)

    def run_of(self, trial: FrozenTrial) -> Path:
        """The run directory of a trial that was worked on here; raises like `run_name`."""
        return self.folder / run_name(trial)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number, as the database has them now."""
        return self.database.retry(lambda: self.optuna.get_trials(deepcopy=False))

    def claim(self) -> Claim | None:
        """The next trial to work on: one to be continued, or a new point; None if there is none now."""
        return self.database.retry(self._claim)

    def _claim(self) -> Claim | None:
        with self.database.exclusive(self.recipe.name) as assert_still_exclusive:
            self._fail_dead()
            self._requeue()
            trials = self.optuna.get_trials(deepcopy=False)
            points = len(counted(trials))
            if points >= self.recipe.settings.trials and all(each.state is not TrialState.WAITING for each in trials):
                return None
            self.optuna.sampler = sampler(self.recipe, points)
            assert_still_exclusive()
            trial = self.optuna.ask(self.recipe.space)
            self._record_heartbeat(trial)
            run = run_name(trial, f"trial-{trial.number:03d}")
            lock = self.locks.acquire(run)  # free: a trial is continued only when no worker holds it
            try:
                self.locks.mark(run)
                trial.set_user_attr("run", run)
                trial.set_user_attr("pid", os.getpid())
                trial.set_user_attr("host", HOST)
                trial.set_user_attr("place", self.locks.place)  # last: from now on the trial has a worker
            except BaseException:  # without a lock another worker continues it
                lock.release()
                raise
            return Claim(trial, run, lock)

    def release(self, claim: Claim) -> None:
        """Release a trial; where the database does not have its end, it is continued like an interrupted one."""
        self.locks.release(claim.run, claim.lock)

    def fail_dead(self) -> None:
        """End the trials whose workers on this machine have ended."""

        def fail() -> None:
            with self.database.exclusive(self.recipe.name):
                self._fail_dead()

        self.database.retry(fail)

    @property
    def is_worked_on(self) -> bool:
        """Whether any worker, on any machine, is running a trial."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials)

    def _fail_dead(self) -> None:
        """End trials whose workers have ended: on this machine at once, on others after missing heartbeats."""
        interval = self.recipe.settings.heartbeat_seconds
        for trial in self.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            place = trial.user_attrs.get("place")
            if place is None:  # the process ended between `ask` and the attributes, before any work on it
                assert trial.datetime_start is not None
                dead = (datetime.now() - trial.datetime_start).total_seconds() > 3 * interval
                if dead:
                    self._mark_interrupted(trial)
            else:
                dead = place == self.locks.place and self.locks.is_free(run_name(trial))
                if dead and self.locks.was_abandoned(run_name(trial)):
                    self._mark_interrupted(trial)
            if dead:
                self.optuna.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            elif place == self.locks.place:
                self._record_heartbeat(trial)  # its lock shows that it runs, even where its heartbeats did not arrive
        # while the database was unavailable no heartbeat could arrive
        if time.monotonic() - self.database.healthy_since > interval:
            optuna.storages.fail_stale_trials(self.optuna)

    def _mark_interrupted(self, trial: FrozenTrial) -> None:
        with suppress(UpdateFinishedTrialError):  # its worker has just ended it
            self.database.storage.set_trial_user_attr(trial._trial_id, "ended", INTERRUPTED)

    def _requeue(self) -> None:
        """Give every abandoned trial a successor; one whose worker was killed twice gets none."""
        trials = self.optuna.get_trials(deepcopy=False)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        for trial in trials:
            if trial.number not in continued and is_abandoned(trial):
                known = {key: trial.user_attrs[key] for key in ("run", SHORT) if key in trial.user_attrs}
                self.optuna.add_trial(
                    optuna.create_trial(
                        state=TrialState.WAITING,
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs=known | {"continues": trial.number, "deaths": deaths(trial)},
                        system_attrs=trial.system_attrs,  # the recipe's own point, where it was not drawn yet
                    )
                )

    def _record_heartbeat(self, trial: optuna.Trial | FrozenTrial) -> None:
        self.database.storage.record_heartbeat(trial._trial_id)

    @contextmanager
    def heartbeat(self, trial: optuna.Trial) -> Iterator[None]:
        """Record regularly in the database that this trial's worker is alive."""
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(self.recipe.settings.heartbeat_seconds):
                with suppress(UserError):  # the training meets the same error
                    self.database.retry(lambda: self._record_heartbeat(trial))

        threading.Thread(target=send, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            stop.set()

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> None:
        """Report the validation macro F1 of an epoch.

        Raises:
            TrialLostError: another worker has taken the trial over.
        """
        try:
            self.database.retry(lambda: trial.report(value, epoch))
        except UpdateFinishedTrialError:
            raise TrialLostError(f"trial {trial.number} was taken over by another worker") from None

    def should_prune(self, trial: optuna.Trial) -> bool:
        return self.database.retry(trial.should_prune)

    def finish(self, claim: Claim, state: TrialState, value: float | None = None, **attributes: Any) -> bool:
        """Store how a trial ended and release it; False if another worker has taken it over."""

        def tell() -> FrozenTrial:
            try:
                for key, content in attributes.items():
                    claim.trial.set_user_attr(key, content)
            except UpdateFinishedTrialError:
                pass  # taken over; or stored, and the response was lost
            return self.optuna.tell(claim.trial, value, state, skip_if_finished=True)

        try:
            return self.database.retry(tell).state is state
        finally:
            self.release(claim)

    def duplicate_of(self, trial: optuna.Trial) -> FrozenTrial | None:
        """An earlier trial at the same point that has a result."""
        for other in self.trials:
            is_final = other.state in ENDED and "duplicate_of" not in other.user_attrs
            if is_final and other.number < trial.number and other.params == trial.params:
                return other
        return None

    @property
    def is_settled(self) -> bool:
        """Whether all trials have ended and none is to be tried again."""
        points = counted(self.trials)
        ended = all(trial.state.is_finished() and not is_abandoned(trial) for trial in points)
        return ended and len(points) >= self.recipe.settings.trials
