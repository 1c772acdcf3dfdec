"""`watkins tune` from the command to MLflow: a real study of real trainings."""

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psycopg
import pytest
import torch
from mlflow import MlflowClient
from optuna.trial import TrialState

from tests.support import EXPERIMENTS
from tests.support.children import Command
from tests.support.registered import assert_is_the_runs_own, digests, held
from tests.support.servers import free_port
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import on_server
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import cut_windows, load_side
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.evaluation.metrics import score
from watkins_ml.models.bundle import load_bundle
from watkins_ml.tracking import registry
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.training.monitor import best_epoch
from watkins_ml.tuning.recipe import load_study
from watkins_ml.tuning.storage import StudyDatabase
from watkins_ml.tuning.study import Study
from watkins_ml.tuning.trials import best_trial, counted
from watkins_ml.tuning.tune import tune
from watkins_ml.tuning.worker import Assignment, Worker

pytestmark = pytest.mark.slow  # whole studies
BASELINE = EXPERIMENTS / "baseline.yaml"
RECIPE = """
base: {base}
data: {{dir: {data}, batch_size: 8}}
train: {{epochs: 4, device: cpu}}
tracking: {{experiment: sea, register_as: small}}
study:
  trials: 6
  startup_trials: 1
  warmup_epochs: 1
  search:
    optim.lr: {{choices: [0.002, 0.0000000001]}}
    train.class_weights: {{choices: [balanced, none]}}
"""


@dataclass(frozen=True)
class Tuned:
    """A working folder in which a study has finished."""

    folder: Path
    recipe: Path
    study: Study


