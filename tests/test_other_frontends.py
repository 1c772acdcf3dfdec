"""The whole way with frontends other than the usual one: prepare, train, predict, evaluate, explain, export, serve."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tests.support.folders import SIDES, table
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.models.bundle import load_bundle
from watkins_ml.models.registry import family

WIDE = {"sample_rate": 32_000, "seconds": 2, "n_mels": 64, "f_min": 500, "f_max": 14_000, "compression": "pcen",
        "normalisation": "band"}  # fmt: skip
NARROW = {"sample_rate": 8_000, "seconds": 1.5, "n_mels": 48, "f_max": 3_500}
OPTIONS = {"n_mels": "mels"}


def options(chosen: dict[str, object]) -> list[str]:
    names = {name: OPTIONS.get(name, name).replace("_", "-") for name in chosen}
    return [word for name, value in chosen.items() for word in (f"--{names[name]}", str(value))]


@pytest.fixture
def recordings(tmp_path) -> Path:
    """Two species, four tapes each, at 32 kHz: chirps that rise, and chirps that fall, in noise."""
    rng, rate = np.random.default_rng(0), 32_000
    time = np.arange(rate) / rate
    for number, (species, slope) in enumerate({"Riser": 1_500.0, "Faller": -1_500.0}.items()):
        (tmp_path / "sea" / species).mkdir(parents=True)
        for tape in range(4):
            for cut in range(3):
                chirp = np.sin(2 * np.pi * (2_500 * time + slope / 2 * (time - 0.5) ** 2))
                sound = 0.3 * chirp * np.hanning(rate) + 0.02 * rng.standard_normal(rate)
                soundfile.write(tmp_path / "sea" / species / f"{number:02d}{tape:03d}{cut:03d}.wav", sound, rate)
    return tmp_path / "sea"


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [WIDE, NARROW], ids=["wide", "narrow"])
def test_the_whole_way(watkins, store, recordings, tmp_path, chosen):
    expected = FrontendSettings.at(**chosen)
    done = watkins("prepare", recordings, "--min-clips", 3, "--workers", 1, *options(chosen))
    assert done.status == 0, done.err
    assert json.loads(Path("data/dataset.json").read_text())["frontend"] == expected.model_dump()
    data = read_prepared(Path("data"))
    assert data.frontend == expected
    first = torch.load(Path("data") / data.sides["train"]["spectrogram"][0], weights_only=True)
    assert first.shape == (1, expected.n_mels, expected.frames)

    recipe = Path(__file__).parents[1] / "experiments" / "baseline.yaml"
    overrides = ["data.dir=data", "data.batch_size=8", "train.epochs=1", "train.device=cpu"]
    words = [word for each in overrides for word in ("-o", each)]
    done = watkins("train", recipe, *words, "--run-dir", "run")
    assert done.status == 0, done.err
    assert json.loads(Path("run/model/model.json").read_text())["frontend"] == expected.model_dump()
    assert load_bundle(Path("run/model")).frontend.settings == expected

    call = next(recordings.rglob("*.wav"))
    assert watkins("predict", "run", call, "--format", "raven", "--min-confidence", 0, "--max-novelty", "inf",
                   "--out", "found").status == 0  # fmt: skip
    raven = pd.read_csv(next(Path("found").rglob("*.txt")), sep="\t")
    assert (raven["Low Freq (Hz)"] == expected.f_min).all() and (raven["High Freq (Hz)"] == expected.highest).all()
    assert watkins("evaluate", "run", "--out", "evaluated").status == 0
    assert watkins("explain", "run", call, "--out", "why.png").status == 0

    pytest.importorskip("onnxruntime")
    done = watkins("export", "run", "--out", "model.onnx")  # refuses answers that differ from PyTorch's
    assert done.status == 0, done.err

    served = mlflow.pyfunc.load_model("models:/watkins-baseline/1")
    answer = served.predict(pd.DataFrame({"audio": [call.read_bytes()]}))
    probabilities = load_bundle(Path("run/model")).classify([call])
    assert answer["probability"][0] == pytest.approx(probabilities.max(), abs=1e-5)


def test_data_of_another_frontend_are_refused_with_what_differs(watkins, store, finished, prepared, recordings):
    assert watkins("prepare", recordings, "--min-clips", 3, "--workers", 1, *options(NARROW)).status == 0
    done = watkins("evaluate", finished.run_dir, "--data", "data")
    assert done.status == 1 and "f_max 3500.0 (model: None)" in done.err and len(done.err.splitlines()) == 1


def test_a_family_that_needs_another_frontend_refuses_the_data(watkins, store, prepared, monkeypatch):
    needing = replace(family("baseline"), frontend=FrontendSettings.at(32_000))
    monkeypatch.setattr("watkins_ml.runs.network_input.family", {"baseline": needing}.__getitem__)
    recipe = Path(__file__).parents[1] / "experiments" / "baseline.yaml"
    done = watkins("train", recipe, "-o", f"data.dir={prepared}", "--run-dir", "run")
    assert done.status == 1 and "sample_rate 16000 (model: 32000)" in done.err and len(done.err.splitlines()) == 1
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--f-max", 9_000], "f_max 9000 Hz is above half the sample rate (8000 Hz)"),
        (["--f-min", 500, "--f-max", 500], "f_min 500 Hz is not below f_max (500 Hz)"),
        (["--seconds", 90], "more than 524,288 numbers"),
        (["--mels", 300, "--f-max", 500], "of 300 mel bands from 0 to 500 Hz would be empty"),
        (["--compression", "cube"], "'cube' is not one of 'log', 'pcen'"),
    ],
)
def test_frontends_that_cannot_be_are_refused_before_anything_is_written(watkins, recordings, words, part):
    done = watkins("prepare", recordings, "--min-clips", 3, *words)
    assert (done.status, len(done.err.splitlines())) == (2, 1) and part in done.err
    assert not Path("data").exists()


def test_spectrograms_are_exported_in_the_layout_of_the_study(watkins, recordings):
    asked = ["prepare", recordings, "--min-clips", 3, "--workers", 1, *options(NARROW)]
    assert watkins(*asked, "--export-sides", "study").status == 0
    for side in SIDES:
        rows = table(Path("data"), side)
        files = sorted(Path("study", side).rglob("*.pt"))
        assert [f"{file.parent.name}/{file.stem}.wav" for file in files] == sorted(rows["path"])
        for file in files:
            assert torch.load(file, weights_only=True).shape == (1, 48, 150)
    done = watkins(*asked, "--export-sides", "study")
    assert done.status == 2 and "--export-sides study: is there already" in done.err
    done = watkins(*asked, "--export-sides", "data/spectrograms/study")
    assert done.status == 2 and "lies inside data/spectrograms" in done.err
