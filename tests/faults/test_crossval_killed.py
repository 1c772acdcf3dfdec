"""A cross-validation that is killed or told to stop goes on with the same command and ends as one left alone."""

from __future__ import annotations

import itertools
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support import EXPERIMENTS
from tests.support.children import Command, KillAt
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.faults
RESULT = ("history.csv", "reports", "preds", "misclassified")


def start(folder: Path, data: Path, **how) -> Command:
    """`watkins crossval` over three folds of six epochs, in a folder of its own."""
    overrides = [
        f"data.dir={data}", "data.batch_size=8", "train.epochs=6", "train.early_stopping_patience=6",
        "train.device=cpu", "tracking.experiment=sea",
    ]  # fmt: skip
    words = [word for override in overrides for word in ("-o", override)]
    return Command(folder, "crossval", EXPERIMENTS / "baseline.yaml", "--folds", 3, "--name", "folds", *words, **how)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    began = time.monotonic()
    command = start(folder, prepared, uri="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert command.wait() == 0, command.said
    (folder / "seconds").write_text(str(time.monotonic() - began))
    return folder / "runs" / "folds"


def assert_same(run: Path, reference: Path) -> None:
    """Parent and folds: the same history, reports and predictions, byte for byte."""
    for root in ("", "fold-1", "fold-2", "fold-3"):
        for name in RESULT:
            files = sorted(path.relative_to(reference) for path in (reference / root / name).rglob("*.*"))
            for file in files or [Path(root) / name]:
                assert (run / file).read_bytes() == (reference / file).read_bytes(), file


def assert_tracked(wanted: int = 4) -> None:
    """MLflow has one finished parent and below it every fold once."""
    experiment = client().get_experiment_by_name("sea").experiment_id
    runs = {run.info.run_name: run for run in client().search_runs([experiment])}
    assert len(client().search_runs([experiment])) == len(runs) == wanted
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    parent = runs.pop("folds")
    assert {run.data.tags["mlflow.parentRunId"] for run in runs.values()} == {parent.info.run_id}
    assert len(client().get_metric_history(parent.info.run_id, "fold/test_accuracy")) == 3


def test_killed_at_random_moments(prepared, undisturbed, store, tmp_path):
    chance, kills, whole = random.Random(0), 0, float((undisturbed.parents[1] / "seconds").read_text())
    for _ in range(12):
        kills += start(tmp_path, prepared).kill_after(chance.uniform(0.05, 0.5) * whole)
    command = start(tmp_path, prepared)
    assert command.wait() == 0, command.said
    assert kills >= 3
    assert_same(tmp_path / "runs" / "folds", undisturbed)
    assert_tracked()


def test_killed_before_one_durable_write_after_the_other(prepared, undisturbed, store, tmp_path):
    kills = 0
    for number in itertools.chain(range(1, 13), itertools.count(20, 9)):
        command = start(tmp_path, prepared, fault=KillAt(number))
        if command.wait() == 0:
            break
        assert command.process.exitcode == -signal.SIGKILL, command.said
        kills += 1
    assert kills >= 13
    assert_same(tmp_path / "runs" / "folds", undisturbed)
    assert_tracked()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_closes_the_fold_and_the_parent(prepared, undisturbed, store, tmp_path, number):
    command = start(tmp_path, prepared)
    history, deadline = tmp_path / "runs" / "folds" / "fold-2" / "history.csv", time.monotonic() + 120
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    command.send(number)
    assert command.wait() == 1
    assert command.said.splitlines()[-1].endswith("the same command goes on with it"), command.said
    experiment = client().get_experiment_by_name("sea").experiment_id
    statuses = {run.info.run_name: run.info.status for run in client().search_runs([experiment])}
    assert statuses == {"folds": "KILLED", "fold 1 of 3, folds": "FINISHED", "fold 2 of 3, folds": "KILLED"}
    command = start(tmp_path, prepared)
    assert command.wait() == 0, command.said
    assert "Fold 1 of" not in command.said, "a finished fold is not trained again"
    assert_same(tmp_path / "runs" / "folds", undisturbed)
    assert_tracked()
