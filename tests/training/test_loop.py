import json
import math
import shutil
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.small import CLASSES, bands, contradicted, same_weights
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import Side, load_side, open_side
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from watkins_ml.training.loop import fit
from watkins_ml.training.monitor import best_epoch, is_tie
from watkins_ml.training.optimizer import parameter_groups
from watkins_ml.training.trainer import Trainer, move_average, predict_logits
from watkins_ml.training.weighing import balanced_weights


@pytest.fixture
def train(recipe, tmp_path):
    """A function that trains into a new run directory; returns the network, the run and its history."""

    def run(*overrides: str, train: Side | None = None, val: Side | None = None, name: str = "run", build=None):
        config = recipe("baseline", "train.epochs=3", *overrides)
        record = RunDirectory(tmp_path / name)
        network = fit(
            config,
            build or partial(build_model, config.model, 3),
            train or bands(),
            val or bands(12, seed=1),
            3,
            partial(score_epoch, classes=CLASSES),
            record,
        )
        return network, record, pd.read_csv(record.history, float_precision="round_trip")

    return run


def test_configuration_and_seed_decide_history_and_weights(train):
    first, first_run, _ = train("train.epochs=2", name="a")
    torch.rand(5)  # whatever the process drew before must not matter
    second, second_run, _ = train("train.epochs=2", name="b")
    assert first_run.history.read_bytes() == second_run.history.read_bytes()
    assert same_weights(first, second)
    other, other_run, _ = train("train.epochs=2", "train.seed=1", name="c")
    assert first_run.history.read_bytes() != other_run.history.read_bytes()
    assert not same_weights(first, other)


def test_both_splits_may_move_to_the_memory_of_the_device(train, monkeypatch):
    """Without a GPU none does; the test holds that training asks."""
    asked, near = [], Side.near
    monkeypatch.setattr(Side, "near", lambda split, device: asked.append((len(split), device)) or near(split, device))
    train("train.epochs=1")
    assert asked == [(24, torch.device("cpu")), (12, torch.device("cpu"))]


def test_history_has_a_row_an_epoch_with_every_metric(train):
    _, _, history = train()
    assert history["epoch"].tolist() == [1, 2, 3]
    assert set(history) == {
        "epoch", "train_loss", "train_accuracy", "learning_rate", "val_loss", "val_accuracy", "val_macro_f1",
        "val_macro_precision", "val_macro_recall", "val_calibrated_loss",
    }  # fmt: skip
    assert history.notna().all(axis=None)


def test_training_learns_the_classes(train):
    _, _, history = train("train.epochs=6", "optim.lr=0.003")
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["val_accuracy"].max() >= 0.9


@pytest.mark.slow
def test_training_learns_the_tone_archive(recipe, prepared, tmp_path):
    data = read_prepared(prepared)
    config = recipe(
        "baseline", "data.batch_size=4", "train.epochs=12", "optim.lr=0.003", "train.early_stopping_patience=12"
    )
    train, val = (
        Side(side.frame, side.spectrograms[..., :100], side.labels)  # a second of a steady tone is enough
        for side in (load_side(data, "train"), load_side(data, "val"))
    )
    record = RunDirectory(tmp_path / "run")
    build = partial(build_model, config.model, len(data.classes))
    fit(config, build, train, val, len(data.classes), partial(score_epoch, classes=data.classes), record)
    assert record.read_history()["val_accuracy"].max() >= 0.8


def test_spectrograms_read_from_the_disk_give_the_same_history(recipe, prepared, tmp_path):
    data, config = read_prepared(prepared), recipe("baseline", "data.batch_size=16", "train.epochs=1")
    histories = []
    for read in (load_side, open_side):
        record = RunDirectory(tmp_path / read.__name__)
        build = partial(build_model, config.model, len(data.classes))
        sides = (read(data, side) for side in ("train", "val"))
        fit(config, build, *sides, len(data.classes), partial(score_epoch, classes=data.classes), record)
        histories.append(record.history.read_bytes())
    assert histories[0] == histories[1]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles with a C++ compiler")
