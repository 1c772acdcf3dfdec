import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.evaluate import evaluate_model
from watkins_ml.models.bundle import load_bundle


@pytest.fixture
def other_data(prepared, tmp_path):
    """A copy of the prepared data without its spectrograms, for data that are refused before any is read."""
    folder = tmp_path / "other"
    shutil.copytree(prepared, folder, ignore=shutil.ignore_patterns("*.pt"))
    return folder


def test_evaluation_gives_the_runs_own_validation_metrics(finished, prepared, tmp_path):
    scores, protocol = evaluate_model(str(finished.run_dir), prepared, "val", tmp_path / "report")
    kept = "best_val_"
    own = {key.removeprefix(kept): value for key, value in finished.metrics.items() if key.startswith(kept)}
    own = {key: value for key, value in own.items() if not key.startswith("control_")}  # these are judged on test
    assert (scores, protocol) == (pytest.approx(own, rel=1e-4), "tape")


def test_a_registered_model_scores_on_the_test_split_what_its_run_scored(
    watkins, finished, prepared, tmp_path, monkeypatch
):
    monkeypatch.chdir(finished.folder)
    out = tmp_path / "report"
    model = "models:/watkins-baseline@champion"
    said = watkins("evaluate", model, "--data", prepared, "--split", "test", "--out", out)
    assert said.status == 0, said.err
    assert f"{finished.metrics['test_accuracy']:.4f}" in said.out
    assert re.search(rf"without audio: duration .*{finished.metrics['control_duration_accuracy']:.4f}", said.out)
    assert re.search(r"macro F1 of a logistic regression .* 1\.0000", said.out)
    assert "This network is not above the best control by more than noise: accuracy" in said.out
    for name in (
        "reports/test_classification_report.json",
        "reports/test_controls.csv",
        "preds/test.csv",
        "plots/test_confusion_matrix.png",
    ):
        assert (out / name).exists()
    predictions, classifier = pd.read_csv(out / "preds" / "test.csv"), load_bundle(finished.run_dir / "model")
    data = read_prepared(prepared)
    by_file = predict_files(classifier, [data.recording(path) for path in data.sides["test"]["path"]])
    np.testing.assert_allclose(predictions["novelty"], by_file["novelty"], rtol=1e-3, atol=1e-4)
    assert predictions["temperature"].tolist() == pytest.approx([classifier.temperature] * len(predictions), rel=1e-5)
    written = json.loads((out / "reports" / "test_metrics.json").read_text())
    assert written["evaluated"]["temperature"] == classifier.temperature
    controls = {key: value for key, value in finished.metrics.items() if key.startswith("control_")}
    own = {key.removeprefix("test_"): value for key, value in finished.metrics.items() if key.startswith("test_")}
    assert {key: written[key] for key in own} == pytest.approx(own, rel=1e-4)
    assert {key: written[key] for key in controls} == controls
    assert written["evaluated"]["model"] == model
    assert written["evaluated"]["trained_on"]["run"] == "first"


def test_another_split_than_the_models_own_is_told(finished, prepared, tmp_path, capsys):
    evaluate_model(str(finished.run_dir), prepared, "val", tmp_path / "own")
    assert "flatter" not in capsys.readouterr().err
    resplit = tmp_path / "resplit"
    shutil.copytree(prepared, resplit)
    summary = json.loads((resplit / "dataset.json").read_text()) | {"data_digest": "another"}
    (resplit / "dataset.json").write_text(json.dumps(summary))
    evaluate_model(str(finished.run_dir), resplit, "val", tmp_path / "report")
    assert "its scores here flatter it" in capsys.readouterr().err


def test_data_of_another_frontend_are_refused_with_the_difference(finished, other_data, tmp_path):
    summary = json.loads((other_data / "dataset.json").read_text())
    summary["frontend"]["sample_rate"] = 48_000
    (other_data / "dataset.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match=r"prepared with another frontend than .*: sample_rate 48000 \(model: 16000\)"):
        evaluate_model(str(finished.run_dir), other_data, "test", tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda names: {**names, "0": "Narwhal"}, "Narwhal is unknown to the model"),
        (lambda names: {"0": names["0"], "1": names["1"]}, r"Short_Finned\(Pacific\)PilotWhale is not in the data"),
    ],
)
def test_data_of_other_species_are_refused_with_a_name(finished, other_data, tmp_path, change, said):
    classes = other_data / "annotations" / "classes.json"
    classes.write_text(json.dumps(change(json.loads(classes.read_text()))))
    with pytest.raises(UserError, match=f"other species than .*{said}"):
        evaluate_model(str(finished.run_dir), other_data, "test", tmp_path / "report")


def test_an_output_below_a_regular_file_is_one_clear_line(watkins, finished, prepared, tmp_path):
    (tmp_path / "file").write_text("")
    said = watkins("evaluate", finished.run_dir, "--data", prepared, "--out", tmp_path / "file" / "report")
    assert said.status == 1
    assert said.err.startswith("watkins: cannot write the report to ")
    assert said.err.count("\n") == 1


def test_a_split_that_does_not_exist_is_misuse(watkins, finished, prepared):
    said = watkins("evaluate", finished.run_dir, "--data", prepared, "--split", "holdout")
    assert said.status == 2 and "'--split': 'holdout' is not one of 'train', 'val', 'test'" in said.err
