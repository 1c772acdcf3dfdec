"""The whole chain on an archive of strange names: prepare, train, track, predict, evaluate, explain, report."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.support import EXPERIMENTS
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.slow
RECIPE = EXPERIMENTS / "baseline.yaml"
SPECIES = [unicodedata.normalize("NFD", "Épaulard"), "鯨" * 85, "$a$_{b}%", "=1+1", 'new\nline, "q"\t', "orca", "Orca",
           os.fsdecode(b"bal\xe9"), "a:b*.", "<b>&amp;"]  # fmt: skip
CUTS = ["{0}" + "é" * 120, "{0}\n", '{0}\t,"', "{0}:*?", os.fsdecode(b"{0}\xe9t\xe9"), "{0}" + "鯨" * 80, "{0}\x1b[1m"]


@pytest.fixture
def odd(tmp_path) -> Path:
    seed = 0
    for kind, species in enumerate(SPECIES):
        (tmp_path / "rec" / species).mkdir(parents=True)
        for tape in range(4):
            for cut in range(2):
                name = CUTS[seed % len(CUTS)].format(f"{kind:02d}{tape:03d}{cut}")
                seed += 1
                with open(tmp_path / "rec" / species / f"{name}.wav", "wb") as file:
                    soundfile.write(file, np.random.default_rng(seed).uniform(-0.3, 0.3, 1600), 8000, format="WAV")
    return tmp_path / "rec"


def test_an_archive_of_strange_names_goes_through_the_whole_chain(odd, watkins, store):
    def succeeds(*command):
        said = watkins(*command)
        assert said.status == 0, said.err
        return said.out

    succeeds("prepare", odd, "--out", "data", "--min-clips", 3, "--workers", 1)
    small = [part for each in ("data.dir=data", "train.epochs=1", "train.device=cpu") for part in ("-o", each)]
    succeeds("train", RECIPE, *small, "--run-dir", "run")
    assert len(client().search_model_versions("name='watkins-baseline'")) == 1
    assert "nothing to send" in succeeds("sync", "run")
    cuts = pd.read_csv("run/galleries/test_cuts.csv", keep_default_na=False)
    assert (cuts["silent"] == "").all(), "the page finds the recordings of all"
    formats = [part for each in ("csv", "raven", "audacity", "parquet") for part in ("--format", each)]
    succeeds("predict", "run", odd, "--out", "found", "--min-confidence", 0, "--max-novelty", "inf", *formats)
    recordings = len(SPECIES) * 8
    assert pd.read_csv("found/detections.csv")["path"].nunique() == recordings
    assert len(list(Path("found/raven").iterdir())) == len(list(Path("found/audacity").iterdir())) == recordings
    succeeds("evaluate", "run", "--data", "data", "--out", "evaluated")
    succeeds("explain", "run", next(path for path in odd.rglob("*.wav") if len(os.fsencode(path.name)) > 240))
    for species in ("Épaulard", SPECIES[0]):  # as it is typed, and as the disk has it
        succeeds("predict", "run", next(odd.rglob("*.wav")), "--species", species)
    succeeds("report", "run", "--out", "report.html")
