"""A study in its database: who works on which trial, what became of it, and what is to be done again.

Optuna keeps the trials; this module keeps its promises about them. Every decision that looks at the study before it
changes it is made under one lock on all machines, so no trial is lost, counted twice or given to two workers. A trial
ends as COMPLETE, PRUNED or FAIL; one that its worker left (killed, or told to stop) ends as FAIL and is followed by
another trial at the same point, which goes on in the same run directory from its last checkpoint.
"""

from __future__ import annotations

import os
import random
import re
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
import psutil
from filelock import FileLock, Timeout
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from watkins_ml.config import EARLIER
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import write_text
from watkins_ml.core.text import shown
from watkins_ml.tuning.recipe import StudyRecipe
from watkins_ml.tuning.storage import StudyDatabase

ATTRIBUTE = "watkins"
"""The study's attribute that holds its uid and what it was begun with."""
HOST = socket.gethostname()
DEATHS = 1
"""So often a trial whose worker died is tried again."""
INTERRUPTED = "interrupted"
SHORT = "short"
"""Attribute of a trial that was left for want of memory or of a device; if that happens again it is the trial's own."""


class TrialLostError(Exception):
    """Another worker has taken this trial over, since this one had been silent for too long."""


@dataclass(frozen=True)
class Claim:
    """One trial that this process works on; nobody else does while it holds the lock."""

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
        self.optuna.pruner = _pruner(recipe)
        self.uid: str = optuna_study.user_attrs[ATTRIBUTE]["uid"]
        self.place = _place(folder)
        """Names the folder, wherever it is mounted; who shares it shares the locks of trials."""

    @classmethod
    def begin(cls, database: StudyDatabase, recipe: StudyRecipe, folder: Path, data_digest: str) -> Study:
        """Open the study of the recipe's name, or create it with the recipe's own point as first trial.

        Raises:
            UsageError: the study was begun with another recipe or other data, or by another program.
        """
        return database.again(lambda: cls._begin(database, recipe, folder, data_digest))

    @classmethod
    def _begin(cls, database: StudyDatabase, recipe: StudyRecipe, folder: Path, data_digest: str) -> Study:
        identity = recipe.identity() | {"data digest": data_digest}
        with database.exclusive(recipe.name):
            try:
                study = optuna.create_study(storage=database.storage, study_name=recipe.name, direction="maximize")
            except DuplicatedStudyError:
                study = optuna.load_study(storage=database.storage, study_name=recipe.name)
            began = study.user_attrs.get(ATTRIBUTE)
            if began is None and study.get_trials(deepcopy=False):
                raise UsageError(
                    f"study {recipe.name} on {database.name}: begun by another program; give yours a name with --name"
                )
            if began is None:
                study.set_user_attr(ATTRIBUTE, {"uid": uuid.uuid4().hex, "identity": identity})
            elif (earlier := EARLIER | began["identity"]) != identity:
                raise UsageError(_differences(recipe.name, database.name, earlier, identity))
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial(recipe.own_point)
        return cls(database, recipe, folder, study)

    def run_of(self, trial: FrozenTrial) -> Path:
        """The run directory of a trial that was worked on here; raises as `_run_name`."""
        return self.folder / _run_name(trial)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials by number, as the database has them now."""
        return self.database.again(lambda: self.optuna.get_trials(deepcopy=False))

    def claim(self) -> Claim | None:
        """The next trial to work on: one to be continued, or a new point; None if there is none now."""
        return self.database.again(self._claim)

    def _claim(self) -> Claim | None:
        with self.database.exclusive(self.recipe.name) as assert_still_exclusive:
            self._fail_dead()
            self._queue_again()
            trials = self.optuna.get_trials(deepcopy=False)
            points = len(counted(trials))
            if points >= self.recipe.settings.trials and all(each.state is not TrialState.WAITING for each in trials):
                return None
            self.optuna.sampler = _sampler(self.recipe, points)
            assert_still_exclusive()
            trial = self.optuna.ask(self.recipe.space)
            self._beat(trial)
            run = _run_name(trial, f"trial-{trial.number:03d}")
            lock = self._lock(run)
            lock.acquire()  # free: a trial is continued only when nobody holds it
            try:
                self._mark(run).write_text(_command(), encoding="utf-8")
                trial.set_user_attr("run", run)
                trial.set_user_attr("pid", os.getpid())
                trial.set_user_attr("host", HOST)
                trial.set_user_attr("place", self.place)  # last: who has it counts as a worker
            except BaseException:  # the trial is given up, so it must look so to whoever would continue it
                lock.release()
                raise
            return Claim(trial, run, lock)

    def _lock(self, run: str) -> FileLock:
        """Held by the worker of a trial on this machine; the kernel gives it back however the worker ends."""
        return FileLock(self.folder / f".{run}.lock")

    def _mark(self, run: str) -> Path:
        """There while a worker has a trial, with the process of its command; a worker that is killed leaves it.

        Taking it away needs no room on the disk and no database, which may be what broke.
        """
        return self.folder / f".{run}.working"

    def leave(self, claim: Claim) -> None:
        """Let a trial go; where its end was not told to the database, it goes on as one that was interrupted."""
        with suppress(OSError):
            self._mark(claim.run).unlink(missing_ok=True)
        claim.lock.release()

    def _was_left(self, run: str) -> bool:
        """Whether a worker here that is gone let go of its trial, or was killed with its command and so with all."""
        try:
            return not _is_alive(self._mark(run).read_text(encoding="utf-8"))
        except OSError:
            return True

    def bury(self) -> None:
        """End the trials whose workers here are gone, when this machine leaves the study."""

        def fail() -> None:
            with self.database.exclusive(self.recipe.name):
                self._fail_dead()

        self.database.again(fail)

    @property
    def is_worked_on(self) -> bool:
        """Whether a worker, here or elsewhere, is at a trial."""
        return any(trial.state is TrialState.RUNNING for trial in self.trials)

    def _fail_dead(self) -> None:
        """End the trials whose workers are gone: here at once, on other machines when they have been silent."""
        silence = self.recipe.settings.heartbeat_seconds
        for trial in self.optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            place = trial.user_attrs.get("place")
            if place is None:  # given up between asking for the trial and saying who asked: nobody has worked on it
                dead = (datetime.now() - trial.datetime_start).total_seconds() > 3 * silence
                if dead:
                    self._mark_left(trial)
            else:
                dead = place == self.place and self._is_free(_run_name(trial))
                if dead and self._was_left(_run_name(trial)):
                    self._mark_left(trial)
            if dead:
                self.optuna.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            elif place == self.place:
                self._beat(trial)  # its lock says that it lives, whatever the database has heard
        # while the database was away nobody's heart could be heard
        if time.monotonic() - self.database.healthy_since > silence:
            optuna.storages.fail_stale_trials(self.optuna)

    def _mark_left(self, trial: FrozenTrial) -> None:
        with suppress(UpdateFinishedTrialError):  # its worker has ended it just now
            self.database.storage.set_trial_user_attr(trial._trial_id, "ended", INTERRUPTED)

    def _is_free(self, run: str) -> bool:
        lock = self._lock(run)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

    def _queue_again(self) -> None:
        """Give every trial that its worker left a successor; one that was killed again gets none."""
        trials = self.optuna.get_trials(deepcopy=False)
        continued = {trial.user_attrs.get("continues") for trial in trials}
        for trial in trials:
            if trial.number not in continued and _is_left(trial):
                known = {key: trial.user_attrs[key] for key in ("run", SHORT) if key in trial.user_attrs}
                self.optuna.add_trial(
                    optuna.create_trial(
                        state=TrialState.WAITING,
                        params=trial.params,
                        distributions=trial.distributions,
                        user_attrs=known | {"continues": trial.number, "deaths": _deaths(trial)},
                        system_attrs=trial.system_attrs,  # the recipe's own point, where it was not drawn yet
                    )
                )

    def _beat(self, trial: optuna.Trial | FrozenTrial) -> None:
        self.database.storage.record_heartbeat(trial._trial_id)

    @contextmanager
    def heartbeat(self, trial: optuna.Trial) -> Iterator[None]:
        """Tell the database all the time that this trial's worker is alive."""
        stop = threading.Event()

        def beat() -> None:
            while not stop.wait(self.recipe.settings.heartbeat_seconds):
                with suppress(UserError):  # the training itself will come to know
                    self.database.again(lambda: self._beat(trial))

        threading.Thread(target=beat, name="heartbeat", daemon=True).start()
        try:
            yield
        finally:
            stop.set()

    def report(self, trial: optuna.Trial, epoch: int, value: float) -> None:
        """Keep the validation macro F1 of an epoch.

        Raises:
            TrialLostError: the trial is another worker's now.
        """
        try:
            self.database.again(lambda: trial.report(value, epoch))
        except UpdateFinishedTrialError:
            raise TrialLostError(f"trial {trial.number} was taken over by another worker") from None

    def should_prune(self, trial: optuna.Trial) -> bool:
        return self.database.again(trial.should_prune)

    def finish(self, claim: Claim, state: TrialState, value: float | None = None, **attributes: Any) -> bool:
        """Tell how a trial ended and let it go; False if another worker has taken it over."""

        def tell() -> FrozenTrial:
            try:
                for key, content in attributes.items():
                    claim.trial.set_user_attr(key, content)
            except UpdateFinishedTrialError:
                pass  # taken over; or told, and the answer lost
            return self.optuna.tell(claim.trial, value, state, skip_if_finished=True)

        try:
            return self.database.again(tell).state is state
        finally:
            self.leave(claim)

    def twin(self, trial: optuna.Trial) -> FrozenTrial | None:
        """An earlier trial at the same point that has its result."""
        for other in self.trials:
            decided = other.state in (TrialState.COMPLETE, TrialState.PRUNED) and "duplicate_of" not in other.user_attrs
            if decided and other.number < trial.number and other.params == trial.params:
                return other
        return None

    @property
    def is_settled(self) -> bool:
        """Whether all trials have ended and none is to be tried again."""
        points = counted(self.trials)
        ended = all(trial.state.is_finished() and not _is_left(trial) for trial in points)
        return ended and len(points) >= self.recipe.settings.trials


