"""What a study promises about its trials, whoever works on them and however they go."""

import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tests.support import EXPERIMENTS
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.tuning.recipe import StudyRecipe, load_study
from watkins_ml.tuning.storage import StudyDatabase
from watkins_ml.tuning.study import Study, TrialLostError
from watkins_ml.tuning.trials import INTERRUPTED, SHORT, best_trial, counted

COMPLETE, PRUNED, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL


def named(recipe: StudyRecipe, name: str, **changes) -> StudyRecipe:
    return replace(recipe, name=name, settings=recipe.settings.model_copy(update=changes))


def test_the_first_trial_is_the_recipe_itself(small, begin):
    study = begin(small)
    claim = study.claim()
    assert claim.trial.params == small.own_point == {"optim.lr": 0.002, "train.class_weights": "balanced"}
    assert small.at(claim.trial.params) == small.config


def test_points_lie_in_the_space_and_there_are_as_many_as_asked_for(small, begin):
    study = begin(small)
    seen = []
    while (claim := study.claim()) is not None:
        assert 0.0001 <= claim.trial.params["optim.lr"] <= 0.02
        seen.append(claim.run)
        assert study.finish(claim, COMPLETE, random.random())
    assert seen == [f"trial-{number:03d}" for number in range(5)]
    assert study.is_settled and study.claim() is None
    more = begin(named(small, small.name, trials=7))
    assert not more.is_settled and more.claim() is not None


def test_a_grid_is_worked_through_by_several_and_after_a_stop(prepared, begin, tmp_path):
    search = "optim.lr: {choices: [0.1, 0.002]}, model.dropout: {low: 0.0, high: 0.3, step: 0.1}"
    file = tmp_path / "grid.yaml"
    file.write_text(f"base: {EXPERIMENTS / 'baseline.yaml'}\nstudy: {{sampler: grid, search: {{{search}}}}}\n")
    grid = load_study(file, [f"data.dir={prepared}"])
    study, other = begin(grid), begin(grid)
    assert study.optuna.metric_names == ["best_val_macro_f1"]
    claims = [study.claim(), other.claim(), study.claim()]
    assert claims[0].trial.params == grid.own_point
    other.finish(claims[1], FAIL, ended=INTERRUPTED)
    study.finish(claims[0], COMPLETE, 0.5)
    study.finish(claims[2], PRUNED)
    again = begin(grid)
    while (claim := again.claim()) is not None:
        assert again.finish(claim, COMPLETE, 0.1)
    assert again.is_settled
    tried = [tuple(trial.params.values()) for trial in counted(again.trials)]
    assert len(tried) == len(set(tried)) == grid.settings.trials == 8


def test_the_same_seed_gives_the_same_points_also_after_a_stop(small, begin):
    def points(name: str, stop_at: int | None) -> list[dict]:
        study = begin(named(small, name, trials=8))
        for number in range(8):
            if number == stop_at:
                left = study.claim()
                study.finish(left, FAIL, ended=INTERRUPTED)
                study = begin(named(small, name, trials=8))
            claim = study.claim()
            study.finish(claim, COMPLETE, claim.trial.params["optim.lr"])
        assert study.is_settled
        return [trial.params for trial in counted(study.trials)]

    whole = points("whole", None)
    assert len({point["optim.lr"] for point in whole}) == 8
    by_rate = [sorted(each, key=lambda point: point["optim.lr"]) for each in (whole, points("stopped", 4))]
    assert by_rate[0] == by_rate[1]


def test_a_trial_that_was_told_to_stop_goes_on_first_and_in_its_own_run_directory(small, begin):
    study = begin(small)
    claim = study.claim()
    study.report(claim.trial, 1, 0.5)
    study.finish(claim, FAIL, ended=INTERRUPTED)
    assert not study.is_settled
    again = begin(small).claim()
    assert (again.run, again.trial.params) == (claim.run, claim.trial.params)
    assert again.trial.user_attrs["continues"] == claim.trial.number
    study.finish(again, COMPLETE, 0.7)
    assert [trial.number for trial in counted(study.trials)] == [again.trial.number]


def test_a_trial_of_a_dead_worker_is_tried_once_more_and_not_twice(small, begin):
    study = begin(named(small, "deaths", trials=1))
    first = study.claim()
    first.lock.release()  # what the kernel does when a process is gone
    second = study.claim()
    assert (second.run, second.trial.user_attrs["deaths"]) == (first.run, 1)
    second.lock.release()
    assert study.claim() is None
    assert [trial.state for trial in study.trials] == [FAIL, FAIL]
    assert study.is_settled and best_trial(study.trials) is None


