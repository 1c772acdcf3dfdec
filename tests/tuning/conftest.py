"""A small study, and databases to keep it in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support import EXPERIMENTS
from tests.support.children import CONTEXT, work_without_pictures
from tests.support.servers import Postgres
from watkins_ml.tuning import tune
from watkins_ml.tuning.recipe import StudyRecipe, load_study
from watkins_ml.tuning.storage import StudyDatabase
from watkins_ml.tuning.study import Study

BASELINE = EXPERIMENTS / "baseline.yaml"
RECIPE = """
base: {base}
data: {{dir: {data}, batch_size: 8}}
train: {{epochs: 3, device: cpu}}
tracking: {{experiment: sea, register_as: small}}
study:
  trials: 5
  startup_trials: 2
  warmup_epochs: 1
  heartbeat_seconds: 1
  search:
    optim.lr: {{low: 0.0001, high: 0.02, log: true}}
    train.class_weights: {{choices: [balanced, none]}}
"""


@pytest.fixture(scope="module", autouse=True)
def workers_from_the_fork_server() -> Iterator[None]:
    """Worker processes of a study are real ones, but need not import the libraries, and draw blank pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "multiprocessing", SimpleNamespace(get_context=lambda _: CONTEXT))
        patch.setattr(tune, "work", work_without_pictures)
        yield


@pytest.fixture
def recipe_file(prepared, tmp_path) -> Path:
    """The recipe of a small study of the baseline: five points of three epochs."""
    file = tmp_path / "small.yaml"
    file.write_text(RECIPE.format(base=BASELINE, data=prepared))
    return file


@pytest.fixture
def small(recipe_file) -> StudyRecipe:
    return load_study(recipe_file)


@pytest.fixture(scope="session")
def postgres():
    running = Postgres().start()
    yield running
    running.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def storage(request, tmp_path) -> str:
    """The URL of a database; PostgreSQL is shared, so studies there need names of their own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'studies.db'}"
    return request.getfixturevalue("postgres").url()


@pytest.fixture
def begin(tmp_path):
    """A function that opens a study as a process on some machine would."""

    def open_study(recipe: StudyRecipe, url: str | None = None, folder: str = "here") -> Study:
        database = StudyDatabase(url or f"sqlite:///{tmp_path / 'studies.db'}", recipe.settings.heartbeat_seconds)
        return Study.open(database, recipe, tmp_path / folder, "digest")

    return open_study
