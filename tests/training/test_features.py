"""Trainings on kept outputs of frozen stages: the same history for less, and a clean way back to the naive one."""

import json
import os
import shutil
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from tests.support.small import CLASSES, CutOff, bands, same_weights
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import Side, load_side
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.checkpoints import latest_checkpoint, load_checkpoint
from watkins_ml.training.features import BATCH, FeatureCache
from watkins_ml.training.loop import fit

DIGEST = "0123456789abcdef"
CPU = torch.device("cpu")


narrow = pytest.mark.usefixtures("narrow_efficientnet")


def uneven(count: int, seed: int = 0) -> Side:
    """Bands of which one class is rare, so that weights count."""
    split = bands(3 * count, seed)
    rows = torch.cat([torch.arange(0, 3 * count, 3), torch.arange(1, 3 * count, 3), torch.arange(2, 3 * count, 30)])
    rows = rows[torch.linspace(0, len(rows) - 1, count).long()]
    return Side(split.frame.iloc[rows], split.spectrograms[rows], split.labels[rows])


@pytest.fixture
def config(recipe):
    """A function that gives a small EfficientNet from scratch with frozen stages and nothing random before them."""

    def load(depth: int, *overrides: str):
        still = ["augment.time_roll=false", "train.epochs=3", "train.early_stopping_patience=3", "model.dropout=0.3"]
        full = f"data.batch_size={BATCH}"  # of the store's own size, so that convolutions give the same bits
        return recipe("efficientnet", f"model.freeze_depth={depth}", *still, full, *overrides)

    return load


@pytest.fixture
def train(config, tmp_path):
    """A function that trains, or goes on from the newest checkpoint; returns the network and the history."""

    def run(record: str | RunDirectory, depth: int, *overrides: str, store: FeatureCache | None = None):
        chosen = config(depth, *overrides)
        record = RunDirectory(tmp_path / record) if isinstance(record, str) else record
        start = latest_checkpoint(record.checkpoints)
        if start is not None:
            for table in (record.history, record.timing):
                table.unlink(missing_ok=True)
        network = fit(
            chosen, partial(build_model, chosen.model, 3), uneven(64), uneven(32, seed=1), 3,
            partial(score_epoch, classes=CLASSES), record, start, store,
        )  # fmt: skip
        return network, pd.read_csv(record.history, float_precision="round_trip")

    return run


@pytest.fixture
def store(tmp_path):
    return FeatureCache(tmp_path / "features", DIGEST, limit_gb=1)


def shorten(store: FeatureCache, config, seed: int = 0, precision: torch.dtype | None = None):
    torch.manual_seed(seed)
    return store.shorten(build_model(config.model, 3), bands(), bands(12, seed=1), [], CPU, precision)


def entries(store: FeatureCache) -> list[str]:
    return sorted(path.name for path in store.folder.glob("*.npy"))