@pytest.mark.parametrize("name", ["../elsewhere", "/tmp/elsewhere", "trial-001/../../elsewhere", "", 7, "trial-1\n"])
def test_a_run_in_the_database_is_no_path(small, begin, tmp_path, name):
    """Who else may write to the database must not have folders of this machine emptied."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("kept")
    study = begin(small)
    claim = study.claim()
    claim.trial.set_user_attr("run", name)
    study.finish(claim, FAIL, ended=INTERRUPTED)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="not trial-NUMBER"):
        begin(small).claim()
    with pytest.raises(UserError, match="not trial-NUMBER"):
        study.run_of(study.trials[0])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_worker_that_lives_keeps_its_trial(small, begin):
    claim = begin(small).claim()
    other = begin(small)
    for _ in range(3):
        assert other.claim().run != claim.run
    assert other.trials[claim.trial.number].state is TrialState.RUNNING


def test_a_silent_worker_on_another_machine_loses_its_trial(small, begin):
    far = begin(named(small, "far", trials=1), folder="far")
    lost = far.claim()
    near = begin(named(small, "far", trials=1), folder="near")
    assert near.claim() is None, "it has only just been heard of"
    deadline = time.monotonic() + 30
    while (claim := near.claim()) is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert claim.trial.user_attrs["continues"] == lost.trial.number
    with pytest.raises(TrialLostError):
        far.report(lost.trial, 1, 0.9)
    assert not far.finish(lost, COMPLETE, 0.9)
    assert near.finish(claim, COMPLETE, 0.6)
    assert best_trial(near.trials).value == 0.6


def test_a_heart_that_beats_keeps_the_trial(small, begin):
    far = begin(named(small, "beats", trials=1), folder="far")
    claim = far.claim()
    near = begin(named(small, "beats", trials=1), folder="near")
    with far.heartbeat(claim.trial):
        until = time.monotonic() + 6  # twice what silence may last
        while time.monotonic() < until:
            assert near.claim() is None
            time.sleep(0.3)
    assert far.finish(claim, COMPLETE, 0.5)


def test_a_lock_left_from_an_earlier_trial_says_nothing_about_a_worker_elsewhere(small, begin):
    here, there = begin(named(small, "two", trials=1)), begin(named(small, "two", trials=1), folder="there")
    here.claim().lock.release()
    continued = there.claim() or there.claim()
    assert continued is None, "it has been silent for a moment only"
    claim = here.claim()
    assert claim.run == "trial-000" and there.claim() is None
    claim.lock.release()
    here.finish(claim, FAIL, ended=INTERRUPTED)
    assert there.claim().run == "trial-000"
    assert here.claim() is None and here.trials[-1].state is TrialState.RUNNING


def test_a_failed_trial_counts_and_is_not_repeated(small, begin):
    study = begin(named(small, "fails", trials=2))
    study.finish(study.claim(), FAIL, ended="UserError: the loss is not a number")
    study.finish(study.claim(), COMPLETE, 0.4)
    assert study.claim() is None and study.is_settled


def test_an_earlier_trial_at_the_same_point_is_found(small, begin):
    study = begin(small)
    first = study.claim()
    study.finish(first, COMPLETE, 0.4)
    study.optuna.enqueue_trial(first.trial.params)
    twin = study.claim()
    assert study.duplicate_of(twin.trial).number == first.trial.number
    study.finish(twin, COMPLETE, 0.4, duplicate_of=0)
    assert study.duplicate_of(study.claim().trial) is None
    assert best_trial(study.trials).number == 0


def test_a_changed_recipe_is_refused_with_the_difference(small, recipe_file, begin):
    begin(small)
    slower = load_study(recipe_file, ["optim.weight_decay=0.02"])
    with pytest.raises(UsageError) as refusal:
        begin(slower)
    assert "optim.weight_decay was 0.01, now 0.02" in str(refusal.value)
    assert "--name" in str(refusal.value) and "\n" not in str(refusal.value)
    begin(replace(slower, name="another"))
    begin(named(small, small.name, trials=50))


def test_a_study_of_an_earlier_version_goes_on_by_its_own_rule_alone(recipe_file, begin, tmp_path):
    """Its identity has no `train.monitor`: it kept networks by the validation loss."""
    by_loss, by_f1 = (load_study(recipe_file, [f"train.monitor={rule}"]) for rule in ("val_loss", "val_macro_f1"))
    study = begin(by_loss)
    began = study.optuna.user_attrs["watkins"]
    del began["identity"]["train.monitor"]
    study.optuna.set_user_attr("watkins", began)
    assert begin(by_loss).uid == study.uid
    with pytest.raises(UsageError, match=r"train\.monitor was val_loss, now val_macro_f1.*change it back to continue"):
        begin(by_f1)


def test_other_data_are_refused(small, tmp_path, begin):
    begin(small)
    database = StudyDatabase(f"sqlite:///{tmp_path / 'studies.db'}")
    with pytest.raises(UsageError, match="data digest was digest, now other"):
        Study.open(database, small, tmp_path / "here", "other")


def test_a_study_of_another_program_is_left_alone(small, tmp_path, begin):
    import optuna

    database = StudyDatabase(f"sqlite:///{tmp_path / 'studies.db'}")
    theirs = optuna.create_study(storage=database.storage, study_name=small.name)
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(UsageError, match="made by another program"):
        begin(small)


@pytest.mark.parametrize("pruner", ["median", "hyperband", "none"])
def test_a_trial_that_falls_behind_is_pruned(small, recipe_file, begin, pruner):
    """Every second trial learns nothing; `none` lets it go on all the same."""
    recipe = load_study(recipe_file, [f"study.pruner={pruner}", "train.epochs=9", "study.startup_trials=1"])
    study = begin(named(recipe, pruner, trials=10))
    while (claim := study.claim()) is not None:
        good = claim.trial.number % 2 == 0
        for epoch in range(1, 10):
            study.report(claim.trial, epoch, 0.5 + epoch / 20 if good else 0.1)
            if study.should_prune(claim.trial):
                study.finish(claim, PRUNED, ended=f"pruned at epoch {epoch}")
                break
        else:
            study.finish(claim, COMPLETE, 0.95 if good else 0.1)
    pruned = [trial.number for trial in study.trials if trial.state is PRUNED]
    assert study.is_settled and not any(number % 2 == 0 for number in pruned)
    assert (len(pruned) >= 3) == (pruner != "none")


def test_the_recipe_is_not_lost_with_a_worker_that_dies_before_it_draws_it(small, begin, monkeypatch):
    """The trial was taken and nothing written yet; nobody has worked on it, so it is no death either."""
    import optuna

    study = begin(named(small, "early", heartbeat_seconds=1))
    with monkeypatch.context() as patch:
        patch.setattr(optuna.Trial, "__init__", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(MemoryError):
            study.claim()
    (lost,) = study.trials
    assert (lost.state, lost.params) == (TrialState.RUNNING, {})
    deadline = time.monotonic() + 20
    others = []
    while not any("continues" in trial.user_attrs for trial in study.trials) and time.monotonic() < deadline:
        others.append(study.claim())
        time.sleep(0.5)
    (successor,) = [trial for trial in study.trials if "continues" in trial.user_attrs]
    assert successor.params == small.own_point
    assert successor.user_attrs["deaths"] == 0


def test_an_address_with_braces_and_one_without_a_port(tmp_path):
    (tmp_path / "{sea}").mkdir()
    assert StudyDatabase(f"sqlite:///{tmp_path}/{{sea}}/studies.db").storage.get_all_studies() == []
    with pytest.raises(UsageError, match="not a database URL"):
        StudyDatabase("postgresql+psycopg://host:port/optuna")


@pytest.mark.parametrize(
    "moment", ["CREATE TABLE trials", "INSERT INTO version_info", "CREATE TABLE alembic_version", "INSERT INTO alembic"]
)
def test_another_program_makes_the_tables_at_the_same_time(tmp_path, moment):
    """As Optuna's own dashboard may, which knows nothing of our lock."""
    url, others = f"sqlite:///{tmp_path / 'studies.db'}", []

    def between(connection, cursor, statement, *_):
        if moment in " ".join(statement.split()) and not others:
            others.append(statement)
            others.append(RDBStorage(url))

    event.listen(Engine, "before_cursor_execute", between)
    try:
        assert StudyDatabase(url).storage.get_all_studies() == []
    finally:
        event.remove(Engine, "before_cursor_execute", between)
    assert len(others) == 2 and StudyDatabase(url).storage.get_all_studies() == []