def _run_name(trial: optuna.Trial | FrozenTrial, new: str = "") -> str:
    """The folder of a trial's run, as the database says, which others may write to too; or a `new` one.

    Raises:
        UserError: it is no name of a trial's folder.
    """
    name = trial.user_attrs.get("run", new)
    if not isinstance(name, str) or not re.fullmatch(r"trial-\d{3,9}", name, re.ASCII):
        told = shown(str(name)[:100])
        raise UserError(f"trial {trial.number} in the study's database: its run is called {told!r}, not trial-NUMBER")
    return name


def _place(folder: Path) -> str:
    """The folder's own name, made by the first process that works in it."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ".place"
    with FileLock(folder / ".place.lock"):
        if not file.exists() or not file.read_text():
            write_text(file, uuid.uuid4().hex)
        return file.read_text()


def _command() -> str:
    """The process of the command that this worker belongs to, told from a later one of the same number."""
    process = psutil.Process(os.getppid())
    return f"{process.pid} {process.create_time()}"


def _is_alive(command: str) -> bool:
    number, _, began = command.partition(" ")
    try:
        return str(psutil.Process(int(number)).create_time()) == began
    except (psutil.Error, ValueError):
        return False


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """One trial a point tried: a trial that was continued counts with its last successor only."""
    continued = {trial.user_attrs.get("continues") for trial in trials}
    return [trial for trial in trials if trial.number not in continued]


def _is_left(trial: FrozenTrial) -> bool:
    """Whether its worker left a trial that may go on: told to stop, or killed for the first time."""
    ended = trial.user_attrs.get("ended")
    return trial.state is TrialState.FAIL and ended in (None, INTERRUPTED) and _deaths(trial) <= DEATHS


def _deaths(trial: FrozenTrial) -> int:
    """How many workers died of a trial and of those that it continues."""
    died = trial.state is TrialState.FAIL and "ended" not in trial.user_attrs
    return trial.user_attrs.get("deaths", 0) + died


def best_trial(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The first of those with the highest validation macro F1; pruned trials and answers from earlier ones stay out."""
    complete = [each for each in trials if each.state is TrialState.COMPLETE and "duplicate_of" not in each.user_attrs]
    return max(complete, key=lambda trial: (trial.value, -trial.number), default=None)


