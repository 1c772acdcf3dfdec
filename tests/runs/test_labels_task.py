"""The task `labels` from training to use: one small model that answers any number of species."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.conftest import copy_store, without_server
from tests.support.commands import assert_one_line
from tests.support.duets import FRONTEND, write_duets
from watkins_ml.annotations.collect import AnnotationOptions
from watkins_ml.dataset.annotated import AnnotatedOptions, prepare_annotated
from watkins_ml.dataset.folds import FoldRule
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.dataset.targets import LABELS
from watkins_ml.dataset.windowing import WindowRule
from watkins_ml.evaluation.page.render import write_page
from watkins_ml.evaluation.runs import ComparedRun
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.detections import DetectionOptions
from watkins_ml.inference.evaluate import evaluate_model
from watkins_ml.inference.export import export_model
from watkins_ml.inference.pipeline import predict_recordings
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import load_bundle
from watkins_ml.runs.crossval import cross_validate
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking import registry
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.slow
SMALL = ("train.epochs=5", "optim.lr=0.003", "data.batch_size=16", "augment.time_roll=false")


@pytest.fixture(scope="module")
def sea(tmp_path_factory) -> Path:
    """`sea/audio`, and `data` prepared for any number of species a window. Read only."""
    folder = tmp_path_factory.mktemp("labels")
    write_duets(folder / "sea")
    options = PrepareOptions(workers=1, min_clips=3, frontend=FRONTEND, task=LABELS)
    given = AnnotatedOptions(AnnotationOptions(reviewed="all"), WindowRule(background_ratio=100.0))
    prepare_annotated(folder / "sea" / "audio", folder / "sea" / "calls.csv", folder / "data", options, given)
    return folder


@pytest.fixture(scope="module")
def run(sea, recipe, empty_store, tmp_path_factory) -> RunDirectory:
    """A baseline trained, tracked and registered on it. Read only; change into its folder."""
    folder = copy_store(empty_store, tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        without_server(patch)
        patch.chdir(folder)
        result = run_experiment(recipe("baseline", f"data.dir={sea / 'data'}", *SMALL), Path("runs/both"))
        registry.promote(client(), "watkins-baseline/1")
    return RunDirectory(folder / result.run_dir)


def test_it_learns_both_species_alone_and_together_and_says_how_well(run):
    metrics = run.read_metrics()
    assert metrics["test_macro_ap"] > 0.95 and metrics["test_macro_f1"] > 0.85
    assert metrics["test_macro_ap_low"] <= metrics["test_macro_ap"] <= metrics["test_macro_ap_high"]
    assert {"control_spectrum_macro_f1", "control_majority_macro_f1", "best_val_macro_ap"} <= set(metrics)
    table = pd.read_csv(run.root / "preds" / "test.csv", dtype={"targets": str, "answers": str})
    together = table[table["targets"] == "11"]
    assert len(together) and (together["answers"] == "11").mean() > 0.7
    assert (table[table["targets"] == "00"]["predicted"] == "background").mean() > 0.7
    assert run.facts.task == LABELS
    for name in ("plots/test_precision_recall.png", "plots/test_reliability.png", "galleries/test_random.png"):
        assert (run.root / name).is_file()


def test_what_is_kept_answers_as_the_report_does(run, sea, tmp_path, monkeypatch):
    monkeypatch.chdir(run.root.parents[1])
    scores, _ = evaluate_model("models:/watkins-baseline@champion", sea / "data", "test", tmp_path)
    for name in ("macro_ap", "macro_f1", "nll"):
        assert scores[name] == pytest.approx(run.read_metrics()[f"test_{name}"], abs=1e-6)
    assert scores["control_spectrum_macro_f1"] == pytest.approx(run.read_metrics()["control_spectrum_macro_f1"])


def test_files_and_detections_over_time_agree(run, sea):
    classifier = load_bundle(run.model)
    assert classifier.thresholds is not None
    files = sorted((sea / "sea" / "audio").glob("*.wav"))[:3]
    by_file = predict_files(classifier, files, top=2)
    thresholds = dict(zip(classifier.classes, classifier.label_thresholds, strict=True))
    options = DetectionOptions(min_confidence=min(thresholds.values()), top=2)
    found = predict_recordings(classifier, files, options, WindowOptions()).rows
    for path, rows in by_file.groupby("path"):
        surest = found[found["path"] == path].groupby("species")["probability"].max()
        wanted = {name: value for name, value in surest.items() if value >= thresholds[name]}
        assert dict(zip(rows["species"], rows["probability"], strict=True)) == pytest.approx(wanted, abs=1e-6)


def test_a_file_without_any_call_is_background_and_none_is_not_one_of_all(run, sea, tmp_path):
    classifier = load_bundle(run.model)
    quiet = tmp_path / "quiet.wav"
    sound, rate = soundfile.read(sea / "sea" / "audio" / "duet0.wav")
    soundfile.write(quiet, sound[: int(0.9 * rate)], rate)
    rows = predict_files(classifier, [quiet], max_novelty=np.inf)
    assert rows["species"].tolist() == ["background"] and rows["probability"].isna().all()


def test_it_is_served_with_all_that_is_there(run, sea, tmp_path, monkeypatch):
    monkeypatch.chdir(run.root.parents[1])
    sound, rate = soundfile.read(sea / "sea" / "audio" / "duet0.wav")
    shift = pd.read_csv(sea / "sea" / "calls.csv")["start_s"].iloc[0] - 1
    begins = {"Orca": 1.5 + shift, "Orca + Walrus": 10.4 + shift, "background": 18.5}
    for number, start in enumerate(begins.values()):
        soundfile.write(tmp_path / f"{number}.wav", sound[int(start * rate) :][: FRONTEND.samples], rate)
    table = pd.DataFrame({"audio": [(tmp_path / f"{number}.wav").read_bytes() for number in range(3)]})
    answers = mlflow.pyfunc.load_model("models:/watkins-baseline@champion").predict(table)
    assert answers["species"].tolist() == list(begins)
    assert sum(answers["probabilities"][1].values()) > 1.2  # each species has its own


def test_an_exported_file_gives_each_species_its_own_probability(run, tmp_path):
    import onnxruntime

    exported = export_model(str(run.root), tmp_path / "both.onnx")
    about = onnxruntime.InferenceSession(exported.path).get_modelmeta().custom_metadata_map
    assert exported.probabilities < 1e-4 and about["task"] == LABELS and "the highest probability" in about["recipe"]


def test_folds_are_pooled_with_the_thresholds_of_each(sea, recipe, empty_store, tmp_path, monkeypatch):
    monkeypatch.chdir(copy_store(empty_store, tmp_path))
    few = ("train.epochs=2", "optim.lr=0.003", "data.batch_size=16")
    result = cross_validate(recipe("baseline", f"data.dir={sea / 'data'}", *few), FoldRule(3), Path("runs/folds"))
    table = pd.read_csv("runs/folds/preds/test.csv", dtype={"targets": str, "answers": str})
    read = [pd.read_csv(f"runs/folds/annotations/{side}.csv") for side in ()]
    assert not read and len(table) == len(set(table["path"]))
    thresholds = {
        number: json.loads(Path(f"runs/folds/fold-{number}/reports/thresholds.json").read_text())
        for number in (1, 2, 3)
    }
    for number, of in thresholds.items():
        fold = pd.read_csv(f"runs/folds/fold-{number}/preds/test.csv", dtype={"answers": str}).set_index("path")
        pooled = table.set_index("path").loc[fold.index]
        assert pooled["answers"].tolist() == fold["answers"].tolist() and set(of) == {"Orca", "Walrus"}
    assert {"test_macro_ap_low", "test_macro_f1", "control_spectrum_macro_f1"} <= set(result.metrics)


def test_its_page_shows_curves_and_no_confusion_matrix(run, tmp_path):
    html = write_page([ComparedRun.from_dir(run.root, "Both")], tmp_path / "page.html")
    assert "Precision and recall" in html and "mean average precision" in html
    assert 'id="confusion"' not in html and "Most confused pairs" in html


def test_models_and_data_of_different_tasks_are_not_mixed(run, sea, finished, prepared, watkins, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = watkins("evaluate", finished.run_dir, "--data", sea / "data", "--out", "out")
    assert_one_line(said, 1, "data: prepared")
    others = watkins("evaluate", run.root, "--data", prepared, "--out", "out")
    assert others.status == 1 and not Path("out/reports").exists()
    both = watkins("ensemble", run.root, run.root, "--name", "two", "--data", sea / "data")
    assert both.status != 0 and not Path("runs/two").exists()


def test_a_head_that_compares_single_species_is_refused_before_anything_is_written(
    archive, watkins, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    frontend = PrepareOptions().frontend
    prepare(archive, tmp_path / "data", PrepareOptions(workers=1, frontend=frontend, task=LABELS))
    given = ("-o", "model.weights=none", "-o", "data.dir=data")
    said = watkins("train", Path(__file__).parents[2] / "experiments" / "efficientnet-tapes.yaml", *given)
    assert_one_line(said, 1, "model.head prototypes: compares recordings of one species each")
    assert not Path("runs").exists()


def test_a_package_that_knows_no_labels_does_not_take_it_for_a_model_of_species(run, tmp_path):
    shutil.copytree(run.model, tmp_path / "model")
    file = tmp_path / "model" / "model.json"
    content = json.loads(file.read_text())
    assert content["format"] == 2  # earlier versions say that a newer one is needed
    file.write_text(json.dumps(content | {"task": "species"}))
    with pytest.raises(Exception, match="model format 2 of the task species"):
        load_bundle(tmp_path / "model")
