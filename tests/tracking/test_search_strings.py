"""What the README says how to search on MLflow finds what it should."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.support import ROOT
from watkins_ml.core.metric_names import on_server
from watkins_ml.tracking.server import client

SEARCHES = re.search(r"```text\n(metrics\..*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)[1].splitlines()


@pytest.fixture
def server(finished, tmp_path):
    shutil.copytree(finished.folder / "mlflow", tmp_path / "mlflow")
    return client()


@pytest.mark.parametrize("search", SEARCHES)
def test_a_search_of_the_readme_finds_a_run_that_is_so_and_no_other(server, finished, search):
    experiments = [each.experiment_id for each in server.search_experiments()]
    found = server.search_runs(experiments, search)
    for name, bound in re.findall(r"metrics\.`(\S+)` > ([\d.]+)", search):
        every = {key: value for run in server.search_runs(experiments) for key, value in run.data.metrics.items()}
        assert name in every, "a search for a metric that no run has finds nothing"
        assert all(run.data.metrics[name] > float(bound) for run in found)
        above = {on_server(key): value for key, value in finished.metrics.items()}[name] > float(bound)
        assert bool(found) == above
    for key, value in re.findall(r"params\.`(\S+)` = '(\S+)'", search):
        assert all(run.data.params[key] == value for run in found)
        assert any(run.data.params.get(key) == value for run in server.search_runs(experiments))
