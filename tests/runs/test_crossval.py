"""A cross-validation as its user meets it: folds, pooled scores, the parent run and its children, going on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.metrics import accuracy_score, f1_score

from tests.support.registered import digests, held
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError
from watkins_ml.core.metric_names import on_server
from watkins_ml.dataset.folds import FoldRule
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.evaluation.page import write_page
from watkins_ml.evaluation.report import read_logits
from watkins_ml.evaluation.runs import ComparedRun
from watkins_ml.models.bundle import to_probabilities
from watkins_ml.runs.crossval import CrossValidation, cross_validate
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.training.monitor import best_epoch

pytestmark = pytest.mark.slow  # seven trainings with their reports
RULE = FoldRule(3)
TESTABLE = ["FinWhale", "Risso'sDolphin", "Short_Finned(Pacific)PilotWhale"]


@pytest.fixture(scope="module")
def folder(empty_store, tmp_path_factory) -> Path:
    """A working folder with an embedded store, which the tests here share."""
    folder = tmp_path_factory.mktemp("crossval")
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    return folder


@pytest.fixture(scope="module")
def recordings(archive, folder) -> Path:
    """Three species on four tapes each, and one that has a single tape."""
    ocean = shutil.copytree(archive, folder / "ocean")
    (ocean / "Tucuxi").mkdir()
    for cut in range(10):
        whistle = np.sin(np.arange(3_200) * 1.7) + np.random.default_rng(cut).normal(0, 0.2, 3_200)
        soundfile.write(ocean / "Tucuxi" / f"09000{cut:03d}.wav", whistle / 3, 8_000)
    prepare(ocean, folder / "data", PrepareOptions(workers=1, frontend=FrontendSettings(n_mels=32, frames=100)))
    return folder / "data"


@pytest.fixture(scope="module")
def settings(recipe, recordings):
    """A function that gives the small recipe on these recordings."""

    def load(*overrides: str):
        return recipe("baseline", "tracking.experiment=folds", f"data.dir={recordings}", *overrides)

    return load


@pytest.fixture(scope="module")
def validated(settings, folder) -> CrossValidation:
    with at_work_in(folder):
        return cross_validate(settings(), RULE, folder / "runs" / "folds")


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow/mlflow.db")
        yield


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"path": str, "tape": str, "fold": str}, keep_default_na=False)


def test_every_testable_cut_is_judged_once_as_its_fold_did(validated, recordings):
    pooled = table(validated.run_dir / "preds" / "test.csv")
    everything = table(recordings / "annotations" / "audio_annotations.csv")
    assert validated.untestable == {"Tucuxi": "one tape only"}
    assert sorted(pooled["path"]) == sorted(everything.loc[everything["species"] != "Tucuxi", "path"])
    folds = [run.parent for run in sorted(validated.run_dir.glob("*/run.json"))]
    assert [fold.name for fold in folds] == ["fold-1", "fold-2", "fold-3"]
    for fold in folds:
        own = table(fold / "preds" / "test.csv")
        columns = [name for name in own if name.startswith("p_")]
        merged = own.merge(pooled, on="path", suffixes=("", "_pooled"))
        assert len(merged) == len(own)
        for name in columns:
            np.testing.assert_allclose(merged[name], merged[f"{name}_pooled"], atol=1e-5)
        heard = set(table(fold / "preds" / "val.csv")["tape"])
        assert not heard & set(own["tape"])


def test_the_pooled_scores_are_those_of_the_pooled_predictions(validated):
    pooled, metrics = table(validated.run_dir / "preds" / "test.csv"), validated.metrics
    assert metrics["test_accuracy"] == pytest.approx(accuracy_score(pooled["species"], pooled["predicted"]))
    assert metrics["test_macro_f1"] == pytest.approx(
        f1_score(pooled["species"], pooled["predicted"], average="macro", zero_division=0, labels=TESTABLE)
    )
    for quantity in ("accuracy", "macro_f1"):
        low, high = (metrics[f"test_{quantity}_{end}"] for end in ("low", "high"))
        assert 0 <= low <= metrics[f"test_{quantity}"] <= high <= 1
    assert 0 <= metrics["control_tape_accuracy"] < 0.5, "no tape of a test cut has been seen, so nothing to look up"
    assert {"test_ece", "test_ece_uncalibrated", "test_coverage_at_threshold"} <= set(metrics)
    controls = table(validated.run_dir / "preds" / "test_controls.csv")
    assert controls["path"].tolist() == pooled["path"].tolist()
    assert metrics["control_spectrum_accuracy"] == pytest.approx(
        (controls["control_spectrum"] == controls["species"]).mean()
    )
    of_folds = [table(validated.run_dir / f"fold-{n}" / "preds" / "test_controls.csv") for n in (1, 2, 3)]
    assert pd.concat(of_folds)["control_spectrum"].tolist() == controls["control_spectrum"].tolist(), (
        "fitted anew for each fold"
    )
    per_fold = [
        json.loads((validated.run_dir / f"fold-{n}" / "reports" / "metrics.json").read_text()) for n in (1, 2, 3)
    ]
    assert list(validated.by_fold["test_accuracy"]) == pytest.approx([each["test_accuracy"] for each in per_fold])
    histories = [RunDirectory(validated.run_dir / f"fold-{fold}").read_history() for fold in validated.by_fold["fold"]]
    assert list(validated.by_fold["best_epoch"]) == [best_epoch(each, "val_macro_f1") for each in histories]
    weighted = (validated.by_fold["test_accuracy"] * validated.by_fold["test"]).sum() / validated.by_fold["test"].sum()
    assert metrics["test_accuracy"] == pytest.approx(weighted)


def test_mlflow_has_a_parent_with_the_pooled_scores_and_a_run_a_fold(validated, folder):
    with at_work_in(folder):
        store = client()
        experiment = store.get_experiment_by_name("folds").experiment_id
        runs = {run.info.run_name: run for run in store.search_runs([experiment], "run_name LIKE '%folds'")}
        assert set(runs) == {"folds", *(f"fold {n} of 3, folds" for n in (1, 2, 3))}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        parent = runs.pop("folds")
        assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
        assert {run.data.tags["watkins.fold"] for run in runs.values()} == {"1", "2", "3"}
        for key, value in validated.metrics.items():
            assert parent.data.metrics[on_server(key)] == pytest.approx(value)
        steps = store.get_metric_history(parent.info.run_id, "fold/test_accuracy")
        assert [point.value for point in steps] == list(validated.by_fold["test_accuracy"])
        assert parent.data.params["crossval.count"] == "3"
        artifacts = {artifact.path for artifact in store.list_artifacts(parent.info.run_id)}
        assert {"reports", "preds", "plots", "galleries", "history.csv"} <= artifacts
        assert store.search_registered_models() == [], "a fold's network has not heard everything: none is for use"


def test_the_same_command_again_trains_nothing(validated, settings, folder):
    before = {path: path.stat().st_mtime_ns for path in validated.run_dir.glob("*/checkpoints/*")}
    with at_work_in(folder):
        again = cross_validate(settings(), RULE, validated.run_dir)
    assert again.metrics == validated.metrics and again.by_fold.equals(validated.by_fold)
    assert before == {path: path.stat().st_mtime_ns for path in validated.run_dir.glob("*/checkpoints/*")}


@pytest.mark.parametrize(
    ("overrides", "rule", "said"),
    [
        (["optim.lr=0.5"], RULE, "optim.lr was 0.002, now 0.5"),
        ([], FoldRule(3, seed=1), "seed was 0, now 1"),
        ([], FoldRule(regex=r"^\d\d00([0-3])"), "regex was None, now"),
    ],
)
def test_another_recipe_or_other_folds_are_refused_with_the_difference(validated, settings, overrides, rule, said):
    kept = sorted(validated.run_dir.rglob("*"))
    with pytest.raises(UsageError, match="holds a cross-validation that differs") as error:
        cross_validate(settings(*overrides), rule, validated.run_dir)
    assert said in str(error.value) and "give another --name" in str(error.value)
    assert kept == sorted(validated.run_dir.rglob("*"))


def test_one_of_an_earlier_version_is_shown_again_by_its_own_rule(validated, settings, folder):
    """Its configuration has no `train.monitor`: it kept networks by the validation loss."""
    earlier = Path(shutil.copytree(validated.run_dir, folder / "runs" / "earlier"))
    kept = earlier / "config.yaml"
    kept.write_text(kept.read_text().replace("  monitor: val_macro_f1\n", ""))
    with at_work_in(folder):
        with pytest.raises(UsageError, match=r"train\.monitor was val_loss, now val_macro_f1.*change it back"):
            cross_validate(settings(), RULE, earlier)
        again = cross_validate(settings("train.monitor=val_loss"), RULE, earlier)
    assert again.metrics == validated.metrics
    history = pd.read_csv(earlier / "history.csv")
    for run_dir, rule in ((earlier, "val_loss"), (validated.run_dir, "val_macro_f1")):
        assert ComparedRun.from_dir(run_dir, "x").best_epoch == best_epoch(history, rule)


def test_pooled_are_the_folds_own_logits_each_with_its_temperature(validated, recordings):
    data = read_prepared(recordings)
    for fold in (1, 2, 3):
        run = validated.run_dir / f"fold-{fold}"
        own, pooled = table(run / "preds" / "test.csv"), table(validated.run_dir / "preds" / "test.csv")
        logits = read_logits(run, "test", (len(own), len(data.classes)))
        everything = read_logits(validated.run_dir, "test", (len(pooled), len(data.classes)))
        assert np.array_equal(everything[pd.Index(pooled["path"]).get_indexer(own["path"])], logits)
        temperature = RunDirectory(run).read_metrics()["temperature"]
        probabilities = to_probabilities(torch.from_numpy(logits), temperature)
        np.testing.assert_allclose(own[[f"p_{name}" for name in data.classes]], probabilities, rtol=1e-5, atol=1e-12)


def test_folds_that_an_earlier_version_trained_are_pooled_from_their_predictions(validated, settings, folder):
    """It stored no logits, and called what the kept network scored on validation `val_*`."""
    earlier = Path(shutil.copytree(validated.run_dir, folder / "runs" / "begun"))
    for fold in earlier.glob("fold-*"):
        for path in fold.glob("preds/*.npy"):
            path.unlink()
        metrics = fold / "reports" / "metrics.json"
        metrics.write_text(metrics.read_text().replace('"best_val_', '"val_'))
    RunDirectory(earlier).update_facts(status="KILLED")
    with at_work_in(folder):
        again = cross_validate(settings(), RULE, earlier)
    assert again.by_fold.equals(validated.by_fold)
    assert again.metrics == pytest.approx(validated.metrics, rel=1e-4)
    assert again.metrics["test_nll"] != validated.metrics["test_nll"], "the probabilities are rounded to six digits"


def test_a_table_of_folds_of_an_earlier_version_is_read(validated, settings, folder):
    earlier = Path(shutil.copytree(validated.run_dir, folder / "runs" / "table"))
    path = earlier / "reports" / "folds.csv"
    path.write_text(path.read_text().replace("best_val_macro_f1", "val_macro_f1"))
    with at_work_in(folder):
        assert cross_validate(settings(), RULE, earlier).by_fold.equals(validated.by_fold)


def test_the_leaky_reference_is_stamped_and_rewards_looking_up_the_tape(validated, settings, folder):
    with at_work_in(folder):
        quick = settings("train.epochs=1")
        leaky = cross_validate(quick, FoldRule(3, "random"), folder / "runs" / "leaky")
        store = client()
        experiment = store.get_experiment_by_name("folds").experiment_id
        stamped = {run.info.run_name for run in store.search_runs([experiment]) if "leaky_reference" in run.data.tags}
    assert stamped == {"leaky", *(f"fold {n} of 3, leaky" for n in (1, 2, 3))}
    facts = [json.loads((run.run_dir / "run.json").read_text()) for run in (validated, leaky)]
    assert [each["split_protocol"] for each in facts] == ["tape", "random"]
    assert facts[0]["data_digest"] != facts[1]["data_digest"]
    assert leaky.metrics["control_tape_accuracy"] > 0.8 > validated.metrics["control_tape_accuracy"]


@pytest.mark.parametrize("lost", [1, 2])
def test_a_parent_killed_before_its_last_words_is_closed_by_the_same_command(validated, settings, folder, lost):
    """The journal without its last entries, and the facts as they stand between the two writes."""
    run = RunDirectory(validated.run_dir)
    lines = run.journal.read_bytes().splitlines(keepends=True)
    assert run.entries()[-1].kind == "end"
    run.journal.write_bytes(b"".join(lines[:-lost]))
    run_id = run.facts.mlflow_run_id
    (run.root / "upload.json").unlink()
    with at_work_in(folder):
        client().update_run(run_id, status="RUNNING")
        again = cross_validate(settings(), RULE, validated.run_dir)
        assert client().get_run(run_id).info.status == "FINISHED"
    assert (run.entries()[-1].kind, run.entries()[-1].status) == ("end", "FINISHED")
    assert again.metrics == validated.metrics


def test_a_folder_of_something_else_is_left_alone(recipe, store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("whales")
    with pytest.raises(UsageError, match="mine: exists and is no cross-validation; give another --name"):
        cross_validate(recipe(), RULE, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    assert client().get_experiment_by_name("watkins") is None


def test_the_page_of_a_cross_validation_says_that_its_scores_are_pooled(validated, tmp_path):
    run = ComparedRun.from_dir(validated.run_dir, "Baseline")
    write_page([run], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    folds = len(validated.by_fold)
    assert f"pooled over {folds} folds." in page and "on the test split" not in page
    assert "data:audio/mpeg;base64," in page
    assert run.species_in_data()["not_tested"].to_dict() == dict.fromkeys(TESTABLE, "") | validated.untestable
    assert "Tucuxi" in page and "one tape only" in page


def test_the_model_of_each_fold_in_mlflow_is_the_folds_own(validated, folder, monkeypatch):
    monkeypatch.chdir(folder)
    client()
    for number in (1, 2, 3):
        fold = RunDirectory(validated.run_dir / f"fold-{number}")
        assert held(f"runs:/{fold.facts.mlflow_run_id}/model") == digests(fold.model)
        assert "novelty.pt" in digests(fold.model)
