"""What is registered is the run's own model, file by file, however and how often the run was sent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.registered import assert_is_the_runs_own, digests, held, without_control
from watkins_ml.runs import train as experiment
from watkins_ml.runs.lifecycle import RunInterruptedError
from watkins_ml.tracking import registry
from watkins_ml.tracking.model_upload import BUNDLE_TAG
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.tracking.upload import Upload

NAME = "watkins-baseline"
CHAMPION = f"models:/{NAME}@champion"


@pytest.fixture
def run(finished, store, tmp_path) -> RunDirectory:
    """A copy of a finished run of which nothing has been sent to this test's own, empty store.

    It becomes champion when it is sent, for it is of a version that did not know the control.
    """
    run = RunDirectory(tmp_path / "runs" / "first")
    shutil.copytree(finished.run_dir, run.root)
    (run.root / "upload.json").unlink()
    without_control(run)
    return run


def as_an_earlier_version_left_it(store, run: RunDirectory) -> None:
    """Without what today's program notes of the model that was sent."""
    state = json.loads((run.root / "upload.json").read_text())
    del state["bundle"]
    (run.root / "upload.json").write_text(json.dumps(state))
    store.delete_logged_model_tag(state["model_uri"].removeprefix("models:/"), BUNDLE_TAG)


@pytest.fixture
def incomplete(run, store) -> RunDirectory:
    """Sent, registered and champion by an earlier version, before its novelty was written."""
    shutil.move(run.model / "novelty.pt", run.root / "later.pt")
    Upload(run).send()
    shutil.move(run.root / "later.pt", run.model / "novelty.pt")
    as_an_earlier_version_left_it(store, run)
    assert "novelty.pt" not in held(CHAMPION)
    return run


def versions(store) -> list[tuple[int, str | None]]:
    """Number of each version, and of that which stands in its place."""
    found = store.search_model_versions(f"name='{NAME}'")
    return sorted((int(each.version), each.tags.get(registry.REPLACED)) for each in found)


def test_of_a_training(finished, monkeypatch, tmp_path):
    monkeypatch.chdir(finished.folder)
    run_id = RunDirectory(finished.run_dir).facts.mlflow_run_id
    for uri in (CHAMPION, f"runs:/{run_id}/model"):
        client()
        assert_is_the_runs_own(uri, finished.run_dir, tmp_path)


def test_of_a_run_that_was_sent_by_sync(run, watkins, tmp_path):
    assert watkins("sync", run.root).status == 0
    assert_is_the_runs_own(CHAMPION, run.root, tmp_path)


def test_sync_mends_what_an_earlier_version_registered_without_novelty(incomplete, store, watkins, tmp_path):
    said = watkins("sync", incomplete.root)
    assert said.status == 0, said.err
    assert f"{NAME} version 2 is the new champion" in said.out and "in place of version 1" in said.out
    assert "the model sent before was not the run's own; it was sent again" in said.out
    assert_is_the_runs_own(CHAMPION, incomplete.root, tmp_path)
    assert_is_the_runs_own(f"runs:/{incomplete.facts.mlflow_run_id}/model", incomplete.root, tmp_path)
    assert versions(store) == [(1, "2"), (2, None)]
    again = watkins("sync", incomplete.root)
    assert "sent again" not in again.out and versions(store) == [(1, "2"), (2, None)]


@pytest.mark.parametrize("step", ["create_model_version", "set_model_version_tag", "finalize_logged_model"])
def test_mending_that_was_cut_off_is_taken_up_again(incomplete, store, monkeypatch, step, tmp_path):
    def cut_off(*_: object, **__: object) -> None:
        raise ConnectionError("cut off")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), step, cut_off)
        with pytest.raises(ConnectionError):
            Upload(incomplete).send()
    Upload(incomplete).send()
    assert_is_the_runs_own(CHAMPION, incomplete.root, tmp_path)
    assert len(store.search_model_versions(f"name='{NAME}'")) == 2
    assert len(store.get_run(incomplete.facts.mlflow_run_id).outputs.model_outputs) == 2


def test_a_whole_model_of_an_earlier_version_is_left_as_it_is(run, store, watkins, tmp_path):
    Upload(run).send()
    as_an_earlier_version_left_it(store, run)
    assert "sent again" not in watkins("sync", run.root).out
    assert versions(store) == [(1, None)]
    assert len(store.get_run(run.facts.mlflow_run_id).outputs.model_outputs) == 1


def test_a_mended_version_takes_no_alias_that_its_run_had_lost(incomplete, store, watkins):
    worse = store.get_model_version(NAME, "1").tags | {"best_val_macro_f1": "0.01"}
    store.create_model_version(NAME, "file:///by-hand", tags=worse)
    registry.promote(store, f"{NAME}/2")
    said = watkins("sync", incomplete.root)
    assert f"champion of {NAME} stays version 2, promoted by hand" in said.out
    assert int(store.get_model_version_by_alias(NAME, "champion").version) == 2
    assert versions(store) == [(1, "3"), (2, None), (3, None)]


def test_a_run_without_its_model_folder_is_not_sent_again(run, store, watkins):
    Upload(run).send()
    shutil.rmtree(run.model)
    assert watkins("sync", run.root).status == 0
    assert versions(store) == [(1, None)] and "novelty.pt" in held(CHAMPION)


def test_only_the_parts_of_a_model_are_sent_and_no_link(run, store, watkins, tmp_path):
    (run.model / "notes.txt").write_text("private")
    (run.model / ".weights.pt.99.partial").write_bytes(b"half")
    Upload(run).send()
    assert set(held(CHAMPION)) == {"model.json", "weights.pt", "novelty.pt", "example.wav"}
    (tmp_path / "secret").write_bytes((run.model / "example.wav").read_bytes() + b"secret")
    (run.model / "example.wav").unlink()
    (run.model / "example.wav").symlink_to(tmp_path / "secret")
    said = watkins("sync", run.root)
    assert said.status == 1 and "'model/example.wav' leads out of" in said.err
    assert versions(store) == [(1, None)]


def test_of_a_run_that_was_resumed_after_its_model_had_been_sent(store, recipe, monkeypatch, tmp_path):
    """The second attempt writes another model, as on another device; here the first one's was damaged meanwhile."""
    config = recipe("baseline", "train.epochs=3")
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "drop_previous", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(RunInterruptedError):
            experiment.run_experiment(config, Path("runs/again"))
    run = RunDirectory(Path("runs/again"))
    registry.promote(store, f"{NAME}/1")  # it is not above its control, and so is what takes its place
    assert held(CHAMPION) == digests(run.model)
    (run.model / "novelty.pt").unlink()
    Upload(run).send()
    assert "novelty.pt" not in held(CHAMPION)
    experiment.resume_experiment(run.root, config)
    assert run.facts.status == "FINISHED"
    assert_is_the_runs_own(CHAMPION, run.root, tmp_path)
