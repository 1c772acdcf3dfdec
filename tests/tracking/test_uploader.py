"""What MLflow holds of a run, on the embedded store; `test_server.py` has the same over HTTP."""

import json
import shutil

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow.exceptions import MlflowException

from watkins_ml.config import flatten
from watkins_ml.core.metric_names import on_server
from watkins_ml.tracking.rundir import ARTIFACTS, RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.tracking.upload import Upload
from watkins_ml.tracking.uploader import Uploader


@pytest.fixture
def tracked(finished, monkeypatch):
    """The finished run as MLflow knows it: (client, run)."""
    monkeypatch.chdir(finished.folder)
    found = client()
    return found, found.get_run(RunDirectory(finished.run_dir).facts.mlflow_run_id)


@pytest.fixture
def copy(finished, tmp_path):
    """The finished run's directory as if nothing of it had been sent; the function changes its journal."""

    def make(register_as: str | None = "watkins-baseline") -> RunDirectory:
        run = RunDirectory(tmp_path / "runs" / "copy")
        shutil.copytree(finished.run_dir, run.root)
        (run.root / "upload.json").unlink()
        entries = [entry.model_dump(exclude_unset=True) for entry in run.entries()]
        run.journal.unlink()
        for entry in entries:
            if entry["kind"] == "model":
                entry["register_as"] = register_as
            run.record(**entry)
        return run

    return make


def test_params_are_the_flattened_configuration(tracked, finished):
    config = yaml.safe_load((finished.run_dir / "config.yaml").read_text())
    assert tracked[1].data.params == {key: str(value) for key, value in flatten(config).items()}


def test_tags_say_where_the_run_comes_from(tracked, finished):
    facts, tags = RunDirectory(finished.run_dir).facts.model_dump(), tracked[1].data.tags
    assert (tags["data_digest"], tags["split_protocol"]) == (facts["data_digest"], "tape")
    assert tags["model_family"] == "baseline"
    for key in ("git_commit", "device", "host", "python", "version.torch", "version.mlflow"):
        assert tags[key]


def test_the_run_is_finished_under_its_own_name_and_times(tracked, finished):
    info, entries = tracked[1].info, RunDirectory(finished.run_dir).entries()
    assert (info.status, info.run_name) == ("FINISHED", "first")
    assert (info.start_time, info.end_time) == (entries[0].time_ms, entries[-1].time_ms)


def test_metrics_have_one_point_an_epoch_with_the_time_it_was_measured(tracked, finished):
    server, run = tracked
    history = pd.read_csv(finished.run_dir / "history.csv", float_precision="round_trip")
    epochs = [entry for entry in RunDirectory(finished.run_dir).entries() if entry.kind == "epoch"]
    for key in [*history.columns[1:], "epoch_seconds", "samples_per_second"]:
        points = sorted(server.get_metric_history(run.info.run_id, on_server(key)), key=lambda point: point.step)
        assert [point.step for point in points] == [1, 2, 3], key
        assert [point.timestamp for point in points] == [entry.time_ms for entry in epochs], key
        assert [point.value for point in points] == [(entry.metrics | entry.timing)[key] for entry in epochs], key
        if key in history:
            assert [point.value for point in points] == history[key].tolist(), key


def test_final_metrics_are_there_once_and_the_best_epoch_keeps_its_own_names(tracked, finished):
    metrics = tracked[1].data.metrics
    controls = [key for key in finished.metrics if key.startswith("control_")]
    assert {"control_tape_accuracy", "control_duration_macro_f1"} <= set(controls)
    for key in ("test_accuracy", "test_macro_f1", "test_ece", *controls, "best_epoch"):
        assert metrics[on_server(key)] == finished.metrics[key]
    assert metrics["best/val_macro_f1"] == finished.metrics["best_val_macro_f1"]
    assert len(tracked[0].get_metric_history(tracked[1].info.run_id, "test/accuracy")) == 1


def test_the_three_sides_are_logged_as_dataset_inputs(tracked):
    inputs = tracked[1].inputs.dataset_inputs
    contexts = {each.dataset.name: {tag.key: tag.value for tag in each.tags} for each in inputs}
    assert contexts == {side: {"mlflow.data.context": side} for side in ("train", "val", "test")}
    assert {each.dataset.digest for each in inputs} == {tracked[1].data.tags["data_digest"]}


