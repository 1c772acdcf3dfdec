"""`watkins train --resume`: what it refuses, and what it leaves alone."""

import json
import shutil

import pandas as pd
import pytest

from tests.support.commands import BASELINE, assert_one_line
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.checkpoints import Checkpoint, load_checkpoint, save_last
from watkins_ml.training.monitor import best_epoch


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
    (tags,) = [entry.values for entry in interrupted.entries() if entry.kind == "tags"]
    interrupted.journal.write_text(journal.replace(f'"threads": "{tags["threads"]}"', '"threads": "64"'))
    said = watkins("train", "runs/first/config.yaml", "--resume", "runs/first")
    assert said.status == 0, said.err
    assert "Resuming runs/first after epoch 3" in said.err
    assert interrupted.facts.status == "FINISHED"
    assert f"threads was 64, now {tags['threads']}: the history may end otherwise in its last digits" in said.err
    assert "version.torch was" not in said.err


@pytest.mark.slow
def test_a_run_of_an_earlier_version_goes_on_by_validation_loss_and_keeps_its_columns(watkins, recipe, store, tmp_path):
    """A run as that version left it after two epochs: without the key, and without the calibrated loss."""
    undisturbed, earlier = (RunDirectory(tmp_path / name) for name in ("undisturbed", "earlier"))
    config = recipe("baseline", "train.epochs=4", "train.monitor=val_loss", "tracking.register_as=null")
    run_experiment(config, undisturbed.root)
    run_experiment(config.model_copy(update={"train": config.train.model_copy(update={"epochs": 2})}), earlier.root)
    without = config.to_yaml().replace("  monitor: val_loss\n", "")
    (earlier.root / "config.yaml").write_text(without)
    before = ("start", "params", "tags", "datasets", "epoch")
    entries = [entry.model_dump(exclude_unset=True) for entry in earlier.entries() if entry.kind in before]
    for entry in entries:
        if entry["kind"] == "epoch":
            del entry["metrics"]["val_calibrated_loss"]
    earlier.journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    tensors, facts = load_checkpoint(earlier.checkpoints / "last.pt")
    for each in (facts, facts["best"]):
        del each["metrics"]["val_calibrated_loss"]
        each["best_val_loss"] = facts["best"]["metrics"]["val_loss"]
    save_last(earlier.checkpoints, Checkpoint(tensors, facts))
    earlier.metrics.unlink()
    earlier.update_facts(status="RUNNING")
    said = watkins("train", earlier.root / "config.yaml", "--resume", earlier.root)
    assert said.status == 0, said.err
    expected = undisturbed.read_history()
    assert list(earlier.read_history()) == [name for name in expected if name != "val_calibrated_loss"]
    pd.testing.assert_frame_equal(earlier.read_history(), expected.drop(columns="val_calibrated_loss"))
    best = best_epoch(expected, "val_loss")
    assert earlier.read_metrics()["best_epoch"] == undisturbed.read_metrics()["best_epoch"] == best
    assert f"Kept: epoch {best}, validation loss" in said.err
    assert_one_line(
        watkins("train", "--resume", earlier.root, "-o", "train.monitor=val_macro_f1"), 2,
        "train.monitor was val_loss, now val_macro_f1",
    )  # fmt: skip


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
        (["--resume", "a", "--run-dir", "b"], 2, "--resume is for an interrupted one"),
    ],
)
def test_a_resume_that_makes_no_sense_says_so(watkins, arguments, status, part):
    assert_one_line(watkins("train", *arguments), status, part)
