"""`torchrun … -m watkins_ml`: several processes train one run, on one machine or on two."""

import shutil
from pathlib import Path

import pandas as pd
import pytest

from tests.support import EXPERIMENTS
from tests.support.launch import NOBODY, Forked, Launched, two_machines
from tests.support.servers import free_port
from watkins_ml.config import load_stored
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.models.bundle import load_bundle
from watkins_ml.runs.train import read_inputs, report_test, report_validation
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.slow
RECIPE = EXPERIMENTS / "baseline.yaml"


def words(data: Path, *overrides: str) -> list[str]:
    """`train` with three epochs of batches of seven, of which the last has three recordings."""
    small = [f"data.dir={data}", "data.batch_size=7", "train.epochs=3", "train.device=cpu", *overrides]
    return ["-m", "watkins_ml", "train", str(RECIPE), "--run-dir", "run", *(w for each in small for w in ("-o", each))]


def history(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "run" / "history.csv", float_precision="round_trip")


@pytest.fixture(scope="module")
def two(prepared, empty_store, tmp_path_factory) -> Launched:
    """A run that two processes have finished, and the embedded store beside it. Read only."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    launched = Launched(folder, *words(prepared), fork=True)
    assert launched.wait() == 0, launched.said
    return launched


def test_two_processes_write_the_history_of_one(two, recipe, tmp_path):
    """Within what rounding alone does to it: two threads instead of one change the third digit, too."""
    from watkins_ml.runs.train import run_experiment

    run_experiment(recipe("baseline", "data.batch_size=7", "train.epochs=3"), tmp_path / "run")
    alone, together = history(tmp_path), history(two.output.parent)
    assert list(alone) == list(together)
    assert together["learning_rate"].tolist() == alone["learning_rate"].tolist()
    for loss in ("train_loss", "val_loss"):
        assert together[loss].tolist() == pytest.approx(alone[loss].tolist(), rel=0.05)


def test_the_first_alone_prints_and_tracks(two, monkeypatch):
    monkeypatch.chdir(two.output.parent)
    for once in ("epoch   1/3", "epoch   3/3", "Evaluating", "2 processes; if one of them dies"):
        assert two.said.count(once) == 1, two.said
    assert "Warning" not in two.said
    run = RunDirectory(Path("run"))
    kinds = [entry.kind for entry in run.entries()]
    assert [kinds.count(kind) for kind in ("start", "epoch", "end")] == [1, 3, 1]
    (tracked,) = client().search_runs([client().get_experiment_by_name("watkins").experiment_id])
    assert tracked.info.status == run.facts.status == "FINISHED"
    assert tracked.data.tags["processes"] == "2"
    assert len(client().search_model_versions("name='watkins-baseline'")) == 1


def test_what_two_processes_report_is_what_one_says_of_the_same_weights(two, tmp_path):
    """Every cut once, also of uneven last batches: reports, confusion and predictions equal byte for byte."""
    theirs = two.output.parent / "run"
    config = load_stored(theirs / "config.yaml")
    inputs, network = read_inputs(config), load_bundle(theirs / "model").network
    run = RunDirectory.create(tmp_path / "run", config, inputs.data)
    shutil.copy(theirs / "history.csv", run.root)
    metrics = report_validation(network, inputs, run, config.train.monitor)
    report_test(network, inputs.data, run, metrics)
    written = [path.relative_to(run.root) for part in ("reports", "preds", "misclassified") for path in
               (run.root / part).iterdir()]  # fmt: skip
    assert {"reports/metrics.json", "reports/test_confusion_pairs.csv", "preds/test.csv"} <= set(map(str, written))
    for path in written:
        assert (run.root / path).read_bytes() == (theirs / path).read_bytes(), path


def test_two_machines_write_the_same_history_and_only_the_first_has_a_run(two, prepared, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
    with two_machines(folders, free_port(), *words(prepared), **NOBODY) as launched:
        assert [each.wait() for each in launched] == [0, 0], [each.said for each in launched]
    assert (folders[0] / "run/history.csv").read_bytes() == (two.output.parent / "run/history.csv").read_bytes()
    assert [path.name for path in folders[1].iterdir()] == [launched[1].output.name]
    assert "epoch" not in launched[1].said


def test_a_file_that_the_second_machine_lacks_is_named_before_anything_is_written(prepared, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
        shutil.copytree(prepared, folder / "data")
    gone = folders[1] / "data" / read_prepared(prepared).sides["train"]["spectrogram"][0]
    gone.unlink()
    forked = Forked(folders, *words(Path("data"))[2:])
    assert 0 not in forked.wait()
    assert len(forked.lines) == 1 and f"{gone.name}: missing" in forked.lines[0]
    assert not (folders[0] / "run").exists()


def test_other_data_on_the_second_machine_is_refused(prepared, tmp_path):
    folders = tmp_path / "first", tmp_path / "second"
    for folder in folders:
        folder.mkdir()
        shutil.copytree(prepared, folder / "data")
    summary = folders[1] / "data" / "dataset.json"
    digest = read_prepared(prepared).digest
    summary.write_text(summary.read_text().replace(digest, "0123456789abcdef"))
    forked = Forked(folders, *words(Path("data"))[2:])
    assert 0 not in forked.wait()
    assert len(forked.lines) == 1 and f"data digest 0123456789abcdef, not {digest}" in forked.lines[0]
    assert not (folders[0] / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["predict", "runs/x", "a.wav"], "predict: only `train` can be shared"),
        (["train", str(RECIPE), "-o", "data.batch_size=1", "-o", "train.device=cpu"], "data.batch_size 1: too small"),
        (["train", "none.yaml"], "none.yaml: cannot read this recipe"),
    ],
)
def test_a_misuse_is_said_once(tmp_path, arguments, sentence):
    forked = Forked([tmp_path] * 2, *arguments)
    assert set(forked.wait()) <= {1, 2}
    assert len(forked.lines) == 1 and sentence in forked.lines[0], forked.said
    assert not (tmp_path / "runs").exists()


def test_a_finished_run_is_only_said_to_be_finished(two, tmp_path):
    shutil.copytree(two.output.parent / "run", tmp_path / "run")
    forked = Forked([tmp_path] * 2, "train", "--resume", "run")
    assert forked.wait() == [0, 0], forked.said
    assert forked.said.count("run: this run has finished") == 1
