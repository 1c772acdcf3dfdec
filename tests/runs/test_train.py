"""A whole run, and what is left of one that is cut off."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support import EXPERIMENTS, forked
from watkins_ml.cli.tables import print_run
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import cut_windows, load_side
from watkins_ml.evaluation.metrics import score
from watkins_ml.models.bundle import load_bundle, to_probabilities
from watkins_ml.models.scoring import cut_logits
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.training.monitor import best_epoch

RECIPE = EXPERIMENTS / "baseline.yaml"


@pytest.fixture
def training(prepared, tmp_path):
    """A function that starts `watkins train --run-dir run` as a process of its own."""
    processes = []

    def start(*overrides: str, **process: object) -> forked.Popen:
        wanted = (f"data.dir={prepared}", "data.batch_size=8", *overrides)
        command = [sys.executable, "-m", "watkins_ml", "train", str(RECIPE), "--run-dir", "run"]
        command += [part for override in wanted for part in ("-o", override)]
        started = forked.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **process
        )
        processes.append(started)
        return started

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def test_the_result_is_what_the_record_says(finished):
    assert finished.metrics == json.loads((finished.run_dir / "reports" / "metrics.json").read_text())
    assert {"best_epoch", "best_val_macro_f1", "test_accuracy", "test_ece"} <= finished.metrics.keys()
    controls = pd.read_csv(finished.run_dir / "reports" / "test_controls.csv").set_index("control")
    assert list(controls.index) == ["majority", "tape", "sample_rate", "duration", "rate_duration", "spectrum"]
    assert controls.title["rate_duration"] == "native sample rate and duration"
    for name, row in controls.iterrows():
        for quantity in ("accuracy", "macro_f1"):
            assert finished.metrics[f"control_{name}_{quantity}"] == pytest.approx(row[quantity], rel=1e-5)


def test_the_interval_the_kept_epoch_and_its_rule_are_printed_and_kept(finished, capsys):
    run = RunDirectory(finished.run_dir)
    told = json.loads((run.root / "reports" / "kept.json").read_text())
    epochs = len(run.read_history())
    rule = f"epoch {finished.metrics['best_epoch']} of {epochs}, by validation macro F1"
    assert told == {"epoch": finished.metrics["best_epoch"], "epochs": epochs, "monitor": "val_macro_f1", "kept": rule}
    print_run(run.root, finished.metrics)
    said = " ".join(capsys.readouterr().out.split())
    low, high = (100 * finished.metrics[f"test_macro_f1_{end}"] for end in ("low", "high"))
    tapes = pd.read_csv(run.root / "preds" / "test.csv").tape.nunique()
    assert f"Kept: {rule} (train.monitor)" in said and f"95 % intervals over {tapes} tapes: accuracy" in said
    assert f"macro F1 {finished.metrics['test_macro_f1']:.1%} ({low:.1f}–{high:.1f})" in said
    assert "This network is not above the best control by more than noise" in said


def test_the_control_with_audio_is_scored_on_validation_too(finished, prepared):
    data = read_prepared(prepared)
    for side, before in (("val", "best_val_"), ("test", "")):
        predicted = pd.read_csv(finished.run_dir / "preds" / f"{side}_controls.csv")
        assert predicted.path.tolist() == data.sides[side].path.tolist()
        right = (predicted.species == predicted.control_spectrum).mean()
        assert finished.metrics[f"{before}control_spectrum_accuracy"] == pytest.approx(right)
    assert (
        f"{finished.metrics['best_val_control_spectrum_macro_f1']:.5g}"
        in (finished.run_dir / "reports" / "val_controls.csv").read_text()
    )


def test_the_model_is_the_best_epoch_not_the_last(finished):
    run = RunDirectory(finished.run_dir)
    history = run.read_history()
    assert finished.metrics["best_epoch"] == best_epoch(history, "val_macro_f1")
    best = torch.load(run.checkpoints / "best.pt", weights_only=True)["model"]
    bundle = load_bundle(run.model)
    assert all(torch.equal(best[name], tensor) for name, tensor in bundle.network.state_dict().items())
    assert bundle.facts["best_val_macro_f1"] == finished.metrics["best_val_macro_f1"]


def test_the_temperature_is_of_validation_alone_and_stays_with_the_model(finished, prepared, fitted_temperatures):
    """Fitted again on validation from the kept model; the test split, fitted by itself, would give another one."""
    classifier = load_bundle(finished.run_dir / "model")
    fitted = fitted_temperatures(classifier, read_prepared(prepared))
    assert fitted["val"] != pytest.approx(fitted["test"], rel=1e-3)
    assert finished.metrics["temperature"] == pytest.approx(fitted["val"], rel=1e-4)
    assert classifier.temperature == finished.metrics["temperature"]


def test_the_reports_are_made_from_calibrated_probabilities(finished, prepared):
    data, classifier = read_prepared(prepared), load_bundle(finished.run_dir / "model")
    for side, kept in (("val", "best_val"), ("test", "test")):
        split = load_side(data, side)
        written = pd.read_csv(finished.run_dir / "preds" / f"{side}.csv").filter(like="p_")
        np.testing.assert_allclose(written, classifier.probabilities(cut_windows(data, split)), rtol=1e-3, atol=1e-6)
        plain = score(
            split.labels.numpy(),
            to_probabilities(cut_logits(classifier.network, cut_windows(data, split))),
            data.classes,
        )
        assert finished.metrics[f"{kept}_ece_uncalibrated"] == pytest.approx(plain["ece"], rel=1e-3)
        assert finished.metrics[f"{kept}_accuracy"] == plain["accuracy"]
        assert finished.metrics[f"{kept}_nll"] != pytest.approx(plain["nll"], rel=1e-3)


def test_the_threshold_of_validation_is_tried_on_test(finished):
    val, test = (pd.read_csv(finished.run_dir / "preds" / f"{side}.csv") for side in ("val", "test"))
    threshold = finished.metrics["threshold_90"]
    assert val.correct[val.confidence >= threshold * (1 - 1e-6)].mean() >= 0.9
    answered = test[test.confidence >= threshold]
    assert finished.metrics["test_coverage_at_threshold"] == pytest.approx(len(answered) / len(test))
    precision = finished.metrics.get("test_precision_at_threshold", np.nan)
    assert precision == pytest.approx(answered.correct.mean(), nan_ok=True)
    assert load_bundle(finished.run_dir / "model").facts["threshold_90"] == threshold


def test_a_tape_on_two_sides_is_refused_before_anything_is_written(recipe, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    train, test = (tmp_path / "data" / "annotations" / f"{side}.csv" for side in ("train", "test"))
    rows = train.read_text().splitlines()
    tape = test.read_text().splitlines()[1].split(",")[3]
    fields = rows[1].split(",")
    fields[3] = tape
    train.write_text("\n".join([rows[0], ",".join(fields), *rows[2:]]) + "\n")
    with pytest.raises(UserError, match=tape):
        run_experiment(recipe("baseline", f"data.dir={tmp_path / 'data'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_missing_spectrogram_is_named_before_anything_is_written(recipe, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data")
    gone = tmp_path / "data" / read_prepared(prepared).sides["train"]["spectrogram"][0]
    gone.unlink()
    with pytest.raises(UserError, match=f"{gone.name}: missing"):
        run_experiment(recipe("baseline", f"data.dir={tmp_path / 'data'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_failed_training_leaves_a_record_that_says_so(recipe, store, tmp_path, monkeypatch):
    def fails(*_):
        raise UserError("the loss is not a number in epoch 2")

    monkeypatch.setattr("watkins_ml.runs.train.fit", fails)
    with pytest.raises(UserError, match="not a number"):
        run_experiment(recipe("baseline"), tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    assert run.facts.status == run.entries()[-1].status == "FAILED"
    assert store.get_run(run.facts.mlflow_run_id).info.status == "FAILED"


@pytest.mark.slow
def test_a_full_disk_fails_in_one_line_with_a_sound_record(training, tmp_path):
    limit = 600_000  # bytes a file: room for the journal, not for a checkpoint
    nobody = os.environ | {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    process = training(
        env=nobody, limits={resource.RLIMIT_FSIZE: limit}
    )  # fmt: skip
    _, err = process.communicate(timeout=180)
    assert process.returncode == 1
    assert "Traceback" not in err
    said = last_line(err)
    assert said.startswith("watkins: cannot write to run: File too large")
    assert "make room and continue with: watkins train --resume run" in said
    assert err.count("watkins: ") == 1
    run = RunDirectory(tmp_path / "run")
    assert run.facts.status == run.entries()[-1].status == "FAILED"
    assert not list(run.root.rglob("*.partial"))
    assert not list(run.checkpoints.iterdir())


@pytest.mark.slow
def test_ctrl_c_marks_the_run_killed_here_and_in_mlflow(training, store, tmp_path):
    process = training("train.epochs=1000", "train.early_stopping_patience=1000")
    run = RunDirectory(tmp_path / "run")
    deadline = time.monotonic() + 120
    while not run.history.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert last_line(err) == "watkins: interrupted; continue with: watkins train --resume run"
    assert "Traceback" not in err
    assert run.facts.status == run.entries()[-1].status == "KILLED"
    tracked = client().get_run(run.facts.mlflow_run_id)
    assert tracked.info.status == "KILLED"
    points = client().get_metric_history(tracked.info.run_id, "train/loss")
    assert len(points) == len(run.read_history()) >= 1