def test_the_whole_record_is_among_the_artifacts(tracked, finished):
    server, run = tracked

    def names(path: str = "") -> set[str]:
        found = server.list_artifacts(run.info.run_id, path)
        return {each.path for each in found if not each.is_dir}.union(
            *(names(each.path) for each in found if each.is_dir)
        )

    local = [path.relative_to(finished.run_dir) for path in finished.run_dir.rglob("*") if path.is_file()]
    assert names() == {str(path) for path in local if path.parts[0] in ARTIFACTS and path.stem != "last"}
    assert {"config.yaml", "history.csv", "checkpoints/best.pt", "preds/test.csv"} <= names()


def test_a_run_that_an_earlier_version_began_to_send_keeps_its_names(store, journal):
    run = journal()
    run.epoch({"epoch": 1, "val_loss": 2.0}, {"epoch": 1, "epoch_seconds": 1.0})
    Upload(run).send()
    state = json.loads((run.root / "upload.json").read_text())
    assert state.pop("sections") is True
    (run.root / "upload.json").write_text(json.dumps(state))  # as that version left it
    run.epoch({"epoch": 2, "val_loss": 1.0}, {"epoch": 2, "epoch_seconds": 1.0})
    run.record("metrics", step=0, values={"test_accuracy": 0.5, "temperature": 1.1})
    Upload(run).send()
    found = store.get_run(run.facts.mlflow_run_id).data.metrics
    assert found == {
        "val/loss": 2.0, "time/epoch_seconds": 1.0,  # what this version had sent
        "val_loss": 1.0, "epoch_seconds": 1.0, "test_accuracy": 0.5, "temperature": 1.1,
    }  # fmt: skip


@pytest.mark.parametrize(("which", "stems"), [("best", {"best"}), ("all", {"best", "last"}), ("none", set())])
def test_only_checkpoints_that_are_asked_for_are_sent(store, journal, which, stems):
    run = journal()
    run.update_facts(log_checkpoints=which)
    run.checkpoints.mkdir()
    for name in ("best.pt", "best.json", "last.pt", "last.json"):
        (run.checkpoints / name).write_text(name)
    run.finish("FINISHED")
    Upload(run).send()
    found = store.list_artifacts(run.facts.mlflow_run_id, "checkpoints")
    assert {each.path for each in found} == {f"checkpoints/{stem}.{end}" for stem in stems for end in ("pt", "json")}


def test_the_logged_model_takes_audio_and_shows_an_example(tracked):
    server, run = tracked
    (output,) = run.outputs.model_outputs
    model = server.get_logged_model(output.model_id)
    info = mlflow.models.get_model_info(model.model_uri)
    assert (model.status, model.source_run_id) == ("READY", run.info.run_id)
    assert model.experiment_id == run.info.experiment_id
    assert mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/model/MLmodel")
    assert info.signature.inputs.input_names() == ["audio", "path", "waveform", "sample_rate"]
    assert info.signature.outputs.input_names() == ["species", "probability", "probabilities", "novelty"]
    assert info.saved_input_example_info is not None
    stored = {each.path for each in mlflow.artifacts.list_artifacts(model.model_uri)}
    assert "served_model.py" in stored
    assert not [name for name in stored if name.endswith(".pkl")]


def test_everything_of_an_embedded_store_lies_in_its_own_folder(tracked, finished):
    assert {path.name for path in finished.folder.iterdir()} == {"mlflow", "runs"}


def test_the_registered_version_knows_its_run_and_score_and_is_champion(tracked, finished):
    server, run = tracked
    version = server.get_model_version_by_alias("watkins-baseline", "champion")
    assert version.run_id == run.info.run_id
    scores = [finished.metrics[f"best_val_{name}macro_f1"] for name in ("", "control_spectrum_")]
    above_control = scores[0] == 1 or scores[0] > scores[1]
    assert version.tags == {
        "run": "first",
        "data_digest": run.data.tags["data_digest"],
        "split_protocol": "tape",
        "best_val_macro_f1": str(finished.metrics["best_val_macro_f1"]),
        "best_val_control_spectrum_macro_f1": str(finished.metrics["best_val_control_spectrum_macro_f1"]),
        "threshold_90": str(finished.metrics["threshold_90"]),
        "watkins.claim": "won" if above_control else "lost",  # promoted by hand in both cases
        "watkins.promoted_after": "1.5",
    }
    (model,) = [server.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "watkins-baseline", "version": 1}]
    facts = RunDirectory(finished.run_dir).facts.model_dump()
    assert (facts["registered_model"], facts["model_version"]) == ("watkins-baseline", int(version.version))


