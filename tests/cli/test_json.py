"""`--json`: what a command prints is one JSON value with the numbers of the record."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.support.commands import BASELINE


@pytest.fixture
def project(finished, tmp_path, monkeypatch):
    """A project with a finished run and its registered model."""
    shutil.copytree(finished.folder, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


def result(said) -> object:
    assert said.status == 0, said.err

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(said.out, parse_constant=refuse)


def test_models_compare_and_evaluate(watkins, project, finished, prepared):
    (version,) = result(watkins("models", "--json"))
    assert version["name"] == "watkins-baseline"
    assert float(version["tags"]["best_val_macro_f1"]) == finished.metrics["best_val_macro_f1"]
    assert "watkins predict models:/watkins-baseline/1" in version["description"]
    run = finished.run_dir.relative_to(finished.folder)
    evaluated = result(watkins("evaluate", run, "--data", prepared, "--split", "test", "--json"))
    assert evaluated["metrics"]["macro_f1"] == pytest.approx(finished.metrics["test_macro_f1"])


@pytest.mark.slow
def test_a_training_and_its_comparison(watkins, store, prepared, tmp_path):
    small = [f"data.dir={prepared}", "data.batch_size=8", "train.epochs=1", "tracking.register_as=null"]
    options = [part for each in small for part in ("-o", each)]
    for name in ("a", "b"):
        trained = result(watkins("train", BASELINE, *options, "--name", name, "--json"))
        assert trained["run_dir"] == f"runs/{name}"
        kept = json.loads((tmp_path / "runs" / name / "reports" / "metrics.json").read_text())
        assert trained["metrics"] == {key: value if value == value else None for key, value in kept.items()}
    compared = result(watkins("compare", "runs/a", "runs/b", "--json"))
    assert set(compared["models"]) == {"Baseline a", "Baseline b"} and "macro F1" in compared["headline"]
    folds = result(watkins("crossval", BASELINE, *options, "--folds", "3", "--name", "folds", "--json"))
    assert [fold["fold"] for fold in folds["folds"]] == ["1", "2", "3"] and 0 <= folds["metrics"]["test_accuracy"] <= 1
