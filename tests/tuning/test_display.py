"""What the terminal says of a study while it runs."""

import optuna
import pytest
from optuna.trial import TrialState

from watkins_ml.tuning.display import has_result, line, note, shown_point
from watkins_ml.tuning.trials import counted


@pytest.fixture
def study() -> optuna.Study:
    """A complete, a pruned, a failed, an interrupted trial and its successor that runs, and a repeated point."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    space = {"optim.lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True)}

    def end(state: TrialState, value: float | None = None, **attributes) -> None:
        trial = study.ask(space)
        trial.report(0.25, 1)
        for key, content in attributes.items():
            trial.set_user_attr(key, content)
        study.tell(trial, value, state)

    end(TrialState.COMPLETE, 0.75)
    end(TrialState.PRUNED, ended="pruned at epoch 1")
    end(TrialState.FAIL, ended="UserError: the loss is not a number")
    end(TrialState.FAIL, ended="interrupted")
    end(TrialState.COMPLETE, 0.75, duplicate_of=0)
    successor = study.ask(space)
    successor.set_user_attr("continues", 3)
    successor.report(0.5, 2)
    return study


def test_a_line_says_how_each_trial_ended_and_how_many_are_done(study):
    lines = [line(trial, study.trials, 10) for trial in study.trials[:5]]
    assert (
        "0.7500" in lines[0]
        and "complete" in lines[0]
        and "(4 of 10 trials done, 1 pruned, 1 failed, best 0.7500 by trial 0)" in lines[0]
    )
    assert "pruned at epoch 1" in lines[1]
    assert "failed: UserError: the loss is not a number" in lines[2]
    assert "interrupted, goes on later" in lines[3]
    assert "as trial 0, which had the same point" in lines[4]


def test_the_note_counts_and_names_the_best_and_what_runs_now(study):
    said = note(study.trials)
    assert said.startswith("pruned 1  failed 1  best 0.7500 (trial 0: lr=")
    assert said.endswith("now: trial 5 epoch 2")
    assert note([]) == "pruned 0  failed 0  now: –"


def test_an_interrupted_trial_has_no_result_and_a_continued_one_counts_once(study):
    assert [has_result(trial) for trial in study.trials] == [True, True, True, False, True, False]
    assert [trial.number for trial in counted(study.trials)] == [0, 1, 2, 4, 5]


def test_a_point_is_shown_in_short():
    point = {"optim.lr": 0.000123456, "model.freeze_depth": 6, "train.class_weights": "none"}
    assert shown_point(point) == "lr=0.000123 freeze_depth=6 class_weights=none"