def _sampler(recipe: StudyRecipe, points: int) -> optuna.samplers.BaseSampler:
    """Each point has a seed of its own: workers differ, and a continued study goes on as it would have."""
    seed = random.Random(f"{recipe.settings.seed} {points}").getrandbits(32)
    if recipe.settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed)
    return optuna.samplers.TPESampler(
        n_startup_trials=recipe.settings.startup_trials, multivariate=True, constant_liar=True, seed=seed
    )


def _pruner(recipe: StudyRecipe) -> optuna.pruners.BasePruner:
    settings, epochs = recipe.settings, recipe.config.train.epochs
    if settings.pruner == "median":
        return optuna.pruners.MedianPruner(settings.startup_trials, n_warmup_steps=settings.warmup_epochs + 1)
    if settings.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=epochs)
    return optuna.pruners.NopPruner()


def _differences(name: str, database: str, began: dict[str, Any], now: dict[str, Any]) -> str:
    changed = [
        f"{key} was {began.get(key)}, now {now.get(key)}"
        for key in sorted(began.keys() | now.keys())
        if began.get(key) != now.get(key)
    ]
    return (
        f"study {name} on {database}: its recipe has changed ({'; '.join(changed)}); "
        "change it back to continue, or give the new study another name with --name"
    )
