"""What a CPU can tell of a step that a GPU replays: nothing in it makes the host wait for a number."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from tests.support.small import RECIPES, bands
from watkins_ml.core.errors import UserError
from watkins_ml.models.registry import build_model
from watkins_ml.training.trainer import Trainer

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::is_nonzero", "aten::equal"}
"""Operations whose result, or its shape, the host must know."""


@pytest.mark.parametrize("name", [*RECIPES, "smoothed"])
def test_a_step_makes_nobody_wait(recipe, monkeypatch, name):
    how = RECIPES.get(name, {"overrides": ["train.label_smoothing=0.1"]})
    config = recipe(how.get("model", "baseline"), *how.get("overrides", []))
    trainer = Trainer(config, build_model(config.model, 3), torch.tensor([0.5, 1.0, 1.5]), torch.device("cpu"))
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)  # on a GPU it is another one
    trainer.model.train()
    for spectrograms, labels in bands(8).batches(8):
        batch = trainer.augment(spectrograms, labels)
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            trainer._step(*batch)
        names = {each.key for each in seen.key_averages()}
        assert "aten::convolution_backward" in names and not names & WAITS


@pytest.mark.parametrize("while_recording", [False, True])
def test_a_batch_that_a_gpu_cannot_take_is_one_sentence(recipe, monkeypatch, while_recording):
    """As torch raises it there; a real one is in test_on_gpu.py."""
    config = recipe("baseline", "data.batch_size=17")
    trainer = Trainer(config, build_model(config.model, 3), torch.ones(3), torch.device("cpu"))

    def too_much(*batch: torch.Tensor) -> torch.Tensor:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            if while_recording:
                raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(trainer, "step", too_much)
    with pytest.raises(UserError, match=r"data\.batch_size 17: the GPU's memory cannot take so many recordings"):
        trainer.train_epoch(bands(8), lambda note: None)


def test_smoothed_labels_count_as_torch_has_them_count(recipe):
    config = recipe("baseline", "model.dropout=0", "train.label_smoothing=0.2")
    weights = torch.tensor([0.5, 1.0, 1.5])
    trainer = Trainer(config, build_model(config.model, 3), weights, torch.device("cpu"))
    trainer.model.train()
    side = bands(8)
    logits = trainer.model(side.spectrograms)
    expected = torch.nn.functional.cross_entropy(logits, side.labels, weights, label_smoothing=0.2)
    loss, weight, correct = trainer._step(side.spectrograms, side.labels)
    assert weight == weights[side.labels].sum()
    assert correct == (logits.argmax(dim=1) == side.labels).sum()
    torch.testing.assert_close((loss / weight).float(), expected.detach())
