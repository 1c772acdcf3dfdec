"""The MLflow UI in a headless Chromium: the README's pictures, from any live server that holds both champions.

Needs Chromium (or Chrome) and playwright, which is in the `dev` extra. `tests/ui` walks through the same pages.

Example: python docs/screenshots.py http://127.0.0.1:5000 --out docs --experiment watkins-demo
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import urllib.request
from pathlib import Path

from mlflow import MlflowClient
from PIL import Image
from playwright.sync_api import Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
COLUMNS = ["best/val_macro_f1", "val/loss", "test/accuracy", "test/macro_f1"]
STUDY_COLUMNS = ["metrics.`best/val_macro_f1`", "params.`optim.lr`", "params.`model.freeze_depth`",
                 "tags.`pruned_at_epoch`"]  # fmt: skip
CURVES = ["train/loss", "val/loss", "train/accuracy", "val/accuracy", "val/macro_f1", "train/learning_rate"]
SECTIONS = ("best", "control", "test", "time", "train", "val")
"""Of the metrics of a run, see `watkins_ml.core.metric_names`."""
WIDTH = 1440
WAIT = 30_000
"""Milliseconds that anything on a page may take to appear."""
LARGE = 300_000
"""Bytes of a picture that is too large for a README."""
PICTURE = 'img[src^="blob:"]'
DRAWN = """([plots, runs]) => {
    const drawn = [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data ?? [])
    const complete = lines => new Set(lines.map(line => line.name)).size >= runs && lines.every(line => line.y?.length)
    return drawn.length === plots && drawn.every(complete)
}"""
HARMLESS = (
    "/mlflow/users/current",  # asks who is logged in; 404 on a server without accounts
    "ResizeObserver loop",  # the browser's word for charts that were laid out twice
)


def find_browser() -> str | None:
    return next((path for path in map(shutil.which, BROWSERS) if path), None)


class Ui:
    """The web UI of one MLflow server, as somebody sees it who has closed its banners and picked columns and charts.

    Each page method opens a page and returns when what the page is for is there. The browser reaches the server
    alone: `strangers` holds the other addresses that were asked for, `errors` what went wrong on the pages.
    """

    def __init__(self, address: str, experiment: str, columns: list[str] | None = None):
        """`columns` of the table of runs, as MLflow writes them; default the metrics of COLUMNS."""
        self.columns = columns or [f"metrics.`{name}`" for name in COLUMNS]
        self.address = address.rstrip("/")
        self.client = MlflowClient(self.address, self.address)
        found = self.client.get_experiment_by_name(experiment)
        if found is None:
            raise SystemExit(f"{self.address} has no experiment named {experiment}; name one with --experiment")
        self.experiment = found.experiment_id
        self.errors: list[str] = []
        self.strangers: list[str] = []

    def __enter__(self) -> Ui:
        self._playwright = sync_playwright().start()
        self._browser = self._playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        settings = [{"name": name, "value": value} for name, value in _settings(self.experiment, self.columns).items()]
        self._context = self._browser.new_context(
            viewport={"width": WIDTH, "height": 900}, color_scheme="light", reduced_motion="reduce",
            storage_state={"cookies": [], "origins": [{"origin": self.address, "localStorage": settings}]},
        )  # fmt: skip
        self._context.set_default_timeout(WAIT)
        self._context.route(lambda url: not url.startswith(self.address), self._refuse)
        return self

    def __exit__(self, *_: object) -> None:
        self._browser.close()
        self._playwright.stop()

    def _refuse(self, route) -> None:
        self.strangers.append(route.request.url)
        route.abort()

    def open(self, path: str) -> Page:
        page = self._context.new_page()
        page.on("console", lambda said: said.type == "error" and self._note(f"{said.text} {said.location['url']}"))
        page.on("pageerror", lambda error: self._note(str(error)))
        page.goto(f"{self.address}/#{path}")
        return page

    def close_pages(self) -> None:
        for page in self._context.pages:
            page.close()

    def _note(self, error: str) -> None:
        if not any(harmless in error for harmless in HARMLESS):
            self.errors.append(error)

    def runs(self, search: str = "") -> Page:
        """The experiment's runs with the columns of COLUMNS."""
        page = self.open(f"/experiments/{self.experiment}/runs?searchFilter={search}")
        page.locator("[row-id] a[href*='/runs/']").first.wait_for()
        return page

    def trials(self, study: str) -> Page:
        """A study's run with its trials below it."""
        page = self.runs(f"tags.`watkins.study`='{study}'")
        page.locator("[row-id] button").first.click()
        page.get_by_role("link", name=f"trial 0, {study}").wait_for()
        return page

    def curves(self, search: str = "", runs: int = 2) -> Page:
        """The experiment's charts: the curves of CURVES, a line for each of so many runs."""
        page = self.open(f"/experiments/{self.experiment}/runs?searchFilter={search}&compareRunsMode=CHART")
        page.wait_for_function(DRAWN, arg=[len(CURVES), runs])
        return page

    def artifact(self, run_id: str, path: str) -> Page:
        """The preview of one artifact beside the run's tree of artifacts; a picture is loaded."""
        page = self.open(f"/experiments/{self.experiment}/runs/{run_id}/artifacts/{path}")
        page.get_by_text("Path:").wait_for()
        if path.endswith(".png"):
            page.wait_for_function(f"document.querySelector('{PICTURE}')?.naturalWidth > 0")
        return page

    def registry(self) -> Page:
        """The registered models."""
        page = self.open("/models")
        page.get_by_test_id("model-list-table").get_by_role("link").first.wait_for()
        return page

    def champion(self, model: str) -> str:
        """The run behind a registered model's champion."""
        return self.client.get_model_version_by_alias(model, "champion").run_id


