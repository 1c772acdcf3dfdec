"""A transform is one file: dropped into the package it is a section of a recipe and is trained with."""

from __future__ import annotations

import json
import os
import shutil
import sys

import pytest

from tests.support import EXPERIMENTS, ROOT, forked

TOY = '''
"""Loudness."""

from typing import ClassVar, Literal

import torch
from pydantic import Field

from watkins_ml.transforms.transform import Batch, SpectrogramTransform


class Louder(SpectrogramTransform):
    """Multiply each spectrogram by a constant."""

    is_random: ClassVar[bool] = False
    name: Literal["louder"]
    factor: float = Field(default=2, gt=0)
    """The constant."""

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch._replace(spectrograms=batch.spectrograms * self.factor)
'''
WAVEFORM = '''
"""Polarity."""

from typing import Literal

from watkins_ml.transforms.transform import WaveformTransform


class Polarity(WaveformTransform):
    """Invert the sign of a waveform."""

    name: Literal["polarity"]

    def __call__(self, waveform, sample_rate, generator):
        return -waveform
'''
TRY = """
import json, sys, tempfile
from functools import partial
from pathlib import Path

import torch

from tests.support.small import CLASSES, bands
from watkins_ml.config import load_config
from watkins_ml.core.errors import UsageError
from watkins_ml.evaluation.metrics import score_epoch
from watkins_ml.models.registry import build_model
from watkins_ml.training.features import FeatureCache
from watkins_ml.training.loop import fit

PLAIN = ["model.weights=none", "model.freeze_depth=6", "train.epochs=1", "data.batch_size=8", "train.device=cpu"]

def weights(*overrides, cache=None):
    config = load_config(sys.argv[1], [*PLAIN, *overrides])
    score = partial(score_epoch, classes=CLASSES)
    features = cache and FeatureCache(cache, "digest", 1.0)
    network = fit(config, partial(build_model, config.model, 3), bands(), bands(12), 3, score, None, features=features)
    return torch.cat([value.flatten().double() for value in network.state_dict().values()])

def error(*overrides):
    try:
        load_config(sys.argv[1], overrides)
    except UsageError as error:
        return str(error)

with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder) / "features"
    plain = weights("augment=[]")
    one = weights("augment=[{name: louder, factor: 1}]")
    two = weights("augment=[{name: louder}]")
    cached = weights("augment=[{name: louder}]", cache=folder)
    plain_cached = weights("augment=[]", cache=folder)
    entries = len(list(folder.glob("*.npy")))
print(json.dumps({
    "one": float((plain - one).abs().mean()), "two": float((plain - two).abs().mean()),
    "cached": float((two - cached).abs().mean()), "plain_cached": float((plain - plain_cached).abs().mean()),
    "entries": entries,
    "unknown": error("augment=[{name: louder, facto: 3}]"), "range": error("augment=[{name: louder, factor: 0}]"),
    "waveform": error("augment=[{name: time_roll}, {name: polarity}]"),
}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> dict:
    """What a copy of the program does once two files are added to it."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "watkins_ml", folder / "watkins_ml", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "watkins_ml/transforms/louder.py").write_text(TOY)
    (folder / "watkins_ml/transforms/polarity.py").write_text(WAVEFORM)
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-c", TRY, str(EXPERIMENTS / "efficientnet.yaml")]
    done = forked.run(
        command, fresh=True, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_one_file_adds_a_transform_that_is_trained_with(found):
    assert found["one"] == 0 < found["two"]


def test_a_transform_that_is_not_random_is_applied_before_the_frozen_stages_and_is_part_of_the_cache_key(found):
    assert found["cached"] < found["two"] / 10 and found["plain_cached"] < found["two"] / 10
    assert found["entries"] == 2


def test_its_settings_are_validated(found):
    assert "unknown key augment.0.facto; did you mean augment.0.factor?" in found["unknown"]
    assert "augment.0.factor must be greater than 0, not 0" in found["range"]


def test_a_transform_of_waveforms_is_refused_where_the_data_are_spectrograms(found):
    assert "augment.1 must be a transform of spectrograms, since prepared data hold no waveforms" in found["waveform"]
