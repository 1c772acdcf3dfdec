"""One trial, told by a study when to stop, and what its run directory keeps for whoever goes on with it."""

import pandas as pd
import pytest

from watkins_ml.core.errors import UserError
from watkins_ml.runs.train import read_inputs
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tuning.study import TrialLostError
from watkins_ml.tuning.trial import PrunedError, TrialRunner


class Watcher:
    """A study that prunes from an epoch on, or takes the trial away at one."""

    def __init__(self, prune_at: int = 99, lose_at: int = 99):
        self.prune_at, self.lose_at, self.seen = prune_at, lose_at, {}

    def report(self, epoch: int, value: float) -> None:
        self.seen[epoch] = value
        if epoch >= self.lose_at:
            raise TrialLostError("trial 0 was taken over by another worker")

    def should_prune(self) -> bool:
        return max(self.seen) >= self.prune_at


@pytest.fixture
def config(recipe):
    return recipe("baseline", "train.epochs=4", "tracking.register_as=null")


@pytest.fixture
def runner(config, store, tmp_path):
    runner = TrialRunner(tmp_path / "study", {"uid": "u", "name": "study"}, read_inputs(config))
    yield runner
    runner.wait_for_upload()


def journal(runner: TrialRunner, kind: str) -> list[dict]:
    return [entry for entry in RunDirectory(runner.folder / "trial-000").entries() if entry.kind == kind]


def test_a_trial_pruned_twice_since_its_worker_died_in_between_is_pruned_at_the_same_epoch(runner, config):
    """The first worker was killed after the training had stopped and before the study knew."""
    for number in (0, 5):
        watcher = Watcher(prune_at=2)
        with pytest.raises(PrunedError) as pruned:
            runner.run("trial-000", number, config, watcher)
        assert pruned.value.epoch == 2 and sorted(watcher.seen) == [1, 2]
    runner.wait_for_upload()
    assert [entry.step for entry in journal(runner, "epoch")] == [1, 2]
    marks = [entry.values for entry in journal(runner, "tags") if "pruned_at_epoch" in entry.values]
    assert marks == [{"watkins.state": "pruned", "pruned_at_epoch": "2"}]
    assert journal(runner, "end")[-1].status == "KILLED"


def test_a_finished_trial_is_answered_from_its_record(runner, config):
    first, again = Watcher(), Watcher()
    value = runner.run("trial-000", 0, config, first)
    written = (runner.folder / "trial-000" / "history.csv").stat().st_mtime_ns
    assert runner.run("trial-000", 3, config, again) == value
    assert again.seen == first.seen and sorted(first.seen) == [1, 2, 3, 4]
    assert (runner.folder / "trial-000" / "history.csv").stat().st_mtime_ns == written


def test_a_trial_that_was_lost_can_be_continued_and_tells_all_its_epochs_again(runner, config):
    undisturbed = Watcher()
    value = runner.run("trial-001", 1, config, undisturbed)
    with pytest.raises(TrialLostError):
        runner.run("trial-000", 0, config, Watcher(lose_at=2))
    again = Watcher()
    assert runner.run("trial-000", 4, config, again) == value
    assert again.seen == undisturbed.seen
    history = pd.read_csv(runner.folder / "trial-000" / "history.csv")
    assert history.epoch.tolist() == [1, 2, 3, 4]


def test_the_last_epoch_is_never_pruned(runner, config):
    watcher = Watcher(prune_at=4)
    assert runner.run("trial-000", 0, config, watcher) >= 0
    assert sorted(watcher.seen) == [1, 2, 3, 4]


def test_a_run_of_another_study_is_left_alone(runner, config):
    runner.run("trial-000", 0, config, Watcher())
    stranger = TrialRunner(runner.folder, {"uid": "v", "name": "study"}, runner.inputs)
    with pytest.raises(UserError, match="a run of another study"):
        stranger.run("trial-000", 0, config, Watcher())
