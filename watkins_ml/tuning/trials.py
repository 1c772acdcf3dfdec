"""Derived from a study's trials: which of them count, which are to be continued, which is the best.

A trial that its worker abandoned (killed, or asked to stop) ends as FAIL, and another trial at the same point continues
it in the same run directory.
"""

from __future__ import annotations

import re

import optuna
from optuna.trial import FrozenTrial, TrialState

from watkins_ml.core.errors import UserError
from watkins_ml.core.text import shown

INTERRUPTED = "interrupted"
"""Attribute `ended` of a trial that may be continued."""
SHORT = "short"
"""Attribute of a trial that ended for lack of memory or of a device; if that happens again the trial has failed."""
DEATHS = 1
"""So often a trial whose worker died is tried again."""


def run_name(trial: optuna.Trial | FrozenTrial, new: str = "") -> str:
    """The name of a trial's run directory, from the database, which other programs may have written; or `new`.

    Raises:
        UserError: it is not the name of a run directory of a trial.
    """
    name = trial.user_attrs.get("run", new)
    if not isinstance(name, str) or not re.fullmatch(r"trial-\d{3,9}", name, re.ASCII):
        where = f"trial {trial.number} in the study's database"
        raise UserError(f"{where}: its run is called {shown(str(name)[:100])!r}, not trial-NUMBER")
    return name


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """One trial a point tried: a trial that was continued counts with its last successor only."""
    continued = {trial.user_attrs.get("continues") for trial in trials}
    return [trial for trial in trials if trial.number not in continued]


def is_abandoned(trial: FrozenTrial) -> bool:
    """Whether a trial is to be continued: its worker was asked to stop, or was killed for the first time."""
    ended = trial.user_attrs.get("ended")
    return trial.state is TrialState.FAIL and ended in (None, INTERRUPTED) and deaths(trial) <= DEATHS


def deaths(trial: FrozenTrial) -> int:
    """How many workers died of a trial and of those that it continues."""
    died = trial.state is TrialState.FAIL and "ended" not in trial.user_attrs
    return trial.user_attrs.get("deaths", 0) + died


def best_trial(trials: list[FrozenTrial]) -> FrozenTrial | None:
    """The first of those with the highest validation macro F1; without pruned trials and duplicates."""
    complete = [each for each in trials if each.state is TrialState.COMPLETE and "duplicate_of" not in each.user_attrs]
    return max(complete, key=lambda trial: (value_of(trial), -trial.number), default=None)


def value_of(trial: FrozenTrial) -> float:
    """The validation macro F1 of a complete trial."""
    assert trial.value is not None
    return trial.value
