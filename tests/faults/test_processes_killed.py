"""Several processes train one run: whichever dies, all end, one of them says how to go on, and nothing is lost."""

import os
import signal
from pathlib import Path

import pandas as pd
import pytest

from tests.support import EXPERIMENTS
from tests.support.children import wait_for_epochs
from tests.support.launch import NOBODY, Launched
from tests.support.outcome import assert_same_result, assert_tracked_once
from watkins_ml.tracking.rundir import RunDirectory

pytestmark = pytest.mark.faults
RECIPE = EXPERIMENTS / "baseline.yaml"
RESUME = ("-m", "watkins_ml", "train", "--resume", "run")
AGAIN = "continue with: torchrun --standalone --nproc-per-node 2 -m watkins_ml train --resume run"


def start(data: Path, folder: Path, name: str = "null", **environment) -> Launched:
    settings = [f"data.dir={data}", "data.batch_size=7", "train.epochs=6", "train.early_stopping_patience=6"]
    settings += ["train.device=cpu", f"tracking.register_as={name}"]
    words = [word for setting in settings for word in ("-o", setting)]
    return Launched(folder, "-m", "watkins_ml", "train", RECIPE, "--run-dir", "run", *words, **environment)


@pytest.fixture(scope="module")
def undisturbed(prepared, tmp_path_factory) -> Path:
    """The run directory of two processes that nobody kills. Read only."""
    folder = tmp_path_factory.mktemp("undisturbed")
    launched = start(prepared, folder, **NOBODY)
    assert launched.wait() == 0, launched.said
    return folder / "run"


@pytest.mark.parametrize("rank", [0, 1])
def test_one_process_killed_ends_all_and_the_run_goes_on(prepared, undisturbed, store, tmp_path, rank):
    launched = start(prepared, tmp_path, "killed")
    wait_for_epochs(tmp_path, 2)
    os.kill(launched.pid(rank), signal.SIGKILL)
    assert launched.wait(60) == 1
    (line,) = launched.lines
    assert line.endswith(AGAIN)
    ours = launched.said.split("torch/distributed/elastic")[0]  # from there on the launcher speaks
    assert "Traceback" not in ours, ours
    assert RunDirectory(tmp_path / "run").facts.status == ("RUNNING" if rank == 0 else "KILLED")
    resumed = Launched(tmp_path, *RESUME)
    assert resumed.wait() == 0, resumed.said
    assert_same_result(tmp_path / "run", undisturbed)
    assert_tracked_once(store, tmp_path / "run", "killed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_to_the_launcher_closes_the_run_as_killed(prepared, store, tmp_path, number):
    launched = start(prepared, tmp_path, "stopped")
    wait_for_epochs(tmp_path, 2)
    launched.process.send_signal(number)
    assert launched.wait(60) != 0
    (line,) = launched.lines
    assert line.endswith(AGAIN)
    run = RunDirectory(tmp_path / "run")
    assert run.facts.status == "KILLED"
    assert store.get_run(run.facts.mlflow_run_id).info.status == "KILLED"


def test_another_number_of_processes_goes_on(prepared, undisturbed, tmp_path):
    launched = start(prepared, tmp_path, **NOBODY)
    wait_for_epochs(tmp_path, 2)
    os.kill(launched.pid(1), signal.SIGKILL)
    launched.wait(60)
    done = len(pd.read_csv(tmp_path / "run/history.csv"))
    resumed = Launched(tmp_path, *RESUME, count=3, **NOBODY)
    assert resumed.wait() == 0, resumed.said
    assert "processes was 2, now 3" in resumed.said
    mine, theirs = (
        pd.read_csv(root / "history.csv", float_precision="round_trip") for root in (tmp_path / "run", undisturbed)
    )
    pd.testing.assert_frame_equal(mine[:done], theirs[:done], check_exact=True)
    assert mine["epoch"].tolist() == theirs["epoch"].tolist()
    for loss in ("train_loss", "val_loss"):
        assert mine[loss].tolist() == pytest.approx(theirs[loss].tolist(), rel=0.2)