def assert_close(history: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Equal but for the last bits of a float32; a network from scratch on small maps soon makes more of them, so
    the stages that train are compared at a batch size that gives the same bits."""
    pd.testing.assert_frame_equal(history, expected, rtol=1e-4, atol=1e-5)


@narrow
def test_random_excerpts_are_read_anew_and_not_kept(train, store):
    train("random", 9, "augment=[{name: random_excerpt}]", "train.epochs=1", store=store)
    assert not store.folder.exists()


@narrow
@pytest.mark.parametrize(
    ("depth", "overrides"),
    [
        (3, []),
        (6, ["train.class_weights=none", "train.ema_decay=0.5"]),
        (9, ["optim.lr=0.01"]),
        (9, ["data.batch_size=5", "optim.lr=0.01", "optim.plateau_patience=0"]),
    ],
    ids=["3", "6-unweighted-averaged", "9", "9-small-batches"],
)
def test_history_and_weights_are_those_of_the_naive_training(train, store, capsys, depth, overrides):
    naive, expected = train("naive", depth, *overrides)
    capsys.readouterr()
    cached, history = train("cached", depth, *overrides, store=store)
    assert f"Outputs of the {depth} frozen stages of 96 recordings: " in capsys.readouterr().err
    assert len(entries(store)) == 1
    assert_close(history, expected)
    assert history["train_loss"].nunique() == 3
    torch.testing.assert_close(cached.state_dict(), naive.state_dict(), rtol=1e-3, atol=1e-4)


@narrow
def test_history_in_half_precision_too(train, store):
    _, expected = train("naive", 9, "train.amp=bf16")
    _, history = train("cached", 9, "train.amp=bf16", store=store)
    pd.testing.assert_frame_equal(history, expected, rtol=1e-2)


@pytest.mark.real_data
def test_history_with_imagenet_weights_in_batches_of_any_size(train, store, shared_folder):
    weights = f"model.weights={shared_folder / 'weights' / 'efficientnet_b0_imagenet.pth'}"
    _, expected = train("naive", 6, weights, "data.batch_size=11", "train.epochs=2")
    _, history = train("cached", 6, weights, "data.batch_size=11", "train.epochs=2", store=store)
    assert history["train_loss"].iloc[0] == pytest.approx(expected["train_loss"].iloc[0], rel=1e-4)
    pd.testing.assert_frame_equal(history, expected, rtol=1e-2)  # every step multiplies the last bits' difference


def test_the_frozen_stages_do_not_run_any_more(config, store):
    chosen = config(6)
    shorten(store, chosen)
    torch.manual_seed(0)
    network = build_model(chosen.model, 3)
    seen = []
    for stage in network.features[: network.frozen_stages]:
        stage.register_forward_hook(lambda stage, given, result: seen.append(len(result)))
    train, _, forward, _ = store.shorten(network, bands(), bands(12, seed=1), [], CPU, None)
    assert seen == [1] * 6  # a single recording tells the shape
    for features, _ in train.batches(8):
        forward(features)
    assert seen == [1] * 6
    assert train.spectrograms.shape == (24, 112, 2, 2)
    assert train.spectrograms[torch.arange(8)].is_contiguous(memory_format=torch.channels_last)


@narrow
@pytest.mark.parametrize("began", ["naive", "cached"])
def test_a_run_begun_one_way_is_resumed_the_other(train, store, tmp_path, began):
    _, expected = train("whole", 6)
    stores = [None, store] if began == "naive" else [store, None]
    with pytest.raises(KeyboardInterrupt):
        train(CutOff(tmp_path / "cut", 1), 6, store=stores[0])
    _, history = train("cut", 6, store=stores[1])
    assert_close(history, expected.iloc[2:].reset_index(drop=True))  # the row of the cut is the record's to keep


@narrow
def test_a_killed_cached_run_ends_the_same_bit_for_bit(train, store, tmp_path):
    whole, expected = train("whole", 9, store=store)
    with pytest.raises(KeyboardInterrupt):
        train(CutOff(tmp_path / "cut", 1), 9, store=store)
    shutil.rmtree(store.folder)  # what is computed anew is the same
    resumed, history = train("cut", 9, store=store)
    assert history.equals(expected.iloc[2:].reset_index(drop=True))
    assert same_weights(resumed, whole)


@narrow
def test_a_checkpoint_holds_frozen_tensors_once_also_after_resuming(train, store, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(CutOff(tmp_path / "run", 1), 9, store=store)
    network, _ = train("run", 9, "optim.lr=0.01", store=store)
    folder = RunDirectory(tmp_path / "run").checkpoints
    assert (folder / "last.pt").stat().st_size < 1.1 * (folder / "best.pt").stat().st_size
    last, best = (load_checkpoint(folder / name).tensors for name in ("last.pt", "best.pt"))
    for name, tensor in network.state_dict().items():
        assert torch.equal(best["model"][name], tensor)
        assert torch.equal(last["best"][name] if name in last["best"] else last["best"]["model"][name], tensor)


@narrow
def test_another_network_data_set_depth_or_precision_is_another_entry(config, store):
    shorten(store, config(6))
    assert len(entries(store)) == 1
    shorten(store, config(6))
    assert len(entries(store)) == 1
    shorten(store, config(6), seed=1)
    shorten(store, config(7))
    shorten(store, config(6), precision=torch.bfloat16)
    shorten(FeatureCache(store.folder, "another", 1), config(6))
    assert len(entries(store)) == 5


def test_what_only_the_tail_needs_is_no_part_of_the_key(config, store):
    for overrides in ([], ["model.dropout=0.5"], ["optim.lr=0.1", "data.batch_size=3"]):
        shorten(store, config(9, *overrides))
    assert len(entries(store)) == 1
    said = json.loads((store.folder / entries(store)[0]).with_suffix(".json").read_text())
    assert (said["data_digest"], said["frozen_stages"], said["recordings"]) == (DIGEST, 9, [24, 12])
    assert (said["shape"], said["precision"], said["device"]) == ([36, 1280], "float32", "cpu")


@narrow
def test_a_second_training_uses_what_the_first_has_kept(train, store, capsys):
    _, expected = train("first", 9, "train.epochs=1", store=store)
    path = store.folder / entries(store)[0]
    os.utime(path, ns=(0, 0))
    capsys.readouterr()
    _, history = train("second", 9, "train.epochs=1", store=store)
    assert history.equals(expected)
    assert "Outputs" not in capsys.readouterr().err
    assert path.stat().st_mtime_ns > 0  # it was used
    content = bytearray(path.read_bytes())
    content[-1000] ^= 8
    path.write_bytes(content)
    _, history = train("third", 9, "train.epochs=1", store=store)
    assert history.equals(expected)
    assert "Outputs of the 9 frozen stages" in capsys.readouterr().err


@pytest.mark.parametrize("reason", ["depth 0", "a wide stage", "rolled", "switched off"])
def test_where_nothing_can_be_gained_nothing_is_kept_or_said(train, store, capsys, reason):
    depth = {"depth 0": 0, "a wide stage": 2}.get(reason, 9)
    limit = 0 if reason == "switched off" else 1
    rolled = ["augment.time_roll=true"] if reason == "rolled" else []
    train("run", depth, *rolled, "train.epochs=1", store=FeatureCache(store.folder, DIGEST, limit))
    assert not store.folder.exists()
    assert "frozen" not in capsys.readouterr().err


def test_the_baseline_has_nothing_to_keep(recipe, store):
    train, val, forward, _ = shorten(store, recipe("baseline"))
    assert torch.equal(train.spectrograms, bands().spectrograms) and len(val) == 12
    assert forward(train.spectrograms).shape == (24, 3)
    assert not store.folder.exists()


def too_small(folder):
    return FeatureCache(folder, DIGEST, 6e-5), r"0\.1 MB exceed the limit of 0\.1 MB"


def in_the_way(folder):
    folder.write_text("a file")
    return FeatureCache(folder, DIGEST, 1), "File exists"


def below_a_file(folder):
    folder.write_text("a file")
    return FeatureCache(folder / "features", DIGEST, 1), "Not a directory"


@narrow
@pytest.mark.parametrize("refusal", [too_small, in_the_way, below_a_file])
def test_where_nothing_can_be_kept_it_says_so_once_and_trains_naively(train, tmp_path, capsys, refusal):
    _, expected = train("naive", 9, "train.epochs=1")
    store, reason = refusal(tmp_path / "features")
    capsys.readouterr()
    _, history = train("refused", 9, "train.epochs=1", store=store)
    assert history.equals(expected)
    said = [line for line in capsys.readouterr().err.splitlines() if "frozen" in line]
    assert len(said) == 1
    assert said[0].startswith("Outputs of the 9 frozen stages of 96 recordings: not cached in ")
    assert said[0].endswith("; they are computed anew in every epoch")
    assert pd.Series(said).str.contains(reason).all()


@narrow
def test_several_depths_stay_below_the_limit(config, tmp_path):
    store = FeatureCache(tmp_path / "features", DIGEST, 1e-4)
    for depth in (4, 5, 6, 7, 8, 9, 4, 6):
        assert shorten(store, config(depth)).train.spectrograms.shape[1] != 1  # kept, not spectrograms
        assert sum(path.stat().st_size for path in store.folder.iterdir()) <= 1e5
    assert len(entries(store)) > 1


@pytest.fixture
def folder(prepared, tmp_path):
    """A prepared data folder of the test's own."""
    return shutil.copytree(prepared, tmp_path / "data")


@narrow
def test_preparing_again_leaves_what_is_kept(folder, config):
    data = read_prepared(folder)
    train, val = (load_side(data, side) for side in ("train", "val"))
    store = FeatureCache(folder / "features", data.digest, 1)
    torch.manual_seed(0)
    store.shorten(build_model(config(9).model, 3), train, val, [], CPU, None)
    kept = entries(store)
    options = PrepareOptions(workers=1, frontend=data.frontend)
    again = prepare(data.summary["audio_dir"], folder, options)
    assert again.computed == 0
    prepare(data.summary["audio_dir"], folder, replace(options, seed=1))  # other sides, another digest
    assert entries(store) == kept
    assert read_prepared(folder).digest != data.digest


@narrow
def test_a_run_keeps_them_in_the_data_folder(config, folder, empty_store, tmp_path):
    (tmp_path / "mlflow").mkdir()
    shutil.copy(empty_store, tmp_path / "mlflow")  # which takes no time, unlike making one
    chosen = config(9, "train.epochs=1", f"data.dir={folder}", "tracking.register_as=null")
    run = run_experiment(chosen)
    assert len(entries(FeatureCache(folder / "features", DIGEST, 1))) == 1
    assert np.isfinite(run.metrics["test_nll"])
