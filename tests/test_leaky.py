"""A random split is stamped wherever its numbers show."""

import json
import shutil
from pathlib import Path

import pytest

from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.runs.train import resume_experiment, run_experiment
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

STAMP = "leaky reference"


@pytest.fixture(scope="module")
def leaky(archive, recipe, empty_store, tmp_path_factory):
    """A folder in which a baseline was trained on a random split, the result and what the terminal said."""
    folder = tmp_path_factory.mktemp("leaky")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        patch.delenv("MLFLOW_TRACKING_URI")
        patch.chdir(folder)
        (folder / "mlflow").mkdir()
        shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
        prepare(archive, Path("data"), PrepareOptions(split="random", workers=1))
        config = recipe("baseline", "data.dir=data", "train.epochs=1")
        return folder, config, run_experiment(config, Path("run"))


@pytest.fixture
def here(leaky, monkeypatch):
    monkeypatch.chdir(leaky[0])


def test_metrics_on_disk_begin_with_the_sentence_and_are_read_as_numbers(leaky, here):
    *_, result = leaky
    written = json.loads(Path("run/reports/metrics.json").read_text())
    assert next(iter(written)) == "leaky_reference" and STAMP in written["leaky_reference"].lower()
    assert RunDirectory(Path("run")).read_metrics() == result.metrics
    assert {key: written[key] for key in result.metrics} == result.metrics


def test_mlflow_shows_it_on_the_page_of_the_run_and_of_the_version(leaky, here):
    server = client()
    facts = RunDirectory(Path("run")).facts.model_dump()
    tags = server.get_run(facts["mlflow_run_id"]).data.tags
    version = server.get_model_version("watkins-baseline", "1")
    for shown in (tags["leaky_reference"], tags["mlflow.note.content"], version.tags["leaky_reference"]):
        assert STAMP in shown.lower() and "random split" in shown


def test_the_terminal_shows_it_with_every_number(leaky, here, watkins, finished):
    assert f"random split ({STAMP})" in watkins("evaluate", "run", "--split", "test", "--out", "report").out
    assert f"random ({STAMP})" in watkins("models").out
    assert f"Baseline run ({STAMP})" in watkins("compare", "run", finished.run_dir).out
    again = watkins("train", "--resume", "run")
    assert again.status == 0 and f"random split ({STAMP})" in again.out


def test_an_evaluation_on_disk_has_it(leaky, here, watkins):
    watkins("evaluate", "run", "--split", "val", "--out", "other")
    written = json.loads(Path("other/reports/val_metrics.json").read_text())
    assert STAMP in written["leaky_reference"].lower()


def test_a_finished_leaky_run_is_resumed_with_its_numbers(leaky, here):
    _, config, result = leaky
    assert resume_experiment(Path("run"), config).metrics == result.metrics


def test_a_tape_split_is_not_stamped(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    tags = client().get_run(RunDirectory(finished.run_dir).facts.mlflow_run_id).data.tags
    assert "leaky_reference" not in tags and "mlflow.note.content" not in tags