ENDS = st.sampled_from(["complete", "pruned", "failed", "interrupted", "dies", "stays"])


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 2), ENDS), max_size=14), st.integers(1, 4))
def test_whatever_happens_every_point_ends_once(small, tmp_path_factory, events, wanted):
    """Three workers take turns; each event says whose trial ends, and how."""
    folder = tmp_path_factory.mktemp("turns")
    recipe = named(small, "turns", trials=wanted)
    study = Study.open(StudyDatabase(f"sqlite:///{folder / 'studies.db'}"), recipe, folder / "runs", "digest")
    hands = {}

    def end(worker: int, how: str) -> None:
        claim = hands.pop(worker)
        if how == "dies":
            claim.lock.release()
        elif how == "interrupted":
            study.finish(claim, FAIL, ended=INTERRUPTED)
        elif how == "failed":
            study.finish(claim, FAIL, ended="ValueError: no")
        else:
            study.finish(claim, COMPLETE, 0.5) if how == "complete" else study.finish(claim, PRUNED, ended="pruned")

    for worker, how in events:
        if worker not in hands and (claim := study.claim()) is not None:
            assert all(claim.run != other.run for other in hands.values()), "two workers at one trial"
            hands[worker] = claim
        if worker in hands and how != "stays":
            end(worker, how)
        assert len(counted(study.trials)) <= wanted
    for worker in list(hands):
        end(worker, "complete")
    while (claim := study.claim()) is not None:
        study.finish(claim, COMPLETE, 0.5)
    points = counted(study.trials)
    assert study.is_settled and len(points) == wanted
    assert all(trial.state.is_finished() for trial in study.trials)
    for trial in points:
        if trial.state is FAIL:
            assert trial.user_attrs.get("ended") or trial.user_attrs["deaths"] == 1
    runs = [trial.user_attrs["run"] for trial in points]
    assert len(set(runs)) == len(runs)
    assert all(trial.state is FAIL for trial in study.trials if trial not in points)


