"""What a launch says beside the recipe: options, and each variable of MLflow that its users set."""

from __future__ import annotations

import base64
import json
import os
import shutil
import string
import sys

import mlflow
import pytest
import typer
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.support import EXPERIMENTS, ROOT, forked
from tests.support.commands import BASELINE, assert_one_line
from watkins_ml.cli import app
from watkins_ml.core.errors import UsageError
from watkins_ml.tracking.launch import read_launch
from watkins_ml.tracking.records import Launch
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.tracking.server_run import PARENT_TAG, UID_TAG
from watkins_ml.tracking.upload import Upload


@pytest.fixture
def small(prepared) -> list[str]:
    settings = (f"data.dir={prepared}", "data.batch_size=8", "train.epochs=1", "tracking.register_as=launched")
    return [part for each in settings for part in ("-o", each)]


@pytest.fixture
def launched(journal):
    """A function that gives the journal of a run that has begun, launched so."""

    def start(launch: Launch, name: str = "run", **facts: object) -> RunDirectory:
        run = journal(name)
        run.update_facts(launch=launch.model_dump(exclude_defaults=True), **facts)
        return run

    return start


def test_without_any_variable_a_launch_says_nothing():
    assert read_launch() == Launch() and not Launch().model_dump(exclude_defaults=True)


def test_an_experiment_of_the_command_goes_before_the_variable_and_that_before_the_recipe(monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "autumn")
    assert read_launch().experiment == "autumn"
    assert read_launch(["train.epochs=1", "tracking.experiment=winter"]).experiment is None


@pytest.mark.parametrize(
    ("variable", "value", "part"),
    [
        ("MLFLOW_TAGS", "site=Samana", "a JSON object"),
        ("MLFLOW_TAGS", '["site"]', "a JSON object"),
        ("MLFLOW_TAGS", "[" * 100_000, "a JSON object"),
        ("MLFLOW_TAGS", '{"watkins.uid": "mine"}', "belongs to the program"),
        ("MLFLOW_RUN_ID", "../other", "not an id"),
        ("MLFLOW_EXPERIMENT_ID", "a b", "not an id"),
        ("MLFLOW_EXPERIMENT_NAME", "a/../b", "MLFLOW_EXPERIMENT_NAME"),
        ("MLFLOW_RUN_NAME", "a\x1b[2Jb", "control character"),
        ("MLFLOW_REGISTRY_URI", "localhost:5000", "MLFLOW_REGISTRY_URI=localhost:5000: has no scheme"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_one_line_and_nothing_is_written(
    watkins, small, monkeypatch, tmp_path, variable, value, part
):
    monkeypatch.setenv(variable, value)
    assert_one_line(watkins("train", BASELINE, *small, "--name", "run"), 2, part)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--tag", "Samana"], "--tag Samana: write it as name=value"),
        (["--tag", "mlflow.runName=x"], "belongs to the program"),
        (["--tag", f"site={'x' * 6_000}"], "at most 5,000"),
        (["--name", "a/b"], "--name a/b"),
        (["--name", "a", "--run-dir", "b"], "one of --name and --run-dir"),
        (["--resume", "a", "--note", "b"], "--resume is for an interrupted one"),
    ],
)
def test_options_that_cannot_be_meant_are_one_line(watkins, small, options, part):
    assert_one_line(watkins("train", BASELINE, *small, *options), 2, part)


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.text(max_size=20), st.integers(), st.none()), max_size=4))
def test_any_tags_are_taken_as_they_are_or_refused(tags):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TAGS", json.dumps(tags))
        try:
            found = read_launch().tags
        except UsageError:
            return
    assert found == {key: str(value) for key, value in tags.items()}


