"""What a user sees in the MLflow UI, in a real browser on a live server, beside what the run directories hold."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from watkins_ml.core.metric_names import on_server

pytestmark = pytest.mark.slow  # a server starts and two models train

LINES = "plots => plots.map(plot => plot.data.map(({name, x, y}) => ({name, x: Array.from(x), y: Array.from(y)})))"
IMAGE_WIDTHS = "images => images.map(image => image.naturalWidth)"


def history(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "history.csv")


def assert_shows(lines: list[dict], runs: dict[str, Path], metric: str) -> None:
    """A plot holds the metric's value in each epoch of each run; MLflow draws a line once more for its smoothing."""
    assert {line["name"] for line in lines} == set(runs)
    for line in lines:
        expected = history(runs[line["name"]])
        assert line["x"] == expected["epoch"].tolist()
        assert line["y"] == pytest.approx(expected.rename(columns=on_server)[metric].tolist())


def words(locator) -> str:
    return " ".join(locator.inner_text().split())


def mlflow_id(run: Path) -> str:
    return json.loads((run / "run.json").read_text())["mlflow_run_id"]


def test_the_experiment_page_lists_both_runs_with_their_metrics(ui, tracked):
    from screenshots import COLUMNS

    page = ui.runs()
    names = page.locator("[row-id] a[href*='/runs/']").all_inner_texts()
    assert sorted(names) == sorted(tracked.runs)
    for run in tracked.runs.values():
        final = json.loads((run / "reports" / "metrics.json").read_text())
        every = history(run).iloc[-1].to_dict() | final
        expected = {on_server(key): value for key, value in every.items()}
        row = page.locator(f"[row-id='{mlflow_id(run)}']")
        shown = {name: float(row.locator(f"[col-id='metrics.`{name}`']").inner_text()) for name in COLUMNS}
        assert shown == pytest.approx({name: expected[name] for name in COLUMNS})


def test_the_chart_view_draws_each_metric_of_an_epoch_as_a_curve_a_run(ui, tracked):
    from screenshots import CURVES

    plots = ui.curves().locator(".js-plotly-plot").evaluate_all(LINES)
    for metric, lines in zip(CURVES, plots, strict=True):
        assert_shows(lines, tracked.runs, metric)


def test_comparing_two_ticked_runs_leads_to_the_curves_of_a_metric(ui, tracked):
    from screenshots import DRAWN

    page = ui.runs()
    for box in page.get_by_role("checkbox", name="toggle row selection").all():
        box.check(force=True)
    page.get_by_role("button", name="Compare").click()
    page.get_by_text("Comparing 2 Runs").wait_for()
    links = page.get_by_title("Plot chart")
    links.first.evaluate("link => link.closest('[role=grid]').scrollTop = 10000")  # only rows in sight are there
    links.filter(has_text=re.compile("^val/loss$")).click()
    page.wait_for_function(DRAWN, arg=[1, 2])
    (lines,) = page.locator(".js-plotly-plot").evaluate_all(LINES)
    assert_shows(lines, tracked.runs, "val/loss")


@pytest.mark.parametrize("picture", ["galleries/test_least_confident.png", "plots/test_confusion_matrix.png"])
def test_the_artifact_page_shows_a_picture(ui, tracked, picture):
    page = ui.artifact(mlflow_id(tracked.runs["efficientnet"]), picture)
    assert min(page.locator("img[src^='blob:']").evaluate_all(IMAGE_WIDTHS)) > 500


def test_the_artifact_page_shows_the_classification_report_as_a_table(ui, tracked):
    run = tracked.runs["baseline"]
    page = ui.artifact(mlflow_id(run), "reports/test_classification_report.csv")
    page.get_by_text("Previewing the first").wait_for()
    rows = [row.locator("td").all_inner_texts() for row in page.locator("tbody tr:not([aria-hidden])").all()]
    report = pd.read_csv(run / "reports" / "test_classification_report.csv", dtype=str, keep_default_na=False)
    assert rows == report.to_numpy().tolist()


def test_the_artifact_page_shows_the_classification_report_as_json(ui, tracked):
    run = tracked.runs["baseline"]
    path = "reports/test_classification_report.json"
    shown = ui.artifact(mlflow_id(run), path).locator("pre").inner_text()
    assert json.loads(shown) == json.loads((run / path).read_text())


def test_the_registry_shows_both_models_with_their_champion(ui):
    page = ui.registry()
    for model in ("watkins-baseline", "watkins-efficientnet"):
        row = page.get_by_role("row").filter(has=page.get_by_role("link", name=model, exact=True))
        assert "@ champion : Version 1" in words(row)


def test_the_page_of_a_registered_model_says_what_its_version_scored(ui, tracked):
    page = ui.open("/models/watkins-baseline")
    score = json.loads((tracked.runs["baseline"] / "reports" / "metrics.json").read_text())["best_val_macro_f1"]
    row = page.get_by_role("row").filter(has_text="Version 1")
    assert f"best_val_macro_f1 : {score}" in words(row)


def test_the_metrics_of_a_run_fold_by_section(ui, tracked):
    page = ui.open(f"/experiments/{ui.experiment}/runs/{mlflow_id(tracked.runs['baseline'])}/model-metrics")
    from screenshots import SECTIONS

    page.get_by_text("best", exact=True).first.wait_for()
    for section in SECTIONS:
        heads = page.get_by_text(section, exact=True)
        assert heads.count() == 1, section
        assert re.search(rf"{section}\s*\(\d+\)", heads.first.evaluate("head => head.parentElement.textContent"))


def test_the_page_of_a_version_describes_it(ui, tracked):
    final = json.loads((tracked.runs["baseline"] / "reports" / "metrics.json").read_text())
    page = ui.open("/models/watkins-baseline/versions/1")
    page.get_by_text("3 species, split by tape").wait_for()
    shown = words(page.locator("body"))
    assert f"macro F1 on test {final['test_macro_f1']:.1%} (" in shown
    assert 'mlflow.pyfunc.load_model("models:/watkins-baseline/1")' in shown


def test_the_page_of_a_logged_model_has_its_metrics_with_the_data_they_are_of(ui, tracked):
    final = json.loads((tracked.runs["baseline"] / "reports" / "metrics.json").read_text())
    run = mlflow_id(tracked.runs["baseline"])
    (model,) = ui.client.search_logged_models([ui.experiment], filter_string=f"source_run_id = '{run}'")
    scored = {metric.key: metric for metric in model.metrics}
    assert scored["test/macro_f1"].value == final["test_macro_f1"]
    of = {name: scored[name].dataset_name for name in ("test/macro_f1", "best/val_macro_f1", "best/epoch")}
    assert of == {"test/macro_f1": "test", "best/val_macro_f1": "val", "best/epoch": None}
    page = ui.open(f"/experiments/{ui.experiment}/models/{model.model_id}")
    row = page.get_by_role("row").filter(has_text="best/val_macro_f1")
    assert "val (#" in words(row.first)
