"""Training on a GPU: steps that are replayed are the steps taken one by one, and the host never waits for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from tests.support import ROOT
from tests.support.launch import Launched
from tests.support.small import CLASSES, RECIPES, CutOff, bands, same_weights
from watkins_ml.core.distributed import SingleProcess
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import Side, open_side
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training import cuda_graph
from watkins_ml.training.checkpoints import latest_checkpoint
from watkins_ml.training.features import FeatureCache
from watkins_ml.training.loop import fit
from watkins_ml.training.trainer import Trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU that torch can use")
MANY = 61
"""Recordings: seven whole batches of eight, of which four are replayed in the first epoch, and one of five."""

SCRIPT = ROOT / "tests/support/in_double.py"
SHARED = ["mixed-and-weighted", "smoothed-and-weighted", "frozen"]
ALSO = {
    "fp16": ["train.amp=fp16"],
    "compiled": ["train.compile=true"],
    "smoothed": ["train.label_smoothing=0.1"],
}
SURE = ["train.amp=none", "model.dropout=0"]
"""Nothing that another kind of device does in its own way, but for the last bits."""


@pytest.fixture
def train(recipe, tmp_path):
    """A function that trains on the GPU, or goes on from the newest checkpoint; returns the network and its run."""

    def run(name: str, *overrides: str, model: str = "baseline", val: Side | None = None, record=None, **more):
        config = recipe(model, "train.epochs=4", "train.device=cuda", *overrides)
        record = record or RunDirectory(tmp_path / name)
        build, val = partial(build_model, config.model, 3), val or bands(12, seed=1)
        start, judge = latest_checkpoint(record.checkpoints), partial(score_epoch, classes=CLASSES)
        return fit(config, build, bands(MANY), val, 3, judge, record, start, **more), record

    return run


def replays_of(monkeypatch) -> list[int]:
    """Counts, from now on, the steps that are replayed."""
    counts, original = [0], torch.cuda.CUDAGraph.replay

    def counted(graph) -> None:
        counts[0] += 1
        original(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", counted)
    return counts


@pytest.mark.parametrize("name", [*RECIPES, *ALSO])
def test_replayed_steps_give_the_history_of_steps_taken_one_by_one(train, monkeypatch, name):
    how = dict(RECIPES.get(name, {}))
    overrides = how.pop("overrides", ALSO.get(name, []))
    counts = replays_of(monkeypatch)
    network, record = train("replayed", *overrides, **how)
    steps = 4 * (MANY // 8) + 4 * 1 - 2 * cuda_graph.WARM_UP  # twelve recordings of validation are one whole batch
    assert counts == [steps]
    monkeypatch.setattr(cuda_graph, "WARM_UP", 1000)
    again, one_by_one = train("one-by-one", *overrides, **how)
    assert counts == [steps]
    assert record.history.read_bytes() == one_by_one.history.read_bytes()
    assert same_weights(network, again)
    if name == "plateau":
        assert record.read_history()["learning_rate"].nunique() > 2


def test_the_same_seed_gives_the_same_history(train):
    (first, record), (second, other) = train("first"), train("second")
    assert record.history.read_bytes() == other.history.read_bytes()
    assert same_weights(first, second)


def test_a_gpu_learns_what_a_cpu_learns(train, recipe):
    _, record = train("gpu", *SURE)
    _, other = train("cpu", *SURE, "train.device=cpu")
    for loss in ("train_loss", "val_loss"):
        mine, theirs = (each.read_history()[loss].tolist() for each in (record, other))
        assert mine == pytest.approx(theirs, rel=0.05)


@pytest.mark.parametrize(("before", "after"), [("cuda", "cuda"), ("cuda", "cpu"), ("cpu", "cuda")])
def test_a_training_that_was_cut_off_goes_on_here_and_on_a_machine_without(train, tmp_path, before, after):
    whole, record = train("whole", *SURE)
    with pytest.raises(KeyboardInterrupt):
        train("cut", *SURE, f"train.device={before}", record=CutOff(tmp_path / "cut", 2))
    rest = RunDirectory(tmp_path / "cut")
    network, _ = train("cut", *SURE, f"train.device={after}", record=rest)
    assert rest.read_history()["epoch"].iloc[-1] == 4
    if before == after:
        assert same_weights(whole, network)
    last = [each.read_history()["val_loss"].iloc[-1] for each in (record, rest)]
    assert last[0] == pytest.approx(last[1], rel=0.05)


@pytest.mark.parametrize("model", ["baseline", "efficientnet"])
@pytest.mark.parametrize("mixed", [[], ["augment.mixup=0.4", "augment.freq_mask=8"]], ids=["plain", "mixed"])
def test_the_host_does_not_wait_inside_an_epoch(train, monkeypatch, model, mixed):
    """From the second epoch on; in the first the step is recorded."""
    epoch, total = Trainer.train_epoch, SingleProcess.all_reduce

    def watched(trainer, split, on_step):
        if trainer.progress.epoch:
            torch.cuda.set_sync_debug_mode("error")
        return epoch(trainer, split, on_step)

    def until_the_end(group, tensor):
        assert trainer_waits() == (epochs[0] == 0)
        epochs[0] += 1
        torch.cuda.set_sync_debug_mode("default")
        return total(group, tensor)

    def trainer_waits() -> bool:
        return torch.cuda.get_sync_debug_mode() == 0

    epochs = [0]
    monkeypatch.setattr(Trainer, "train_epoch", watched)
    monkeypatch.setattr(SingleProcess, "all_reduce", until_the_end)
    try:
        train("run", "train.epochs=3", *mixed, model=model)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert epochs == [3]


def test_spectrograms_read_from_the_disk_give_the_history_of_those_on_the_gpu(recipe, prepared, tmp_path):
    data, config = read_prepared(prepared), recipe("baseline", "train.device=cuda", "data.batch_size=4")
    histories = []
    for name, memory in (("near", True), ("disk", False)):
        train, val = open_side(data, "train"), open_side(data, "val")
        if memory:
            train, val = (Side(side.frame, side.spectrograms[:], side.labels) for side in (train, val))
        assert train.near(torch.device("cuda")).labels.is_cuda == memory
        build, record = partial(build_model, config.model, 3), RunDirectory(tmp_path / name)
        fit(config, build, train, val, 3, partial(score_epoch, classes=data.classes), record)
        histories.append(record.history.read_bytes())
    assert histories[0] == histories[1]


def test_outputs_of_frozen_stages_are_trained_on(train, monkeypatch, tmp_path):
    counts = replays_of(monkeypatch)
    plain = ["augment.time_roll=false", "model.freeze_depth=6", *SURE]
    store = FeatureCache(tmp_path / "features", "digest", 1.0)
    _, record = train("kept", *plain, model="efficientnet", features=store)
    assert counts[0] and any((tmp_path / "features").iterdir())
    _, other = train("anew", *plain, model="efficientnet")
    assert record.read_history()["val_loss"].tolist() == pytest.approx(
        other.read_history()["val_loss"].tolist(), rel=0.05
    )


def test_a_batch_that_its_memory_cannot_take_is_one_sentence(train):
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(60e6 / whole)  # takes the network, but not what a step needs
    try:
        with pytest.raises(UserError, match=r"data.batch_size 61: the GPU's memory cannot take"):
            train("run", "data.batch_size=61", model="efficientnet")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """Histories of one process on the GPU, in double precision, by recipe."""
    out = tmp_path_factory.mktemp("alone") / "histories.json"
    command = [sys.executable, SCRIPT, out, *SHARED]
    subprocess.run(command, check=True, env=os.environ | {"DEVICE": "cuda"}, timeout=300)
    return json.loads(out.read_text())


@pytest.mark.parametrize("count", [1, 2])
def test_processes_that_share_a_gpu_train_what_one_would(alone, tmp_path, count):
    """The one over NCCL; two over gloo, with shares of seven recordings that are uneven."""
    launched = Launched(tmp_path, SCRIPT, "histories.json", *SHARED, count=count, DEVICE="cuda", NCCL_DEBUG="INFO")
    assert launched.wait() == 0, launched.said
    assert ("Init COMPLETE" in launched.said) == (count == 1)
    together = json.loads((tmp_path / "histories.json").read_text())
    for name in SHARED:
        assert len(together[name]) == len(alone[name]) > 0
        for mine, theirs in zip(together[name], alone[name], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-6)
