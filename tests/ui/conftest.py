"""A live server that holds a run of each model, and the UI as `docs/screenshots.py` opens it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.pictures import drawing
from tests.support.servers import Server

MODELS = {"baseline": (), "efficientnet": ("model.freeze_depth=9",)}


@dataclass(frozen=True)
class Tracked:
    """A server and the directories of the runs that were sent to it, by name."""

    address: str
    runs: dict[str, Path]


@pytest.fixture(scope="session")
def chromium() -> str:
    from screenshots import BROWSERS, find_browser

    return find_browser() or pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is on the PATH")


@pytest.fixture(scope="session")
def tracked(chromium, recipe, empty_store, tmp_path_factory) -> Tracked:
    """Both models trained for two epochs, tracked and registered over HTTP as `watkins train` does it."""
    from watkins_ml.runs.train import run_experiment
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client

    folder = tmp_path_factory.mktemp("ui")
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch, drawing():
        patch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
        patch.setenv("DO_NOT_TRACK", "true")
        patch.chdir(folder)
        server = Server(folder).start()
        patch.setenv("MLFLOW_TRACKING_URI", server.address)
        runs = {
            name: run_experiment(recipe(name, *overrides), folder / "runs" / name).run_dir
            for name, overrides in MODELS.items()
        }
        for name in MODELS:  # two epochs are not above their control
            registry.promote(client(), f"watkins-{name}/1")
    yield Tracked(server.address, runs)
    server.stop()


@pytest.fixture(scope="module")  # Playwright runs once at a time, and other files here drive it themselves
def browser(tracked):
    """The UI in a headless Chromium, on the experiment of the recipes."""
    from screenshots import Ui

    with Ui(tracked.address, "watkins") as ui:
        yield ui


@pytest.fixture
def ui(browser):
    """The UI; no page may report an error or ask another machine for anything."""
    yield browser
    browser.close_pages()
    assert browser.errors == []
    assert browser.strangers == []