def claim_and_finish(recipe: StudyRecipe, url: str, folder: Path, dies_after: int | None) -> None:
    study = Study.open(StudyDatabase(url, 1), recipe, folder, "digest")
    taken = 0
    while not study.is_settled:
        if (claim := study.claim()) is None:
            time.sleep(0.05)
            continue
        taken += 1
        if dies_after and taken >= dies_after and "continues" not in claim.trial.user_attrs:  # not twice at one point
            os.kill(os.getpid(), signal.SIGKILL)
        (folder / f"{claim.run} {os.getpid()}").touch()
        study.report(claim.trial, 1, 0.5)
        study.finish(claim, COMPLETE, claim.trial.params["optim.lr"])


@pytest.mark.faults
def test_four_processes_share_a_study_and_two_of_them_die(small, storage, tmp_path):
    """As many points as asked for, each done once, though all four ask at the same time."""
    recipe = named(small, f"crowd-{os.getpid()}", trials=30)
    folder = tmp_path / "crowd"
    folder.mkdir()
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=claim_and_finish, args=(recipe, storage, folder, dies)) for dies in (None, None, 2, 3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert sorted(worker.exitcode for worker in workers) == [-9, -9, 0, 0]
    study = Study.open(StudyDatabase(storage), recipe, folder, "digest")
    points = counted(study.trials)
    assert len(points) == 30 and all(trial.state is COMPLETE for trial in points)
    assert len(study.trials) == 32, "each of the two that died is followed by one"
    done = [path.name.split()[0] for path in folder.iterdir() if not path.name.startswith(".")]
    assert sorted(done) == sorted(trial.user_attrs["run"] for trial in points), "each run once"
    assert [trial.number for trial in study.trials] == list(range(32))


def test_a_trial_let_go_without_a_word_to_the_database_goes_on_however_often(small, begin):
    """As where the database is on the disk that is full."""
    study = begin(named(small, "let-go", trials=1))
    for _ in range(4):
        claim = study.claim()
        study.release(claim)
    last = study.claim()
    assert last.run == "trial-000" and last.trial.user_attrs["deaths"] == 0
    assert {trial.user_attrs["ended"] for trial in study.trials[:-1]} == {INTERRUPTED}
    study.finish(last, COMPLETE, 0.5)
    assert study.is_settled and len(counted(study.trials)) == 1


def test_a_trial_whose_command_was_killed_too_has_not_died_of_itself(small, begin):
    """A power cut, or the end of a container for want of memory."""
    study = begin(named(small, "power", trials=1))
    for _ in range(3):
        claim = study.claim()
        (study.folder / f".{claim.run}.working").write_text("1 0.0")  # no process of today
        claim.lock.release()
    assert study.claim().trial.user_attrs["deaths"] == 0


def test_that_a_trial_was_left_for_want_of_memory_is_known_to_its_successor(small, begin):
    study = begin(small)
    study.finish(study.claim(), FAIL, ended=INTERRUPTED, **{SHORT: True})
    assert study.claim().trial.user_attrs[SHORT] is True


def test_a_study_of_nothing_but_failed_trials_goes_on_with_more(small, begin):
    study = begin(named(small, "failed", trials=2))
    for _ in range(2):
        study.finish(study.claim(), FAIL, ended="UserError: cannot write to runs: No space left on device")
    assert study.is_settled and best_trial(study.trials) is None
    more = begin(named(small, "failed", trials=4))
    for value in (0.3, 0.4):
        more.finish(more.claim(), COMPLETE, value)
    assert more.is_settled and best_trial(more.trials).value == 0.4
