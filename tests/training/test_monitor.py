"""Which epoch is kept, from its history alone and while a training goes on."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import EXPERIMENTS
from watkins_ml.config import load_config, load_stored
from watkins_ml.training.checkpoints import load_checkpoint, save_checkpoint
from watkins_ml.training.monitor import VAL_LOSS, VAL_MACRO_F1, best_epoch, is_tie
from watkins_ml.training.trainer import Trainer

RECIPES = EXPERIMENTS
NAN = math.nan


@pytest.mark.parametrize(
    ("monitor", "kept"), [("val_macro_f1", 2), ("val_accuracy", 3), ("val_loss", 1), ("val_calibrated_loss", 4)]
)
def test_each_monitor_keeps_the_best_of_its_own_column(monitor, kept):
    table = history([0.4, 0.7, 0.5, 0.6], [1.0, 0.9, 0.8, 0.7], [1.0, 2.0, 3.0, 4.0])
    assert best_epoch(table.assign(val_accuracy=[0.5, 0.6, 0.8, 0.8 - 1e-6]), monitor) == kept


def history(f1: list[float], calibrated: list[float], loss: list[float]) -> pd.DataFrame:
    columns = {"val_macro_f1": f1, "val_calibrated_loss": calibrated, "val_loss": loss}
    return pd.DataFrame({"epoch": range(1, len(f1) + 1), **columns})


@pytest.mark.parametrize(
    ("f1", "calibrated", "loss", "by_f1", "by_loss"),
    [
        # the loss weighted by class rises while the network learns
        ([0.02, 0.45, 0.60], [3.0, 1.6, 1.4], [2.9, 3.4, 4.1], 3, 1),
        # equal macro F1: the calibrated loss decides, whichever comes first
        ([0.5, 0.6, 0.6, 0.6], [1.0, 0.9, 0.7, 0.8], [1.0, 0.5, 0.9, 0.4], 3, 4),
        ([0.6, 0.6], [0.7, 0.9], [1.0, 0.5], 1, 2),
        # equal in both: the first
        ([0.5, 0.6, 0.6], [1.0, 0.7, 0.7], [1.0, 0.5, 0.5], 2, 2),
        # equal but for rounding: a mean of the same fractions, added in another order
        ([(0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3], [0.8, 0.7], [1.0, 2.0], 2, 1),
        # what is not a number is never kept while another is there
        ([NAN, 0.1, NAN], [0.1, 2.0, 0.1], [NAN, 3.0, NAN], 2, 2),
        ([0.5, 0.5], [NAN, 2.0], [1.0, NAN], 2, 1),
        ([NAN, NAN], [NAN, NAN], [NAN, NAN], 1, 1),
    ],
)
def test_the_kept_epoch_by_each_rule(f1, calibrated, loss, by_f1, by_loss):
    assert (0.1 + 0.2 + 0.3) / 3 > (0.3 + 0.2 + 0.1) / 3
    table = history(f1, calibrated, loss)
    assert best_epoch(table, VAL_MACRO_F1) == by_f1
    assert best_epoch(table, VAL_LOSS) == by_loss


def test_a_history_of_an_earlier_version_without_the_calibrated_loss_is_read():
    table = history([0.4, 0.6, 0.6], [0.0] * 3, [1.0, 0.9, 0.8]).drop(columns="val_calibrated_loss")
    assert best_epoch(table, VAL_LOSS) == 3
    assert best_epoch(table, VAL_MACRO_F1) == 2


def test_only_equal_macro_f1_is_a_tie():
    rows = history([0.5, 0.5, 0.6, 0.5], [1.0, 0.9, 0.9, 1.0], [1.0] * 4).to_dict("records")
    assert is_tie(rows[0], rows[1], VAL_MACRO_F1)
    assert not is_tie(rows[1], rows[2], VAL_MACRO_F1) and not is_tie(rows[0], rows[3], VAL_MACRO_F1)
    assert not is_tie(rows[0], rows[1], VAL_LOSS)


def trainer(monitor: str, patience: int = 1) -> Trainer:
    """A trainer of a network of one layer, which starts with a rate of 1 and halves it."""
    rule = [f"train.monitor={monitor}", f"optim.plateau_patience={patience}", "optim.lr=1.0"]
    config = load_config(RECIPES / "baseline.yaml", [*rule, "optim.plateau_factor=0.5", "train.device=cpu"])
    return Trainer(config, torch.nn.Linear(2, 3), torch.ones(3), torch.device("cpu"))


def told(one: Trainer, row: dict[str, float]) -> float:
    """The learning rate after an epoch."""
    one.finish_epoch(row)
    one.last = one.checkpoint({"metrics": row, "timing": {}})
    return one.optimizer.param_groups[0]["lr"]


def expected_rates(table: pd.DataFrame, patience: int) -> list[float]:
    """By the rule of macro F1: halved after each `patience` + 1 epochs that were not the best so far."""
    rates, rate, waited = [], 1.0, 0
    for count in range(1, len(table) + 1):
        waited = 0 if best_epoch(table[:count], VAL_MACRO_F1) == count else waited + 1
        if waited > patience:
            rate, waited = rate / 2, 0
        rates.append(rate)
    return rates


few = st.sampled_from([0.0, 1 / 3, 0.5, 2 / 3])
rows = st.lists(st.tuples(few, few, few), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from([VAL_MACRO_F1, VAL_LOSS]), st.integers(0, 2), st.data())
def test_a_training_keeps_what_its_history_says_also_resumed_anywhere(tmp_path_factory, drawn, monitor, patience, data):
    """Best epoch, epochs without a better one and learning rate, with a checkpoint taken up in between."""
    table = history(*map(list, zip(*drawn, strict=True)))
    epochs, cut = table.to_dict("records"), data.draw(st.integers(1, len(drawn)), "cut")
    whole, first = trainer(monitor, patience), trainer(monitor, patience)
    rates = [told(whole, row) for row in epochs]
    for row in epochs[:cut]:
        told(first, row)
    path = tmp_path_factory.getbasetemp() / "cut.pt"
    save_checkpoint(path, first.last)
    resumed = trainer(monitor, patience)
    resumed.restore(load_checkpoint(path))
    assert [told(resumed, row) for row in epochs[cut:]] == rates[cut:]
    assert resumed.progress == whole.progress
    for each in (whole, resumed):
        kept = best_epoch(table, monitor)
        assert each.progress.best_epoch == each.best.facts["epoch"] == kept
        assert each.progress.stale_epochs == len(table) - kept
    if monitor == VAL_MACRO_F1:
        assert rates == expected_rates(table, patience)


def test_by_validation_loss_the_rate_falls_as_in_the_original_study():
    """torch's own rule: a loss that falls by less than a ten-thousandth is no better."""
    losses = [2.0, 1.5, 1.49999, 1.49998, 1.2, 1.3, 1.3, 1.1]
    one = trainer(VAL_LOSS, patience=1)
    parameter = torch.nn.Parameter(torch.zeros(1))
    torchs = torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.SGD([parameter], lr=1.0), factor=0.5, patience=1)
    for row in history([0.5] * 8, [1.0] * 8, losses).to_dict("records"):
        rate = told(one, row)
        torchs.step(row["val_loss"])
        assert rate == torchs.get_last_lr()[0]
    assert rate == 0.25


def test_a_run_of_an_earlier_version_went_by_the_loss(tmp_path):
    config = load_config(RECIPES / "baseline.yaml")
    assert config.train.monitor == VAL_MACRO_F1
    (tmp_path / "config.yaml").write_text(config.to_yaml().replace("  monitor: val_macro_f1\n", ""))
    assert "monitor" not in (tmp_path / "config.yaml").read_text()
    earlier = load_stored(tmp_path / "config.yaml")
    assert earlier.train.monitor == VAL_LOSS
    assert earlier.model_copy(update={"train": config.train}) == config
    assert load_stored(tmp_path / "config.yaml", ["train.monitor=val_macro_f1"]) == config
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_stored(tmp_path / "config.yaml") == config
