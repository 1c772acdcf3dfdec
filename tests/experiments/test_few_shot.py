"""The few-shot curve: training sides of few tapes, in data folders that the program reads as any other."""

from __future__ import annotations

import pytest
import torch
from few_shot import recipe_and_options, with_few, write_folder

from watkins_ml.config import load_config
from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import load_side


@pytest.fixture(scope="module")
def fold(prepared) -> PreparedData:
    folds = make_folds(read_prepared(prepared), FoldRule(3))
    return folds.data_of(folds.names[0])


def test_each_species_keeps_so_many_tapes_and_the_other_sides_stay(fold):
    before = None
    for tapes in (1, 2, 8):
        few = with_few(fold, tapes, seed=0)
        kept, every = (data.sides["train"].groupby("species")["tape"].nunique() for data in (few, fold))
        assert kept.to_dict() == every.clip(upper=tapes).to_dict()
        assert all(few.sides[side].equals(fold.sides[side]) for side in ("val", "test"))
        assert before is None or before <= set(few.sides["train"]["path"]), "more tapes have those drawn before"
        before = set(few.sides["train"]["path"])
        whole = fold.sides["train"]
        of_tapes = whole.merge(few.sides["train"][["species", "tape"]].drop_duplicates())
        assert set(of_tapes["path"]) == before, "every cut of a tape"


def test_a_seed_draws_the_same_tapes_and_another_seed_others(fold):
    drawn = {tuple(with_few(fold, 1, seed).sides["train"]["path"]) for seed in range(6)}
    assert len(drawn) > 1
    assert with_few(fold, 1, 3).digest == with_few(fold, 1, 3).digest != fold.digest


def test_the_folder_is_read_back_as_it_was_written_and_written_once(fold, tmp_path):
    few = with_few(fold, 1, seed=0)
    folder = write_folder(few, tmp_path / "few")
    data = read_prepared(folder)
    assert data.digest == few.digest and data.audio_dir == fold.audio_dir
    for side, frame in few.sides.items():
        assert data.sides[side]["path"].tolist() == frame["path"].tolist()
        loaded, original = load_side(data, side), load_side(few, side)
        assert torch.equal(loaded.spectrograms, original.spectrograms)
        assert torch.equal(loaded.labels, original.labels)
    stamp = (folder / "dataset.json").stat().st_mtime_ns
    assert write_folder(few, folder) == folder and (folder / "dataset.json").stat().st_mtime_ns == stamp
    other = write_folder(with_few(fold, 2, seed=0), folder)
    assert read_prepared(other).digest != few.digest


@pytest.mark.parametrize("model", ["encoder", "tapes", "baseline", "scratch", "imagenet"])
def test_every_model_has_a_recipe_that_trains_on_the_training_side_alone(model, tmp_path):
    recipe, *options = recipe_and_options(model, tmp_path, 2)
    config = load_config(recipe, options[1::2])
    assert not config.train.refit and config.train.epochs == 2 and config.tracking.register_as is None