def _settings(experiment: str, columns: list[str]) -> dict[str, str]:
    """What MLflow keeps in the browser's local storage: the view for training, no banners, our columns and charts."""
    charts = [
        {"uuid": name, "type": "LINE", "metricSectionId": "curves", "metricKey": name, "displayName": name,
         "runsCountToCompare": 10, "deleted": False, "isGenerated": False, "lineSmoothness": 0, "xAxisKey": "step",
         "xAxisScaleType": "linear", "scaleType": "linear", "range": {}, "yAxisKey": "metric", "yAxisExpressions": [],
         "selectedXAxisMetricKey": "", "ignoreOutliers": False, "useGlobalXaxisKey": True,
         "useGlobalLineSmoothing": True}
        for name in CURVES
    ]  # fmt: skip
    widths = {
        "0": 70,
        "attributes.`Run Name`": 270,
        "runDateAndNestInfo": 140,
        "duration": 80,
        "attributes.`Models`": 90,
    }
    widths |= dict.fromkeys(columns, 128)
    view = {
        "selectedColumns": ["attributes.`Models`", *columns],
        "columnOrder": list(widths),
        "columnWidths": widths,
        "compareRunCharts": charts,
        "compareRunSections": [  # MLflow's own stay folded
            {"uuid": name, "name": "Learning curves" if name == "curves" else name, "display": name == "curves",
             "isReordered": False, "deleted": False, "isGenerated": False}
            for name in ("curves", *SECTIONS)
        ],
    }  # fmt: skip
    return {
        "mlflow.workflowType_v1": '"machine_learning"',
        "mlflow.assistant.panelOpen_v1": "false",
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
        "_mlflow_model_registry_promo_modal_dismissed_v1": "true",
        "_mlflow_dark_mode_toggle_enabled": "false",
        f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState': json.dumps(view),
    }


def save(page: Page, path: Path, height: int) -> None:
    """A picture of the page without MLflow's chat button; spectrograms in 256 colours, to keep the file small."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.add_style_tag(content="[data-assistant-ui] { visibility: hidden }")
    picture = Image.open(io.BytesIO(page.screenshot(animations="disabled"))).convert("RGB")
    picture.save(path, optimize=True)
    if path.stat().st_size > LARGE:
        picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {picture.width}×{picture.height}, {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    text, example = __doc__.split("\n\nExample: ")
    parser = argparse.ArgumentParser(
        description=text, epilog=f"Example: {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("server", help="address of the MLflow server, for example http://127.0.0.1:5000")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder for the pictures (default: docs)")
    parser.add_argument("--experiment", default="watkins", help="name of the experiment (default: watkins)")
    parser.add_argument("--model", default="watkins-baseline", help="whose champion's artifacts to show")
    parser.add_argument("--study", help="name of a study: take the picture of its trials, and no other")
    given = parser.parse_args()
    if find_browser() is None:
        raise SystemExit(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")
    try:
        urllib.request.urlopen(given.server, timeout=10).read()
    except (OSError, ValueError) as error:
        raise SystemExit(f"{given.server}: no MLflow server answers there ({error})") from None
    given.out.mkdir(parents=True, exist_ok=True)
    if given.study:
        with Ui(given.server, given.experiment, STUDY_COLUMNS) as ui:
            save(ui.trials(given.study), given.out / "mlflow-study.png", 980)
        return
    trainings = "metrics.`test/accuracy` >= 0"  # only finished trainings
    with Ui(given.server, given.experiment) as ui:
        save(ui.runs(trainings), given.out / "mlflow-runs.png", 380)
        save(ui.curves(trainings), given.out / "mlflow-curves.png", 1240)
        gallery = ui.artifact(ui.champion(given.model), "galleries/test_random.png")
        save(gallery, given.out / "mlflow-artifacts.png", 1090)
        save(ui.registry(), given.out / "mlflow-registry.png", 380)


if __name__ == "__main__":
    main()
