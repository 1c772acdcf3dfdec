"""The same tracking against a real `mlflow server` process over HTTP."""

import json
import os
import sys
import time

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException

from tests.support import EXPERIMENTS, forked
from watkins_ml.models.bundle import load_bundle
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking import registry
from watkins_ml.tracking.faults import diagnose
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client, embedded_uri, tracking_uri
from watkins_ml.tracking.upload import Upload
from watkins_ml.tracking.uploader import Uploader

RECIPE = EXPERIMENTS / "baseline.yaml"


def assert_complete(server, run: RunDirectory, epochs: int, name: str) -> None:
    """The MLflow run, its model and its registered version are what the run directory says."""
    tracked = server.get_run(run.facts.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["train.epochs"] == str(epochs)
    assert tracked.data.tags["data_digest"] == run.facts.data_digest
    for key in ("train/loss", "val/loss", "val/macro_f1", "time/epoch_seconds"):
        points = server.get_metric_history(tracked.info.run_id, key)
        assert sorted(point.step for point in points) == list(range(1, epochs + 1)), key
    measured = [entry.time_ms for entry in run.entries() if entry.kind == "epoch"]
    points = server.get_metric_history(tracked.info.run_id, "train/loss")
    assert sorted(point.timestamp for point in points) == measured
    assert {each.dataset.name for each in tracked.inputs.dataset_inputs} == {"train", "val", "test"}
    top = {each.path for each in server.list_artifacts(tracked.info.run_id)}
    assert {
        "config.yaml",
        "history.csv",
        "reports",
        "preds",
        "misclassified",
        "galleries",
        "plots",
        "checkpoints",
    } <= top
    assert len(tracked.outputs.model_outputs) == 1
    (version,) = server.search_model_versions(f"name='{name}'")
    assert version.run_id == tracked.info.run_id
    holder = registry.champion(server, name)
    assert (holder is not None and holder.version == version.version) != registry.is_beaten(version)


@pytest.mark.slow
def test_a_run_over_http_is_complete_with_one_metrics_batch_an_epoch(proxy, recipe, tmp_path, monkeypatch, archive):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    result = run_experiment(recipe("baseline", "tracking.register_as=over-http"), tmp_path / "live")
    run = RunDirectory(result.run_dir)
    batches = proxy.metric_batches()
    *of_epochs, final, of_model = batches  # the last gives the final ones to the logged model too
    assert [{metric["step"] for metric in batch} for batch in batches] == [{1}, {2}, {0}, {0}]
    assert not [metric for batch in of_epochs for metric in batch if metric["key"] == "test/accuracy"]
    keys = [{metric["key"] for metric in batch} for batch in (final, of_model)]
    assert "test/accuracy" in keys[0] and keys[0] == keys[1] and all(metric["model_id"] for metric in of_model)
    assert_complete(client(), run, epochs=2, name="over-http")

    # the registered model, in a process that knows nothing but MLflow and the recording
    recording = next(archive.rglob("*.wav"))
    program = f"""
import json, mlflow, pandas, pathlib
model = mlflow.pyfunc.load_model("models:/over-http/1")
answer = model.predict(pandas.DataFrame({{"audio": [pathlib.Path({str(recording)!r}).read_bytes()]}}))
print(json.dumps(answer.iloc[0].to_dict()))
"""
    said = forked.run(
        [sys.executable, "-c", program], fresh=True, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    answer = json.loads(said.stdout.splitlines()[-1])
    bundle = load_bundle(run.model)
    (expected,) = bundle.classify([recording])
    assert list(answer["probabilities"]) == bundle.classes
    np.testing.assert_allclose(list(answer["probabilities"].values()), expected, rtol=1e-5)
    assert answer["species"] == bundle.classes[expected.argmax()]
    assert answer["probability"] == pytest.approx(expected.max(), rel=1e-5)


@pytest.mark.slow
def test_a_run_without_a_server_finishes_and_a_later_sync_completes_it(
    proxy, nobody_listens, prepared, tmp_path, watkins, monkeypatch
):
    overrides = [f"data.dir={prepared}", "data.batch_size=8", "train.epochs=2", "tracking.register_as=synced"]
    command = [sys.executable, "-m", "watkins_ml", "train", RECIPE, "--run-dir", "away"]
    command += [part for override in overrides for part in ("-o", override)]
    environment = os.environ | {"MLFLOW_TRACKING_URI": nobody_listens, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    said = forked.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("Tracking server") == 1
    assert "watkins sync away" in said.stderr
    assert "Traceback" not in said.stderr
    run = RunDirectory(tmp_path / "away")
    assert run.facts.status == "FINISHED"
    assert not (tmp_path / "mlflow").exists()

    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    entries = len(run.entries())
    first = watkins("sync", "away")
    assert (first.status, f"{entries} of {entries} entries sent" in first.out) == (0, True), first.err
    assert "synced version 1" in first.out
    server = client()
    assert_complete(server, run, epochs=2, name="synced")

    proxy.requests.clear()
    second = watkins("sync", "away")
    assert (second.status, second.out) == (0, "nothing to send for 1 run\n")
    assert [(method, path.partition("?")[0]) for method, path, _ in proxy.requests] == [
        ("GET", "/api/2.0/mlflow/runs/get")  # is it still there?
    ]


def test_a_server_that_goes_away_in_mid_run_costs_nothing(proxy, journal, impatient, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    run = journal(experiment="interrupted")
    with Uploader(run):
        run.epoch({"epoch": 1, "train_loss": 1.0}, {"epoch": 1, "epoch_seconds": 1.0})
        deadline = time.monotonic() + 60
        while not proxy.metric_batches() and time.monotonic() < deadline:
            time.sleep(0.05)
        proxy.down = True
        for epoch in (2, 3):
            run.epoch({"epoch": epoch, "train_loss": 1 / epoch}, {"epoch": epoch, "epoch_seconds": 1.0})
        run.finish("FINISHED")
    assert capsys.readouterr().err.count("Tracking server") == 1
    proxy.down = False
    server = client()
    assert server.get_run(run.facts.mlflow_run_id).info.status == "RUNNING"
    Upload(run).send()
    tracked = server.get_run(run.facts.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    points = server.get_metric_history(tracked.info.run_id, "train/loss")
    assert sorted((point.step, point.value) for point in points) == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(proxy.metric_batches()) == 3


def test_two_workers_that_start_together_share_one_experiment(server, journal, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    runs = [journal(name, experiment="together") for name in ("a", "b", "c")]
    uploaders = [Uploader(run) for run in runs]
    for uploader in uploaders:
        uploader.__enter__()
    for run in runs:
        run.finish("FINISHED")
    for uploader in uploaders:
        uploader.__exit__()
    experiment = client().get_experiment_by_name("together").experiment_id
    found = client().search_runs([experiment])
    assert {run.info.run_name for run in found} == {"a", "b", "c"}
    assert {run.info.status for run in found} == {"FINISHED"}


def test_sync_says_in_one_line_that_the_server_is_away(journal, nobody_listens, impatient, monkeypatch, watkins):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody_listens)
    said = watkins("sync", journal().root)
    assert said.status == 1
    assert said.err.count("\n") == 1
    assert f"not sent to {nobody_listens}" in said.err


def test_the_embedded_store_is_the_default_and_the_environment_overrules_it(tmp_path, monkeypatch):
    assert tracking_uri() == embedded_uri() == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri() == "http://127.0.0.1:5000"


def test_the_client_becomes_the_default_of_mlflows_own_functions(store):
    assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == tracking_uri()


@pytest.mark.parametrize(
    ("fault", "said"),
    [("down", "it drops connections"), ("broken", "it answers 500"), ("hangs", "no answer in time")],
)
def test_a_faulty_server_is_described_in_a_few_words(proxy, impatient, monkeypatch, fault, said):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    setattr(proxy, fault, True)
    with pytest.raises(MlflowException) as error:
        client().get_experiment_by_name("sea")
    assert diagnose(error.value, tracking_uri()).words == said


def test_an_absent_server_is_described_in_a_few_words(nobody_listens, impatient, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody_listens)
    with pytest.raises(MlflowException) as error:
        client().get_experiment_by_name("sea")
    assert str(diagnose(error.value, tracking_uri())) == "it refuses connections"
    assert str(diagnose(ValueError("something else\nentirely"), nobody_listens)) == "something else"


def test_a_second_server_on_a_port_is_refused_before_it_makes_anything(server, watkins, tmp_path):
    port = server.rpartition(":")[2]
    said = watkins("server", "--port", port)
    assert said.status == 1 and f"--port {port}: another server listens there; give another --port" in said.err
    said = watkins("server", "--host", "no.such.host.invalid", "--port", port)
    assert said.status == 1 and "cannot listen there" in said.err
    assert list(tmp_path.iterdir()) == []


def test_an_embedded_store_that_was_cut_off_half_made_is_made_anew(tmp_path):
    workshop = tmp_path / "mlflow" / ".making"
    workshop.mkdir(parents=True)
    (workshop / "mlflow.db").write_bytes(b"SQLite format 3\0 and then the power went")
    (default,) = client().search_experiments()
    assert default.artifact_location.startswith((tmp_path / "mlflow" / "artifacts").as_uri())
    assert not workshop.exists()
    assert (tmp_path / "mlflow" / "mlflow.db").exists()
