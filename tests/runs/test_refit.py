"""`train.refit`: the network that is tested has been trained on training and validation recordings together."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.conftest import copy_store, without_server
from tests.support import EXPERIMENTS
from tests.support.small import bands, same_weights
from watkins_ml.cli.tables import print_run
from watkins_ml.core.errors import UsageError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import cut_windows, load_side
from watkins_ml.evaluation.controls import spectrum_prediction
from watkins_ml.evaluation.spectrum import band_statistics
from watkins_ml.inference.evaluate import evaluate_model
from watkins_ml.models.bundle import load_bundle
from watkins_ml.models.registry import build_model
from watkins_ml.models.scoring import cut_logits
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.checkpoints import load_checkpoint
from watkins_ml.training.loop import refit
from watkins_ml.training.monitor import best_epoch
from watkins_ml.tuning.recipe import load_study


@pytest.fixture(scope="module")
def refitted(recipe, empty_store, tmp_path_factory):
    """The run directory of a training with a refit, without a server."""
    folder = copy_store(empty_store, tmp_path_factory.mktemp("refit"))
    with pytest.MonkeyPatch.context() as patch:
        without_server(patch)
        patch.chdir(folder)
        config = recipe("baseline", "train.refit=true", "train.epochs=3", "tracking.register_as=null")
        return RunDirectory(folder / run_experiment(config, Path("runs/refit")).run_dir)


def logits_of(network: torch.nn.Module, prepared: Path, side: str) -> np.ndarray:
    data = read_prepared(prepared)
    return cut_logits(network, cut_windows(data, load_side(data, side))).numpy()


def test_it_has_as_many_epochs_as_the_best_network_at_its_learning_rates(refitted):
    history, second = refitted.read_history(), pd.read_csv(refitted.root / "refit.csv")
    best = best_epoch(history, "val_macro_f1")
    assert second["epoch"].tolist() == list(range(1, best + 1))
    assert second["learning_rate"].tolist() == pytest.approx(history["learning_rate"][:best].tolist())
    assert not (refitted.checkpoints / "refit.pt").exists()


def test_the_report_says_that_another_network_is_tested(refitted, capsys):
    kept = json.loads((refitted.root / "reports" / "kept.json").read_text())["kept"]
    assert kept.endswith("by validation macro F1; tested: trained for as many on training and validation recordings")
    print_run(refitted.root, refitted.read_metrics())
    assert kept in " ".join(capsys.readouterr().out.split())


def test_validation_is_that_of_the_first_network_and_test_that_of_the_second(refitted, recipe, prepared):
    second, first = load_bundle(refitted.model).network, build_model(recipe().model, 3)
    first.load_state_dict(load_checkpoint(refitted.checkpoints / "best.pt").tensors["model"])
    assert not same_weights(first.eval(), second)
    for side, network in (("val", first), ("test", second)):
        stored = np.load(refitted.root / "preds" / f"{side}_logits.npy")
        np.testing.assert_allclose(stored, logits_of(network, prepared, side), atol=1e-4)


def test_the_controls_on_test_have_learned_from_both_sides_too(refitted, prepared):
    data = read_prepared(prepared)
    stored = pd.read_csv(refitted.root / "preds" / "test_controls.csv")["control_spectrum"]
    spectra = band_statistics([load_side(data, side) for side in ("train", "val", "test")])
    both = pd.concat([data.sides["train"], data.sides["val"]], ignore_index=True)
    assert stored.tolist() == spectrum_prediction(both, data.sides["test"], spectra).tolist()


def test_what_it_knows_has_the_validation_recordings_and_the_limit_of_the_first_network(refitted, finished, prepared):
    novelty, data = load_bundle(refitted.model).novelty, read_prepared(prepared)
    assert len(novelty.known) == len(data.sides["train"]) + len(data.sides["val"])
    assert float(novelty.limit) > 1e-6  # with the second network the validation recordings are at distance 0


def test_evaluating_it_on_validation_says_that_the_scores_flatter(refitted, prepared, tmp_path, capsys):
    evaluate_model(str(refitted.root), prepared, "val", tmp_path / "report")
    assert "was trained on these validation recordings too (train.refit)" in " ".join(capsys.readouterr().err.split())


def test_cut_off_and_continued_it_ends_the_same(recipe, tmp_path):
    config = recipe("baseline", "train.ema_decay=0.5", "train.class_weights=tapes")
    build, sides = partial(build_model, config.model, 3), (bands(), bands(9, seed=1))
    rates, checkpoint = [0.002, 0.002, 0.001], tmp_path / "refit.pt"
    whole, rows = refit(config, build, *sides, 3, rates, None)
    refit(config, build, *sides, 3, rates[:1], checkpoint)
    torch.rand(7)
    resumed, others = refit(config, build, *sides, 3, rates, checkpoint, load_checkpoint(checkpoint))
    assert same_weights(whole, resumed) and rows == others
    assert [row["learning_rate"] for row in rows] == rates


def test_a_study_refuses_it(prepared):
    with pytest.raises(UsageError, match=r"train\.refit must be false, since a study compares networks by validation"):
        load_study(EXPERIMENTS / "tune-baseline.yaml", [f"data.dir={prepared}", "train.refit=true"])