@pytest.fixture(scope="module")
def tuned(prepared, empty_store, tmp_path_factory) -> Tuned:
    """Six trials at four points, so that some are answered from earlier ones, and two points that learn nothing."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.format(base=BASELINE, data=prepared))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.delenv("MLFLOW_TRACKING_URI")
        patch.chdir(folder)
        outcome = tune(load_study(recipe))
    return Tuned(folder, recipe, outcome.study)


@pytest.fixture
def at(tuned, monkeypatch) -> MlflowClient:
    monkeypatch.chdir(tuned.folder)
    return client()


def child_name(run: str) -> str:
    """What the run of a trial is called on MLflow, by its folder."""
    return f"trial {int(run.removeprefix('trial-'))}, small"


def runs(server: MlflowClient) -> dict[str, object]:
    experiment = server.get_experiment_by_name("sea").experiment_id
    return {run.info.run_name: run for run in server.search_runs([experiment])}


def test_every_trial_is_a_child_of_the_study_and_ends_as_it_did(tuned, at):
    found = runs(at)
    parent = found.pop("small")
    assert parent.info.status == "FINISHED"
    trials = counted(tuned.study.trials)
    assert set(found) == {f"trial {trial.number}, small" for trial in trials}
    states = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED"}
    for trial in trials:
        child = found[child_name(trial.user_attrs["run"])]
        tags = child.data.tags
        assert tags["mlflow.parentRunId"] == parent.info.run_id
        assert (tags["watkins.study"], tags["watkins.trial"]) == ("small", str(trial.number))
        if "duplicate_of" in trial.user_attrs:
            assert tags["duplicate_of"] == str(trial.user_attrs["duplicate_of"])
        else:
            assert child.info.status == states[trial.state]
        assert child.data.params["optim.lr"] == str(trial.params["optim.lr"])


def test_all_kinds_of_trials_came_up(tuned):
    """Otherwise the other tests here show less than they say."""
    trials = tuned.study.trials
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    assert any("duplicate_of" in trial.user_attrs for trial in trials)


def test_a_pruned_trial_is_marked_and_keeps_no_checkpoints(tuned, at):
    trial = next(each for each in tuned.study.trials if each.state is TrialState.PRUNED and each.intermediate_values)
    child = runs(at)[child_name(trial.user_attrs["run"])]
    assert child.data.tags["pruned_at_epoch"] == str(trial.last_step)
    assert child.data.tags["watkins.state"] == "pruned"
    assert not (tuned.folder / "runs" / "small" / trial.user_attrs["run"] / "checkpoints").exists()


def test_a_complete_trial_has_what_an_ordinary_run_has_but_nothing_of_test(tuned, at):
    best = best_trial(tuned.study.trials)
    others = [
        trial for trial in tuned.study.trials
        if trial.state is TrialState.COMPLETE and trial.number != best.number and "duplicate_of" not in trial.user_attrs
    ]  # fmt: skip
    assert others
    for trial in others:
        child = runs(at)[child_name(trial.user_attrs["run"])]
        history = at.get_metric_history(child.info.run_id, "val/macro_f1")
        assert [point.step for point in history] == [1, 2, 3, 4]
        assert child.data.metrics["best/val_macro_f1"] == trial.value
        assert trial.user_attrs["mlflow_run_id"] == child.info.run_id
        assert Path(trial.user_attrs["run_dir"]).name == trial.user_attrs["run"]
        kept = RunDirectory(tuned.folder / "runs" / "small" / trial.user_attrs["run"]).read_history()
        assert child.data.metrics["best/epoch"] == best_epoch(kept, "val_macro_f1")
        assert list(trial.intermediate_values.values()) == kept["val_macro_f1"].tolist()
        assert not [key for key in child.data.metrics if key.startswith(("test/", "control/"))]
        artifacts = {each.path for each in at.list_artifacts(child.info.run_id)}
        assert {"config.yaml", "history.csv", "reports", "preds", "galleries", "plots", "checkpoints"} <= artifacts
        assert {each.path for each in at.list_artifacts(child.info.run_id, "preds")} == {
            "preds/val.csv", "preds/val_logits.npy",
        }  # fmt: skip
        assert len(child.outputs.model_outputs) == 1 and len(child.inputs.dataset_inputs) == 3


def test_the_best_trial_is_tested_once_registered_and_champion_if_it_is_above_its_control(tuned, at):
    best = best_trial(tuned.study.trials)
    child = runs(at)[child_name(best.user_attrs["run"])]
    control = "best_val_control_spectrum_macro_f1"
    assert {"test/accuracy", "test/macro_f1", "control/tape_accuracy", on_server(control)} <= set(child.data.metrics)
    (version,) = at.search_model_versions("name='small'")
    assert version.run_id == child.info.run_id
    assert float(version.tags["best_val_macro_f1"]) == best.value
    assert float(version.tags[control]) == child.data.metrics[on_server(control)]
    holder = registry.champion(at, "small")
    assert (holder is not None and holder.version == version.version) != registry.is_beaten(version)
    tests = [path for path in (tuned.folder / "runs").rglob("preds/test.csv")]
    assert [path.parents[1].name for path in tests] == [best.user_attrs["run"]]


def test_what_is_registered_is_the_best_trials_own_model_and_can_say_unknown(tuned, at, tmp_path):
    best = best_trial(tuned.study.trials)
    assert_is_the_runs_own("models:/small/1", tuned.folder / "runs" / "small" / best.user_attrs["run"], tmp_path)
    for trial in tuned.study.trials:  # and every other trial's is whole too
        folder = tuned.folder / "runs" / "small" / trial.user_attrs["run"]
        if (folder / "model").exists():
            run_id = RunDirectory(folder).facts.mlflow_run_id
            assert held(f"runs:/{run_id}/model") == digests(folder / "model")
            assert "novelty.pt" in digests(folder / "model")


def test_the_best_trial_is_tested_at_the_temperature_that_validation_gave(tuned, fitted_temperatures):
    trial = tuned.folder / "runs" / "small" / best_trial(tuned.study.trials).user_attrs["run"]
    metrics = json.loads((trial / "reports" / "metrics.json").read_text())
    data, classifier = read_prepared(load_study(tuned.recipe).config.data.dir), load_bundle(trial / "model")
    fitted, split = fitted_temperatures(classifier, data), load_side(data, "test")
    assert fitted["test"] != pytest.approx(fitted["val"], rel=1e-3)
    assert classifier.novelty is not None
    assert metrics["temperature"] == classifier.temperature == pytest.approx(fitted["val"], rel=1e-4)
    scores = score(split.labels.numpy(), classifier.probabilities(cut_windows(data, split)), data.classes)
    assert metrics["test_nll"] == pytest.approx(scores["nll"], rel=1e-4)


def test_the_study_has_its_table_its_pictures_and_the_best_value_by_trial(tuned, at):
    parent = runs(at)["small"]
    files = {each.path for folder in ("reports", "plots") for each in at.list_artifacts(parent.info.run_id, folder)}
    assert "reports/trials.csv" in files
    assert {"plots/history.png", "plots/slice.png"} <= files
    table = pd.read_csv(tuned.folder / "runs" / "small" / "reports" / "trials.csv")
    assert len(table) == len(tuned.study.trials)
    best = best_trial(tuned.study.trials)
    history = at.get_metric_history(parent.info.run_id, "best/val_macro_f1")
    assert max(point.value for point in history) == best.value
    assert parent.data.tags["best_trial"] == str(best.number)
    assert parent.data.tags["best.optim.lr"] == str(best.params["optim.lr"])
    assert parent.data.params["study.search.optim.lr"] == "one of [0.002, 1e-10]"


def test_a_trial_is_the_run_that_train_would_have_made(tuned, at, watkins, tmp_path, monkeypatch):
    """The same history, byte for byte, and the same weights."""
    best = best_trial(tuned.study.trials)
    overrides = [word for key, value in best.params.items() for word in ("-o", f"{key}={value}")]
    trial = tuned.folder / "runs" / "small" / best.user_attrs["run"]
    monkeypatch.chdir(tmp_path)
    prepared = load_study(tuned.recipe).config.data.dir
    common = ["-o", f"data.dir={prepared}", "-o", "data.batch_size=8", "-o", "train.epochs=4", "-o", "train.device=cpu"]
    said = watkins("train", BASELINE, *common, *overrides, "-o", "tracking.register_as=null", "--run-dir", "plain")
    assert said.status == 0, said.err
    assert (tmp_path / "plain" / "history.csv").read_bytes() == (trial / "history.csv").read_bytes()
    mine, theirs = (torch.load(run / "model" / "weights.pt", weights_only=True) for run in (trial, tmp_path / "plain"))
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)
    plain = json.loads((tmp_path / "plain" / "reports" / "metrics.json").read_text())
    assert json.loads((trial / "reports" / "metrics.json").read_text()) == pytest.approx(plain, rel=1e-6)


def test_a_trial_is_not_resumed_by_train(tuned, at, watkins):
    said = watkins("train", "--resume", tuned.folder / "runs" / "small" / "trial-000")
    assert said.status == 2 and "belongs to a `watkins tune`, which goes on with it" in said.err


def test_the_same_command_with_more_trials_goes_on(tuned, watkins, tmp_path, monkeypatch):
    folder = tmp_path / "more"
    shutil.copytree(tuned.folder, folder)
    monkeypatch.chdir(folder)
    before = len(tuned.study.trials)
    said = watkins("tune", tuned.recipe, "--trials", before + 1)
    assert said.status == 0, said.err
    assert said.err.count("\ntrial ") + said.err.startswith("trial ") == 1
    assert "6 complete" in said.out or "pruned" in said.out
    said = watkins("tune", tuned.recipe, "--trials", before + 1)
    assert said.status == 0 and "trial " not in said.err.replace("best trial", "")


def test_a_conclusion_that_was_cut_off_is_made_whole_without_reading_test_again(
    tuned, watkins, tmp_path, monkeypatch, empty_store
):
    """The command died after the test report and before it could tell anyone."""
    folder = tmp_path / "cut"
    shutil.copytree(tuned.folder, folder)
    monkeypatch.chdir(folder)
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    run = RunDirectory(folder / "runs" / "small" / best_trial(tuned.study.trials).user_attrs["run"])
    lines = run.journal.read_text().splitlines(keepends=True)
    ends = [number for number, line in enumerate(lines) if json.loads(line)["kind"] == "end"]
    run.journal.write_text("".join(lines[: ends[0] + 1]))
    facts = {key: value for key, value in run.facts.model_dump(exclude_unset=True).items() if key != "concluded"}
    run.facts_file.write_text(json.dumps(facts))
    report = run.root / "preds" / "test.csv"
    before = report.stat().st_mtime_ns
    said = watkins("tune", tuned.recipe)
    assert said.status == 0, said.err
    assert report.stat().st_mtime_ns == before and "Evaluating" not in said.err
    (version,) = client().search_model_versions("name='small'")
    assert registry.CLAIM in version.tags
    found = runs(client())
    assert found[child_name(run.name)].data.metrics["test/accuracy"] == pd.read_csv(report).correct.mean()
    assert len(found) == 1 + len(counted(tuned.study.trials))


def one_line(said, status: int, *parts: str) -> None:
    assert said.status == status, said
    assert said.err.count("\n") == 1 and said.err.startswith("watkins: "), said.err
    assert all(part in said.err for part in parts), said.err


def test_a_database_that_is_not_there(watkins, recipe_file, tmp_path):
    url = f"postgresql+psycopg://optuna:secret@127.0.0.1:{free_port()}/optuna"
    said = watkins("tune", recipe_file, "--storage", url)
    one_line(said, 1, "--storage", "cannot be used", "onnection refused")
    assert "secret" not in said.err and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("optuna", "not a database URL"),
        ("mysql://somewhere/optuna", "must be a PostgreSQL database or a file"),
        ("sqlite://", "must be a PostgreSQL database or a file"),
        ("redis://somewhere", "must be a PostgreSQL database or a file"),
    ],
)
def test_a_storage_of_another_kind(watkins, recipe_file, tmp_path, url, part):
    one_line(watkins("tune", recipe_file, "--storage", url), 2, "--storage", part)
    assert not (tmp_path / "runs").exists()


def test_a_file_that_is_no_database(watkins, recipe_file, tmp_path):
    (tmp_path / "notes.txt").write_text("sea state 3, no calls\n" * 100)
    one_line(
        watkins("tune", recipe_file, "--storage", f"sqlite:///{tmp_path}/notes.txt"), 1, "notes.txt", "not a database"
    )


def test_a_database_that_may_only_be_read(watkins, recipe_file, postgres):
    with psycopg.connect(postgres.url().replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE museum")
        StudyDatabase(postgres.url("museum"))
        connection.execute("ALTER DATABASE museum SET default_transaction_read_only = on")
    one_line(watkins("tune", recipe_file, "--storage", postgres.url("museum")), 1, "--storage", "read-only transaction")


def test_a_database_of_a_wrong_name(watkins, recipe_file, postgres):
    said = watkins("tune", recipe_file, "--storage", postgres.url("whales"))
    one_line(said, 1, "--storage", 'database "whales" does not exist')


@pytest.mark.parametrize("name", ["a/b", "..", "no name", ""])
def test_a_name_that_is_none(watkins, recipe_file, name):
    if name:
        one_line(watkins("tune", recipe_file, "--name", name), 2, f"study name '{name}'")
    else:
        assert load_study(recipe_file, name=name).name == "small"


def test_missing_data_weights_and_recipes(watkins, recipe_file, tmp_path):
    one_line(watkins("tune", recipe_file, "-o", "data.dir=nowhere"), 1, "nowhere", "watkins prepare")
    one_line(watkins("tune", tmp_path / "none.yaml"), 2, "none.yaml")
    one_line(watkins("tune", BASELINE), 2, "no section study")
    one_line(watkins("tune", recipe_file, "-o", "train.device=cuda"), 2, "train.device cuda")
    efficientnet = ["-o", "model.name=efficientnet_b0", "-o", "model.weights=none.pth", "-o", "model.freeze_depth=0"]
    one_line(watkins("tune", recipe_file, *efficientnet), 1, "none.pth", "no such file")
    assert not (tmp_path / "runs").exists()


def test_a_folder_with_another_study(tuned, watkins, tmp_path, monkeypatch):
    folder = tmp_path / "moved"
    shutil.copytree(tuned.folder / "runs" / "small", folder / "runs" / "small")
    monkeypatch.chdir(folder)
    one_line(watkins("tune", tuned.recipe), 2, "runs/small", "holds another study", "--name")


def test_of_two_studies_that_begin_in_one_folder_at_once_one_is_refused(prepared, tmp_path):
    """Each has a database of its own, so only the folder can tell them apart."""
    recipe = tmp_path / "small.yaml"
    recipe.write_text(RECIPE.format(base=BASELINE, data=prepared).replace("trials: 6", "trials: 1"))
    both = [Command(tmp_path, "tune", recipe, "--storage", f"sqlite:///{tmp_path}/{name}.db") for name in "ab"]
    statuses = [command.wait() for command in both]
    said = [command.said for command in both]
    assert sorted(statuses) == [0, 2], said
    assert sum("runs/small: holds another study" in words for words in said) == 1
    facts = RunDirectory(tmp_path / "runs" / "small").facts.model_dump()
    assert facts["status"] == "FINISHED"
    trials = [RunDirectory(path.parent).facts.study.uid for path in (tmp_path / "runs/small").glob("*/run.json")]
    assert trials == [facts["uid"]]


def test_a_worker_that_finds_other_data_than_its_study_takes_no_trial(small, begin, archive, tmp_path):
    study = begin(small)
    copied = shutil.copytree(small.config.data.dir, tmp_path / "copied")
    prepare(archive, copied, PrepareOptions(seed=1, workers=1, frontend=FrontendSettings(n_mels=32, frames=100)))
    config = small.config.model_copy(update={"data": small.config.data.model_copy(update={"dir": str(copied)})})
    other = dataclasses.replace(small, config=config)
    digest = read_prepared(Path(small.config.data.dir)).digest
    with pytest.raises(UserError, match="copied: not the prepared data that the study was started with"):
        Worker(Assignment(other, digest, study.database.url, study.folder, 1, None), None)
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]


@pytest.mark.faults
def test_workers_that_all_fail_end_the_study_with_the_reason(watkins, recipe_file, tmp_path, monkeypatch):
    """Learning rates that no network survives: after three failed trials in a row the worker gives up."""
    recipe_file.write_text(recipe_file.read_text().replace("low: 0.0001, high: 0.02", "low: 100.0, high: 1000.0"))
    overrides = ("optim.lr=1000.0", "optim.weight_decay=1000.0", "train.class_weights=balanced")
    said = watkins("tune", recipe_file, *(word for each in overrides for word in ("-o", each)))
    assert said.status == 1
    assert "the last 3 trials of this worker failed (UserError: the loss is not a number" in said.err.splitlines()[-1]
    assert "the same command continues it" in said.err.splitlines()[-1]
    failed = [RunDirectory(path.parent).facts.status for path in (tmp_path / "runs" / "small").glob("*/run.json")]
    assert failed == ["FAILED"] * 3
    found = runs(client())
    assert {run.info.status for run in found.values()} == {"FAILED"} and len(found) == 4


@pytest.mark.faults
def test_no_server_and_a_later_sync(
    recipe_file, watkins, tmp_path, monkeypatch, empty_store, nobody_listens, impatient
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody_listens)
    said = watkins("tune", recipe_file, "--trials", 2, "-o", "train.epochs=1")
    assert said.status == 0, said.err
    assert "watkins sync" in said.err
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    (tmp_path / "mlflow").mkdir(exist_ok=True)  # an upload that still tries may find no server's address any more
    shutil.copy(empty_store, tmp_path / "mlflow" / "mlflow.db")
    assert watkins("sync").status == 0
    found = runs(client())
    parent = found.pop("small").info.run_id
    assert [found[name].data.tags["mlflow.parentRunId"] for name in sorted(found)] == [parent, parent]
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert os.path.exists("runs/small/trial-000/model/model.json")