@pytest.mark.system
def test_a_compiled_training_learns_the_same(train, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    same, val = ("train.epochs=2", "model.dropout=0.0"), bands(8, seed=1)  # dropout is drawn in another way
    _, _, plain = train(*same, val=val, name="plain")
    network, _, compiled = train(*same, "train.compile=true", val=val, name="compiled")
    np.testing.assert_allclose(compiled["train_loss"], plain["train_loss"], rtol=1e-3)
    assert not any(name.startswith("_orig_mod") for name in network.state_dict())


def plain_network() -> torch.nn.Module:
    """One layer, which torch is soon done with."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(32 * 24, 3))


def test_where_nothing_can_be_compiled_one_sentence_says_so(train, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("/no/compiler",))
    torch.compiler.reset()
    with pytest.raises(UserError, match=r"train.compile: torch cannot compile .* set train.compile=false"):
        train("train.epochs=1", "train.compile=true", build=plain_network)


def partly_wrong() -> Side:
    """Recordings of which every fourth has another name: the surer the network, the dearer these are, right or not."""
    split = bands(24, seed=1)
    wrong = torch.arange(24) % 4 == 0
    return Side(split.frame, split.spectrograms, torch.where(wrong, (split.labels + 1) % 3, split.labels))


def check_terminal(lines: list[str], history: pd.DataFrame, rule: str) -> None:
    """It says which epoch is best so far, which are equal, and in the end which is kept and by what."""
    best, title = best_epoch(history, rule), {"val_loss": "validation loss"}.get(rule, "validation macro F1")
    value = history.set_index("epoch").loc[best, rule]
    ending = f"Stopped early: no better {title} for 4 epochs. Kept: epoch {best}, {title} {value:.4f}"
    if rule == "val_macro_f1":
        calibrated = history.set_index("epoch").loc[best, "val_calibrated_loss"]
        ending += f" (of equals the lowest calibrated loss, {calibrated:.4f})"
    assert lines[-1] == ending
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert len(epochs) == len(history)
    for count, line in enumerate(epochs, start=1):
        leader = best_epoch(history[:count], rule)
        assert ("best so far" if leader == count else f"best: epoch {leader}") in line
        tie = count > 1 and is_tie(*history.iloc[[count - 1, best_epoch(history[: count - 1], rule) - 1]].to_dict(
            "records"), rule)  # fmt: skip
        assert ("equal macro F1" in line) == tie


RULES = ["val_macro_f1", "val_loss"]
STOPPED = ["train.epochs=30", "train.early_stopping_patience=4", "optim.lr=0.01"]


@pytest.mark.parametrize("rule", RULES)
def test_training_stops_early_gives_back_the_best_epoch_and_says_why(train, rule, capfd):
    val = partly_wrong()
    network, run, history = train(*STOPPED, f"train.monitor={rule}", val=val)
    best = best_epoch(history, rule)
    check_terminal(capfd.readouterr().err.splitlines(), history, rule)
    assert len({best_epoch(history, each) for each in RULES}) == 2, "else the test tells no rule from the other"
    assert len(history) == best + 4 < 30
    kept, facts = load_checkpoint(run.checkpoints / "best.pt")
    assert facts["epoch"] == facts["best_epoch"] == best
    assert all(torch.equal(kept["model"][name], tensor) for name, tensor in network.state_dict().items())
    logits = predict_logits(network, val, 8, torch.device("cpu"))
    row = history.set_index("epoch").loc[best]
    loss = torch.nn.functional.cross_entropy(logits, val.labels, balanced_weights(bands().labels, 3))
    assert loss.item() == pytest.approx(row["val_loss"], rel=1e-5)
    scores = score_epoch(val.labels.numpy(), logits.numpy(), CLASSES)
    assert scores["macro_f1"] == pytest.approx(row["val_macro_f1"])
    assert scores["calibrated_loss"] == pytest.approx(row["val_calibrated_loss"], rel=1e-5)


def test_a_plateau_lowers_the_learning_rate(train):
    _, _, history = train(
        "train.epochs=4",
        "train.early_stopping_patience=4",
        "optim.lr=0.004",
        "optim.plateau_patience=0",
        "optim.plateau_factor=0.25",
        val=contradicted(bands(12, seed=1)),
    )
    rates = history["learning_rate"].tolist()
    assert rates[0] == 0.004
    assert rates[-1] <= 0.001
    assert set(rates) <= {0.004 * 0.25**step for step in range(4)}


def test_checkpoints_load_without_pickle_and_say_their_epoch(train):
    _, run, history = train()
    last, facts = load_checkpoint(run.checkpoints / "last.pt")
    assert facts["epoch"] == 3
    assert facts["metrics"]["val_loss"] == history["val_loss"].iloc[-1]
    assert {"model", "optimizer", "scheduler", "order", "rng"} <= set(last)
    best = json.loads((run.checkpoints / "best.json").read_text())
    assert best["epoch"] == best["best_epoch"] == best_epoch(history, "val_macro_f1")
    assert best["metrics"] == history.to_dict("records")[best["epoch"] - 1]


def test_a_damaged_or_missing_checkpoint_is_named(tmp_path):
    path = tmp_path / "last.pt"
    with pytest.raises(UserError, match=r"last\.pt: no such checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, Checkpoint({"model": {}}, {"epoch": 1}))
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"last\.pt: damaged checkpoint"):
        load_checkpoint(path)


def test_class_weights_make_the_rare_class_count(train):
    common = bands(24)
    rows = torch.cat([torch.arange(0, 24, 3), torch.arange(1, 24, 3), torch.tensor([2])])
    uneven = Side(common.frame.iloc[rows], common.spectrograms[rows], common.labels[rows])
    _, _, balanced = train(train=uneven, name="balanced")
    _, _, plain = train("train.class_weights=none", train=uneven, name="plain")
    assert balanced["train_loss"].iloc[0] != plain["train_loss"].iloc[0]


def test_sampling_makes_the_rare_class_count_as_weights_do(train):
    """One class in thirty: whoever says "the other" is nearly always right, and both remedies refuse that."""
    rare = bands(90)
    kept = torch.cat([torch.argwhere(rare.labels != 2)[:, 0], torch.argwhere(rare.labels == 2)[:2, 0]])
    rare = Side(rare.frame.iloc[kept.numpy()], rare.spectrograms[kept], rare.labels[kept])
    recall = {}
    for how in ("none", "sampled"):
        network, _, _ = train(f"train.class_weights={how}", "train.epochs=2", train=rare, name=how)
        probabilities = predict_logits(network, bands(60, seed=2), 32, torch.device("cpu")).softmax(dim=1)
        recall[how] = float(probabilities[bands(60, seed=2).labels == 2, 2].mean())
    assert recall["sampled"] > recall["none"] + 0.05


def test_the_learning_rate_rises_and_falls_along_a_cosine_to_the_last_epoch(train):
    _, _, history = train(
        "train.epochs=6",
        "train.early_stopping_patience=6",
        "optim.lr=0.008",
        "optim.schedule=cosine",
        "optim.warmup_epochs=2",
    )
    expected = [0.008 / 3, 0.016 / 3, *(0.004 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4))]
    assert history["learning_rate"].tolist() == pytest.approx(expected)


def test_a_short_training_may_have_fewer_epochs_than_its_warm_up(train):
    _, _, history = train("train.epochs=1", "optim.schedule=cosine", "optim.warmup_epochs=3")
    assert history["learning_rate"].tolist() == [0.002]


def test_the_averaged_network_is_validated_and_kept(train):
    network, run, history = train("train.ema_decay=0.9", "optim.lr=0.01")
    last = load_checkpoint(run.checkpoints / "last.pt").tensors
    assert last["average"].keys() == last["model"].keys()
    assert not torch.equal(last["average"]["classifier.weight"], last["model"]["classifier.weight"])
    best = load_checkpoint(run.checkpoints / "best.pt")
    assert all(torch.equal(tensor, best.tensors["model"][name]) for name, tensor in network.state_dict().items())
    logits = predict_logits(network, bands(12, seed=1), 32, torch.device("cpu"))
    scores = score_epoch(bands(12, seed=1).labels.numpy(), logits.numpy(), CLASSES)
    assert scores["accuracy"] == history["val_accuracy"][best.facts["epoch"] - 1]


def test_an_average_moves_by_the_share_that_is_not_its_own():
    average, model = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    torch.nn.init.constant_(model.weight, 5.0)
    model.running_mean.fill_(10.0)
    model.num_batches_tracked.fill_(7)
    move_average(average, model, 0.75)
    assert average.weight.tolist() == [2.0, 2.0] and average.running_mean.tolist() == [2.5, 2.5]
    assert average.num_batches_tracked == 7


def test_gradients_are_clipped_to_a_norm(recipe):
    norms = {}
    for limit in ("null", "0.01"):
        config = recipe("baseline", f"optim.clip_norm={limit}")
        torch.manual_seed(0)
        trainer = Trainer(config, build_model(config.model, 3), torch.ones(3), torch.device("cpu"))
        trainer._step(bands(8).spectrograms, bands(8).labels)
        gradients = [parameter.grad for parameter in trainer.model.parameters()]
        norms[limit] = float(torch.nn.utils.get_total_norm(gradients))
    assert norms["null"] > 0.1 and norms["0.01"] == pytest.approx(0.01, rel=1e-3)


def test_with_layer_decay_each_stage_learns_at_a_rate_of_its_own(recipe):
    config = recipe("baseline", "optim.layer_decay=0.5", "optim.lr=0.8")
    network = build_model(config.model, 3)
    groups = parameter_groups(network, config.optim)
    assert [group["lr"] for group in groups] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    with pytest.raises(UserError, match=r"optim\.layer_decay: this family of models has no stages; set it to 1"):
        parameter_groups(torch.nn.Linear(2, 3), config.optim)


def test_a_sampled_epoch_sees_every_species_equally_often():
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 10)
    split = Side(pd.DataFrame({"label": labels}), torch.zeros(1000, 1, 1, 1), labels)
    chances = balanced_weights(labels, 3)[labels]
    drawn = torch.cat([batch for _, batch in split.batches(64, torch.Generator().manual_seed(0), chances)])
    assert len(drawn) == 1000
    assert torch.bincount(drawn).sub(1000 / 3).abs().max() < 60


def test_shares_of_species_that_are_whole_cost_what_labels_cost(recipe):
    """Mixup with nothing mixed in is training without it."""
    results = []
    for as_shares in (False, True):
        config = recipe("baseline", "train.label_smoothing=0.1")
        torch.manual_seed(0)
        weights = torch.tensor([0.5, 1.0, 2.0])
        trainer = Trainer(config, build_model(config.model, 3), weights, torch.device("cpu"))
        split = bands(7)
        targets = torch.nn.functional.one_hot(split.labels, 3).float() if as_shares else split.labels
        torch.manual_seed(1)  # dropout
        results.append(trainer._step(split.spectrograms, targets))
    torch.testing.assert_close(results[0], results[1])


def test_label_smoothing_makes_a_network_less_sure(train):
    confidence, lasting = {}, ("train.epochs=4", "optim.lr=0.004")
    for share in (0, 0.3):
        network, _, _ = train(f"train.label_smoothing={share}", *lasting, name=f"smooth-{share}")
        probabilities = predict_logits(network, bands(12, seed=1), 32, torch.device("cpu")).softmax(dim=1)
        confidence[share] = float(probabilities.max(dim=1).values.mean())
    assert confidence[0.3] < confidence[0] - 0.05


def test_a_loss_that_is_not_a_number_ends_training_in_one_sentence(train):
    broken = bands()
    broken.spectrograms[5] = float("nan")
    with pytest.raises(UserError, match=r"loss is not a number in epoch 1; lower optim\.lr \(0\.5\)"):
        train("optim.lr=0.5", train=broken)


def test_a_validation_loss_that_is_not_a_number_says_the_same(train):
    broken = bands(12, seed=1)
    broken.spectrograms[5] = float("nan")
    with pytest.raises(UserError, match="loss is not a number in epoch 1"):
        train(val=broken)


def test_the_last_batch_may_hold_a_single_recording(train):
    _, _, history = train("data.batch_size=5", train=bands(21))
    assert len(history) == 3


@pytest.mark.parametrize("precision", ["none", "bf16"])
def test_history_is_full_precision_in_every_arithmetic(train, precision):
    _, run, history = train(f"train.amp={precision}", "train.epochs=1")
    written = run.history.read_text().splitlines()[1].split(",")
    assert [repr(value) for value in history.iloc[0, 1:].tolist()] == written[1:]
