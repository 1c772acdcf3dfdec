import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.inference.comparison import compare_models
from watkins_ml.tracking.server import client


@pytest.fixture
def project(champions, monkeypatch):
    monkeypatch.chdir(champions)
    return champions


@pytest.fixture
def other_run(finished, tmp_path):
    """A function that copies the finished run under another name, changing its facts."""

    def copy(name: str, **facts: object) -> Path:
        shutil.copytree(finished.run_dir, tmp_path / name)
        known = json.loads((tmp_path / name / "run.json").read_text())
        (tmp_path / name / "run.json").write_text(json.dumps(known | {"name": name} | facts))
        return tmp_path / name

    return copy


def comparisons(server) -> list:
    found = server.get_experiment_by_name("watkins-comparisons")
    return server.search_runs([found.experiment_id], "tags.kind = 'comparison'") if found else []


@pytest.mark.slow
def test_without_models_the_two_champions_are_compared(project, tmp_path):
    page = tmp_path / "page.html"
    table = compare_models([], page)
    assert list(table.columns) == ["Baseline", "EfficientNet-B0"]
    for column, run in zip(table.columns, ("first", "second"), strict=True):
        metrics = json.loads((project / "runs" / run / "reports" / "metrics.json").read_text())
        assert table[column]["test_accuracy"] == metrics["test_accuracy"]
        assert table[column]["best_val_macro_f1"] == metrics["best_val_macro_f1"]
    html = page.read_text()
    assert "EfficientNet-B0" in html
    assert 'src="http' not in html


def test_a_run_of_an_earlier_version_is_compared_by_todays_names(other_run, store, tmp_path, watkins):
    """It called what its kept network scored on validation as the values of an epoch: `val_*`."""
    runs = [other_run("earlier"), other_run("today")]
    path = runs[0] / "reports" / "metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps({name.replace("best_val_", "val_"): value for name, value in metrics.items()}))
    table = compare_models(list(map(str, runs)), tmp_path / "page.html")
    earlier, today = (table[name] for name in table.columns)
    assert earlier.equals(today) and earlier["best_val_macro_f1"] == metrics["best_val_macro_f1"]
    said = watkins("train", "--resume", runs[0])
    assert said.status == 0 and f"{metrics['best_val_macro_f1']:.4f}" in said.out


def test_a_comparison_is_logged_as_a_finished_run_with_page_and_table(project, tmp_path):
    server = client()
    before = {run.info.run_id for run in comparisons(server)}
    page = tmp_path / "page.html"
    compare_models(["runs/first", "models:/watkins-efficientnet@champion"], page)
    (logged,) = [run for run in comparisons(server) if run.info.run_id not in before]
    assert logged.info.status == "FINISHED"
    assert {each.path for each in server.list_artifacts(logged.info.run_id)} == {"page.html", "comparison.csv"}
    stored = server.download_artifacts(logged.info.run_id, "page.html", str(tmp_path / ""))
    assert Path(stored).read_bytes() == page.read_bytes()


def test_two_runs_of_one_family_are_told_apart_by_name(finished, other_run, store, tmp_path):
    table = compare_models([str(finished.run_dir), str(other_run("again"))], tmp_path / "page.html")
    assert list(table.columns) == ["Baseline first", "Baseline again"]


def test_the_embedded_store_keeps_comparisons_beside_its_runs(finished, other_run, store, tmp_path):
    compare_models([str(finished.run_dir), str(other_run("again"))], tmp_path / "page.html")
    assert len(comparisons(store)) == 1
    assert not (tmp_path / "mlruns").exists()
    assert list((tmp_path / "mlflow" / "artifacts").rglob("page.html"))


def test_runs_on_other_data_are_compared_with_a_warning(watkins, finished, other_run, store, tmp_path):
    other = other_run("elsewhere", data_digest="0123456789abcdef")
    said = watkins("compare", finished.run_dir, other, "--out", tmp_path / "page.html")
    assert said.status == 0
    assert "made on different data" in said.err
    assert "0123456789abcdef" in said.err
    assert "different data" in (tmp_path / "page.html").read_text()


def test_a_server_that_is_away_costs_only_the_copy_there(watkins, finished, other_run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = watkins("compare", finished.run_dir, other_run("again"), "--out", tmp_path / "page.html")
    assert said.status == 0
    assert said.err.count("\n") == 1 and "did not take the comparison" in said.err
    assert (tmp_path / "page.html").exists()


def test_before_there_are_champions_one_line_says_which_is_missing(store, tmp_path):
    with pytest.raises(
        UserError,
        match=r"fewer than two champions on .*none of watkins-baseline, .*`watkins models` lists what there is",
    ):
        compare_models([], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_of_one_run_is_made_from_what_mlflow_holds_with_every_sound(watkins, project, tmp_path):
    said = watkins("report", "models:/watkins-baseline@champion", "--out", tmp_path / "page.html")
    metrics = json.loads((project / "runs" / "first" / "reports" / "metrics.json").read_text())
    assert (said.status, said.err) == (0, "")
    assert f"Baseline reaches {metrics['test_macro_f1']:.1%} macro F1" in said.out
    page = (tmp_path / "page.html").read_text()
    assert said.out.splitlines()[0] in page
    kept = pd.read_csv(project / "runs" / "first" / "galleries" / "test_cuts.csv")
    assert page.count('src="data:audio/mpeg;base64,') == len(kept) > 0


def test_one_model_cannot_be_compared(tmp_path):
    with pytest.raises(UsageError, match="compare needs two MODELs or more"):
        compare_models(["runs/first"], tmp_path / "page.html")


def test_a_run_without_its_report_is_named(finished, other_run, store, tmp_path):
    broken = other_run("broken")
    (broken / "reports" / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"broken is incomplete: reports/metrics\.json is missing"):
        compare_models([str(finished.run_dir), str(broken)], tmp_path / "page.html")


def test_a_page_below_a_regular_file_is_one_clear_line(watkins, finished, other_run, store, tmp_path):
    (tmp_path / "file").write_text("")
    said = watkins("compare", finished.run_dir, other_run("again"), "--out", tmp_path / "file" / "page.html")
    assert said.status == 1
    assert said.err.startswith("watkins: cannot write ") and said.err.count("\n") == 1


def test_the_frozen_efficientnet_was_tracked_as_it_was_configured(project):
    config = yaml.safe_load((project / "runs" / "second" / "config.yaml").read_text())
    version = client().get_model_version_by_alias("watkins-efficientnet", "champion")
    params = client().get_run(version.run_id).data.params
    assert params["model.freeze_depth"] == str(config["model"]["freeze_depth"]) == "9"
