"""`watkins train --resume`: what it refuses, and what it leaves alone."""

import json
import shutil

import pytest
from test_commands import BASELINE, assert_one_line

from watkins_ml.tracking.rundir import RunDirectory


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A copy of the finished project, to be changed."""
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    monkeypatch.chdir(folder)
    return RunDirectory(folder / "runs" / "first")


@pytest.fixture
def interrupted(project):
    """The finished run as if it had been killed while it wrote its reports."""
    lines = project.journal.read_text().splitlines(keepends=True)
    project.journal.write_text("".join(lines[:-4]))
    project.update_facts(status="RUNNING")
    return project


def everything(run: RunDirectory) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in run.root.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lr=0.1", ["optim.lr was 0.002, now 0.1"]),
        ("train.epochs=30", ["train.epochs was 3, now 30"]),
        ("model.dropout=0.5", ["model.dropout was 0.3, now 0.5", "start a new run"]),
    ],
)
def test_a_changed_configuration_is_refused_with_the_key_and_both_values(watkins, interrupted, override, parts):
    before = everything(interrupted)
    assert_one_line(watkins("train", "--resume", "runs/first", "-o", override), 2, *parts)
    assert everything(interrupted) == before


def test_a_recipe_given_again_is_compared_too_and_every_differing_key_is_named(watkins, interrupted):
    said = watkins("train", BASELINE, "--resume", "runs/first")
    assert_one_line(said, 2, "data.batch_size was 8, now 32", "data.dir was", "train.epochs was 3, now 10")


@pytest.mark.slow
def test_the_same_configuration_given_again_is_taken_and_another_number_of_threads_said(watkins, interrupted):
    journal = interrupted.journal.read_text()
    (tags,) = [entry["values"] for entry in interrupted.entries() if entry["kind"] == "tags"]
    interrupted.journal.write_text(journal.replace(f'"threads": "{tags["threads"]}"', '"threads": "64"'))
    said = watkins("train", "runs/first/config.yaml", "--resume", "runs/first")
    assert said.status == 0, said.err
    assert "Resuming runs/first after epoch 3" in said.err
    assert interrupted.facts["status"] == "FINISHED"
    assert f"threads was 64, now {tags['threads']}: the history may end otherwise in its last digits" in said.err
    assert "version.torch was" not in said.err


def test_data_prepared_anew_are_refused(watkins, interrupted):
    interrupted.update_facts(data_digest="another")
    before = everything(interrupted)
    assert_one_line(watkins("train", "--resume", "runs/first"), 1, "prepared anew since runs/first began", "another")
    assert everything(interrupted) == before


def test_a_finished_run_is_left_as_it_is(watkins, finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    project = RunDirectory(finished.run_dir)
    before = everything(project)
    said = watkins("train", "--resume", "runs/first")
    assert said.status == 0
    assert "this run has finished" in said.err
    assert f"{json.loads(project.metrics.read_text())['test_macro_f1']:.3f}" in said.out
    assert everything(project) == before


def test_a_damaged_run_json_is_named(watkins, project):
    project.facts_file.write_text("{")
    assert_one_line(watkins("train", "--resume", "runs/first"), 1, "runs/first: not a run directory", "run.json")


@pytest.mark.parametrize(
    ("arguments", "status", "part"),
    [
        (["--resume", "nowhere"], 1, "--resume nowhere: not a run directory (it has no run.json)"),
        ([], 2, "name a recipe, for example experiments/baseline.yaml, or an interrupted run with --resume"),
        (["--resume", "a", "--run-dir", "b"], 2, "--run-dir is for a new run, --resume for an interrupted one"),
    ],
)
def test_a_resume_that_makes_no_sense_says_so(watkins, arguments, status, part):
    assert_one_line(watkins("train", *arguments), status, part)