@pytest.mark.slow
def test_a_training_is_where_and_what_the_variables_say(store, watkins, small, monkeypatch, tmp_path):
    scheduled = store.create_run(store.create_experiment("scheduled"), run_name="of the scheduler")
    store.log_param(scheduled.info.run_id, "train.epochs", "many")  # as it wrote, which nobody can change
    for name, value in {
        "MLFLOW_RUN_ID": scheduled.info.run_id,
        "MLFLOW_TAGS": '{"site": "Samana", "depth": 30}',
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
        "MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL": "0.2",
        "MLFLOW_SYSTEM_METRICS_SAMPLES_BEFORE_LOGGING": "1",
    }.items():
        monkeypatch.setenv(name, value)
    options = ("--name", "first", "--tag", "season=wet", "--tag", "site=Bay", "--note", "The *first* hours.")
    said = watkins("train", BASELINE, *small, *options)
    assert said.status == 0, said.err
    run = RunDirectory(tmp_path / "runs" / "first")
    tracked = store.get_run(scheduled.info.run_id)
    assert run.facts.mlflow_run_id == scheduled.info.run_id and tracked.info.status == "FINISHED"
    assert tracked.info.run_name == "of the scheduler"
    wanted = {"site": "Bay", "depth": "30", "season": "wet", "mlflow.note.content": "The *first* hours."}
    assert wanted.items() <= tracked.data.tags.items() and tracked.data.tags[UID_TAG] == run.facts.uid
    assert tracked.data.params["train.epochs"] == "many" and tracked.data.params["data.batch_size"] == "8"
    assert "val/macro_f1" in tracked.data.metrics
    assert any(name.startswith("system/") for name in tracked.data.metrics)
    assert len(store.search_runs([tracked.info.experiment_id])) == 1
    assert watkins("sync", "runs/first").out == "nothing to send for 1 run\n"


def test_an_experiment_by_number(store, launched, monkeypatch):
    number = store.create_experiment("autumn")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", number)
    run = launched(read_launch())
    Upload(run).send()
    assert store.get_run(run.facts.mlflow_run_id).info.experiment_id == number


def test_what_is_not_on_the_server_costs_no_result(store, launched):
    gone = launched(Launch(run_id="f" * 32, experiment_id="999999999999"), "gone")
    upload = Upload(gone)
    assert upload.send() == 3
    tracked = store.get_run(gone.facts.mlflow_run_id)
    assert store.get_experiment(tracked.info.experiment_id).name == "sea"
    assert any("MLFLOW_RUN_ID" in each and "this is a new run" in each for each in upload.messages)
    assert any("MLFLOW_EXPERIMENT_ID" in each for each in upload.messages)
    again = Upload(gone)
    assert again.send() == 0 and not again.messages

    taken = launched(Launch(run_id=gone.facts.mlflow_run_id), "taken")
    second = Upload(taken)
    second.send()
    assert taken.facts.mlflow_run_id != gone.facts.mlflow_run_id and "another training's" in " ".join(second.messages)
    assert store.get_run(gone.facts.mlflow_run_id).data.tags[UID_TAG] == gone.facts.uid

    ended = store.create_run(tracked.info.experiment_id, run_name="somebody's").info.run_id
    store.set_terminated(ended)
    late = launched(Launch(run_id=ended), "late")
    Upload(late).send()
    assert late.facts.mlflow_run_id != ended and not store.get_run(ended).data.params


@pytest.mark.slow
def test_folds_are_below_the_run_of_the_scheduler(store, watkins, small, monkeypatch, tmp_path):
    scheduled = store.create_run(store.create_experiment("scheduled"), run_name="night")
    monkeypatch.setenv("MLFLOW_RUN_ID", scheduled.info.run_id)
    said = watkins("crossval", BASELINE, *small, "--folds", "3", "--run-dir", "folds", "--tag", "site=Bay")
    assert said.status == 0, said.err
    assert store.get_run(scheduled.info.run_id).data.tags["site"] == "Bay"
    runs = store.search_runs([scheduled.info.experiment_id])
    children = [run for run in runs if run.data.tags.get(PARENT_TAG) == scheduled.info.run_id]
    assert len(children) == 3 and len(runs) == 4
    assert store.get_experiment_by_name("watkins") is None