def test_register_as_null_logs_the_model_and_registers_nothing(store, copy):
    upload = Upload(copy(register_as=None))
    upload.send()
    assert len(store.get_run(upload.run_id).outputs.model_outputs) == 1
    assert store.search_registered_models() == []


def test_sending_again_from_scratch_makes_no_second_run_model_or_version(store, copy):
    run = copy()
    first = Upload(run)
    first.send()
    (run.root / "upload.json").unlink()  # as after a copy to another machine
    second = Upload(run)
    second.send()
    assert second.run_id == first.run_id
    assert len(store.search_runs([store.get_run(first.run_id).info.experiment_id])) == 1
    assert len(store.get_run(first.run_id).outputs.model_outputs) == 1
    assert len(store.search_model_versions("name='watkins-baseline'")) == 1
    assert len(store.get_metric_history(first.run_id, "train/loss")) == 3


def test_an_upload_cut_off_anywhere_goes_on_where_it_was(store, journal, monkeypatch):
    run = journal()
    for epoch in (1, 2, 3):
        run.epoch({"epoch": epoch, "train_loss": 1 / epoch}, {"epoch": epoch, "epoch_seconds": 1.0})
    run.finish("FINISHED")
    original = type(store).log_batch
    calls = []

    def fails_on_every_second(self, *arguments, **named):
        calls.append(named)
        if len(calls) % 2:
            raise MlflowException("connection reset")
        return original(self, *arguments, **named)

    monkeypatch.setattr(type(store), "log_batch", fails_on_every_second)
    for _ in range(5):
        with pytest.raises(MlflowException, match="connection reset"):
            Upload(run).send()
    Upload(run).send()
    tracked = store.get_run(run.facts.mlflow_run_id)
    assert tracked.info.status == "FINISHED"
    assert tracked.data.params["optim.lr"] == "0.001"
    points = store.get_metric_history(tracked.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert len(calls) == 10  # five entries, each refused once and taken once


def test_a_run_moved_to_another_server_is_sent_there_whole(store, journal, empty_store, tmp_path, monkeypatch):
    run = journal()
    run.finish("FINISHED")
    Upload(run).send()
    (tmp_path / "other" / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, tmp_path / "other" / "mlflow")
    monkeypatch.chdir(tmp_path / "other")
    Upload(run).send()
    assert client().get_run(run.facts.mlflow_run_id).data.params["optim.lr"] == "0.001"


def test_failed_and_killed_runs_end_as_such(store, journal):
    for status in ("FAILED", "KILLED"):
        run = journal(status)
        run.finish(status)
        Upload(run).send()
        assert store.get_run(run.facts.mlflow_run_id).info.status == status


def test_the_uploader_ships_while_the_run_goes_on_and_completes_it_on_leaving(store, journal):
    run = journal()
    with Uploader(run):
        run.epoch({"epoch": 1, "train_loss": 0.5}, {"epoch": 1, "epoch_seconds": 1.0})
        run.finish("FINISHED")
    tracked = store.get_run(run.facts.mlflow_run_id)
    assert (tracked.info.status, tracked.data.metrics["train/loss"]) == ("FINISHED", 0.5)


def test_an_absent_server_is_told_once_and_never_raised(journal, nobody_listens, impatient, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", nobody_listens)
    run = journal()
    with Uploader(run):
        run.epoch({"epoch": 1, "train_loss": 0.5}, {"epoch": 1, "epoch_seconds": 1.0})
        run.finish("FINISHED")
    warning, end, *more = capsys.readouterr().err.splitlines()
    assert not more
    assert f"Tracking server {nobody_listens} failed" in warning
    assert f"6 journal entries of {run.root} did not reach" in end and f"watkins sync {run.root}" in end


def test_a_tracking_uri_that_makes_no_sense_is_told_once(journal, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "gopher://sea")
    run = journal()
    with Uploader(run):
        run.finish("FINISHED")
    assert capsys.readouterr().err.count("Tracking server gopher://sea failed") == 1
