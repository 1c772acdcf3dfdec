"""A training cut off after any epoch and continued ends as one that was never cut off."""

from functools import partial

import pytest
import torch

from tests.support.narrow import narrow
from tests.support.small import CLASSES, RECIPES, CutOff, bands, contradicted, same_weights
from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.checkpoints import Checkpoint, latest_checkpoint, load_checkpoint, save_last
from watkins_ml.training.loop import fit


@pytest.fixture(scope="module", autouse=True)
def narrow_efficientnet():
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        yield


@pytest.fixture(scope="module")
def training(recipe):
    """A function that trains, or goes on from the newest checkpoint; returns the network."""

    def run(record: RunDirectory, *overrides: str, model: str = "baseline", val=None):
        config = recipe(model, "train.epochs=5", "train.early_stopping_patience=3", *overrides)
        start = latest_checkpoint(record.checkpoints)
        if start is not None:
            for table in (record.history, record.timing):
                table.unlink(missing_ok=True)
        return fit(
            config, partial(build_model, config.model, 3), bands(), val or bands(12, seed=1), 3,
            partial(score_epoch, classes=CLASSES), record, start,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module", params=RECIPES)
def undisturbed(request, training, tmp_path_factory):
    """A function that trains by a recipe, and what it gave undisturbed: the network and its run directory's folder."""
    how = dict(RECIPES[request.param])
    overrides, folder = how.pop("overrides", []), tmp_path_factory.mktemp("whole")

    def train(record: RunDirectory):
        return training(record, *overrides, **how)

    return train, train(RunDirectory(folder)), folder


@pytest.mark.parametrize("cut", [0, 1, 3])
def test_resumed_after_any_epoch_it_ends_the_same(undisturbed, tmp_path, cut):
    train, whole, folder = undisturbed
    with pytest.raises(KeyboardInterrupt):
        train(CutOff(tmp_path, cut))
    torch.rand(7)  # another process has another random state
    resumed = train(RunDirectory(tmp_path))
    assert same_weights(whole, resumed)
    expected = (folder / "history.csv").read_text().splitlines()[cut + 2 :]
    rest = tmp_path / "history.csv"  # the rows before are the record's to keep
    assert expected == (rest.read_text().splitlines()[1:] if rest.exists() else [])
    for checkpoint in ("best.pt", "last.pt"):
        kept = [load_checkpoint(each / "checkpoints" / checkpoint) for each in (folder, tmp_path)]
        assert kept[0].facts["epoch"] == kept[1].facts["epoch"]
        assert all(torch.equal(kept[0].tensors["model"][key], kept[1].tensors["model"][key])
                   for key in kept[0].tensors["model"])  # fmt: skip


STALE = {"val": contradicted(bands(12, seed=1))}


@pytest.mark.parametrize("rule", ["val_macro_f1", "val_loss"])
def test_resumed_among_epochs_that_were_not_the_best_it_stops_and_slows_as_it_would_have(training, tmp_path, rule):
    how = [f"train.monitor={rule}", "optim.plateau_patience=0", "optim.lr=0.004"]
    whole, resumed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "resumed")
    training(whole, *how, **STALE)
    with pytest.raises(KeyboardInterrupt):
        training(CutOff(resumed.root, 1), *how, **STALE)
    start = latest_checkpoint(resumed.checkpoints).facts
    assert start["epoch"] == 2 and start["stale_epochs"] == 1
    training(resumed, *how, **STALE)
    rows = whole.history.read_text().splitlines()
    assert len(rows) - 1 == 4 and whole.read_history()["learning_rate"].nunique() > 1
    assert resumed.history.read_text().splitlines()[1:] == rows[3:]


def test_a_checkpoint_of_an_earlier_version_is_gone_on_with(training, tmp_path):
    """That one kept the lowest loss by itself, and knew no calibrated loss."""
    how = ["train.monitor=val_loss", "optim.plateau_patience=0", "optim.lr=0.004"]
    whole, resumed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "resumed")
    training(whole, *how, **STALE)
    with pytest.raises(KeyboardInterrupt):
        training(CutOff(resumed.root, 1), *how, **STALE)
    tensors, facts = latest_checkpoint(resumed.checkpoints)
    for each in (facts, facts["best"]):
        del each["metrics"]["val_calibrated_loss"]
        each["best_val_loss"] = facts["best"]["metrics"]["val_loss"]
    save_last(resumed.checkpoints, Checkpoint(tensors, facts))
    training(resumed, *how, **STALE)
    assert resumed.history.read_text().splitlines()[1:] == whole.history.read_text().splitlines()[3:]


def test_the_checkpoint_before_stands_in_for_a_damaged_one(tmp_path, capsys):
    for epoch in (1, 2, 3):
        save_last(tmp_path, Checkpoint({"order": torch.tensor([epoch])}, {"epoch": epoch}))
    assert latest_checkpoint(tmp_path).facts["epoch"] == 3
    (tmp_path / "last.pt").write_bytes((tmp_path / "last.pt").read_bytes()[:300])
    assert latest_checkpoint(tmp_path).tensors["order"].tolist() == [2]
    assert "last.pt: damaged checkpoint" in capsys.readouterr().err
    (tmp_path / "previous.pt").unlink()
    assert latest_checkpoint(tmp_path) is None


@pytest.mark.parametrize("position", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_single_wrong_bit_is_noticed(tmp_path, position):
    save_last(tmp_path, Checkpoint({"weights": torch.arange(5000.0)}, {"epoch": 1}))
    content = bytearray((tmp_path / "last.pt").read_bytes())
    content[int(position * len(content))] ^= 4
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(UserError, match="damaged checkpoint"):
        load_checkpoint(tmp_path / "last.pt")
