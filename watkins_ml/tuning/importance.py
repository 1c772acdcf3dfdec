"""The trials that are plotted, and how much each searched parameter matters to their values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from watkins_ml.tuning.scale import even
from watkins_ml.tuning.trials import value_of


@dataclass(frozen=True)
class PlottedTrials:
    """The trials of a study that are plotted, by number, and its search space; each complete one has a finite value.

    Trials that failed, are not finished, or repeat an earlier point (`duplicate_of`) are left out.
    """

    complete: list[FrozenTrial]
    pruned: list[FrozenTrial]
    space: dict[str, BaseDistribution]

    @classmethod
    def of(cls, study: optuna.Study) -> PlottedTrials:
        trials = [trial for trial in study.get_trials(deepcopy=False) if "duplicate_of" not in trial.user_attrs]
        complete = [each for each in trials if each.state is TrialState.COMPLETE and math.isfinite(value_of(each))]
        pruned = [trial for trial in trials if trial.state is TrialState.PRUNED]
        space: dict[str, BaseDistribution] = {}
        for trial in complete + pruned:
            space = trial.distributions | space
        return cls(complete, pruned, {key: space[key] for key in sorted(space)})

    @property
    def best(self) -> FrozenTrial:
        """Needs a complete trial."""
        return max(self.complete, key=lambda trial: (value_of(trial), -trial.number))

    @property
    def values(self) -> list[float]:
        return [value_of(trial) for trial in self.complete]


def importances(trials: PlottedTrials) -> dict[str, float]:
    """Parameter to its share (they sum to 1), greatest first; empty where the values do not differ.

    Optuna's evaluator weighs a log-uniform parameter by its plain value, where nine tenths of a range are its last
    decade; so it is given the logarithms, as the sampler draws them. Pruned trials have no value to compare.
    """
    keys = [key for key in trials.space if all(key in trial.params for trial in trials.complete)]
    varied = [key for key in keys if len({repr(trial.params[key]) for trial in trials.complete}) > 1]
    if len(keys) < 2 or not varied or np.ptp(trials.values) < 1e-9:
        return {}
    scales = {key: even(trials.space[key]) for key in keys}
    storage = optuna.storages.InMemoryStorage()
    study = optuna.create_study(storage=storage, direction="maximize")
    for trial in trials.complete:
        params = {key: convert(trial.params[key]) for key, (_, convert) in scales.items()}
        distributions = {key: distribution for key, (distribution, _) in scales.items()}
        study.add_trial(optuna.create_trial(value=trial.value, params=params, distributions=distributions))
    return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