@pytest.mark.slow
def test_trials_are_in_the_experiment_of_the_variable(store, watkins, prepared, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "search")
    small = (f"data.dir={prepared}", "data.batch_size=8", "train.epochs=1", "tracking.register_as=null")
    options = [part for each in small for part in ("-o", each)]
    said = watkins("tune", EXPERIMENTS / "tune-baseline.yaml", *options, "--trials", "1", "--tag", "site=Bay")
    assert said.status == 0, said.err
    runs = store.search_runs([store.get_experiment_by_name("search").experiment_id])
    (study,) = (run for run in runs if PARENT_TAG not in run.data.tags)
    assert [run.data.tags[PARENT_TAG] for run in runs if run is not study] == [study.info.run_id]
    assert study.data.tags["site"] == "Bay" and store.get_experiment_by_name("watkins") is None


@pytest.mark.slow
def test_models_are_registered_where_the_variable_says(
    store, empty_store, watkins, small, archive, monkeypatch, tmp_path
):
    (tmp_path / "other").mkdir()
    shutil.copy(empty_store, tmp_path / "other" / "registry.db")
    registry = f"sqlite:///{tmp_path}/other/registry.db"
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", registry)
    monkeypatch.setenv("MLFLOW_RUN_NAME", "the second night")
    said = watkins("train", BASELINE, *small, "--name", "run")
    assert said.status == 0 and os.environ["MLFLOW_REGISTRY_URI"] == registry, said.err
    assert "launched" in watkins("models").out
    (version,) = client().search_model_versions("name='launched'")
    assert version.run_id == RunDirectory(tmp_path / "runs" / "run").facts.mlflow_run_id
    assert store.get_run(version.run_id).info.run_name == "the second night"
    recording = next(archive.rglob("*.wav"))
    assert watkins("predict", "models:/launched/1", recording, "--by", "file", "--format", "csv").status == 0
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert not client().search_model_versions("name='launched'")
    assert "MLFLOW_REGISTRY_URI" not in os.environ


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MLFLOW_TRACKING_TOKEN": "secret"}, "Bearer secret"),
        (
            {"MLFLOW_TRACKING_USERNAME": "ana", "MLFLOW_TRACKING_PASSWORD": "secret"},
            f"Basic {base64.b64encode(b'ana:secret').decode()}",
        ),
    ],
)
def test_each_request_names_the_account(proxy, journal, monkeypatch, variables, expected):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    Upload(journal()).send()
    assert proxy.accounts == {expected}


def test_the_entry_points_of_the_project_are_commands_with_these_options():
    entries = yaml.safe_load((ROOT / "MLproject").read_text("utf-8"))["entry_points"]
    known = typer.main.get_command(app).commands
    assert {"main", "prepare", "crossval", "tune", "demo"} == set(entries)
    for entry in entries.values():
        program, command, *words = entry["command"].split()
        options = {option for parameter in known[command].params for option in parameter.opts}
        assert program == "watkins" and {word for word in words if word.startswith("-")} <= options
        fields = {field for _, field, _, _ in string.Formatter().parse(entry["command"]) if field}
        assert fields == set(entry.get("parameters", {}))


@pytest.mark.slow
def test_mlflow_runs_the_project(prepared, tmp_path, monkeypatch):
    """`mlflow run .` calls `watkins train`, which goes on with the run that MLflow has made."""
    project = tmp_path / "project"
    project.mkdir()
    for name in ("MLproject", "python_env.yaml", "constraints.txt"):
        shutil.copy(ROOT / name, project)
    store = f"sqlite:///{tmp_path}/store.db"
    settings = {"recipe": BASELINE, "data": prepared, "override": "train.epochs=1"}
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "run",
        project,
        "--env-manager",
        "local",
        "--experiment-name",
        "of mlflow",
    ]
    command += [part for key, value in settings.items() for part in ("-P", f"{key}={value}")]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{sys.prefix}/bin{os.pathsep}{os.environ['PATH']}",
    }
    said = forked.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    server = mlflow.MlflowClient(store, store)
    (run,) = server.search_runs([server.get_experiment_by_name("of mlflow").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["recipe"] == str(BASELINE)
    assert "test/macro_f1" in run.data.metrics and run.data.params["train.epochs"] == "1"
