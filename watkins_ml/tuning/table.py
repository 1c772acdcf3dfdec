"""A study as a table, a row a trial."""

from __future__ import annotations

import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from watkins_ml.core.metric_names import VAL_MACRO_F1
from watkins_ml.tuning.space import tidy
from watkins_ml.tuning.trials import INTERRUPTED

WORDS = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """One row a trial, by number.

    Columns: trial, state (complete, pruned, failed, interrupted, continued as trial N, waiting, running), val_macro_f1
    (of a pruned trial at its last epoch), epochs (the last one that it reported), seconds, every parameter by its
    dotted key, run, host, continues, duplicate_of, problem. What a trial does not have is missing.
    """
    trials = study.get_trials(deepcopy=False)
    successors = {trial.user_attrs["continues"]: trial.number for trial in trials if "continues" in trial.user_attrs}
    keys = sorted({key for trial in trials for key in trial.params})
    columns = ["trial", "state", VAL_MACRO_F1, "epochs", "seconds", *keys]
    columns += ["run", "host", "continues", "duplicate_of", "problem"]
    rows = [dict.fromkeys(columns) | _row(trial, successors) for trial in trials]
    table = pd.DataFrame(rows, columns=columns, dtype=object)  # a 4 stays 4 beside a missing value
    whole = dict.fromkeys(("trial", "epochs", "continues", "duplicate_of"), "Int64")
    return table.astype(whole | {VAL_MACRO_F1: float, "seconds": float})


def _row(trial: FrozenTrial, successors: dict[int, int]) -> dict[str, object]:
    ended = trial.user_attrs.get("ended")
    state = WORDS.get(trial.state) or ("interrupted" if ended in (None, INTERRUPTED) else "failed")
    if trial.number in successors:
        state = f"continued as trial {successors[trial.number]}"
    return {
        "trial": trial.number,
        "state": state,
        VAL_MACRO_F1: trial.value,
        "epochs": max(trial.intermediate_values, default=0),
        "seconds": None if trial.duration is None else trial.duration.total_seconds(),
        "problem": ended if state == "failed" else None,
        **{key: tidy(trial.distributions[key], value) for key, value in trial.params.items()},
        **{key: trial.user_attrs.get(key) for key in ("run", "host", "continues", "duplicate_of")},
    }
