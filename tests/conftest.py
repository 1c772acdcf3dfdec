"""Shared fixtures: every test in its own folder with its own embedded store, and a small prepared data set."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

os.environ["OMP_NUM_THREADS"] = "1"  # tests run in parallel; one thread each is fastest
torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"
RATE = 8_000


@pytest.fixture(autouse=True)
def isolated(tmp_path, monkeypatch):
    """A working folder of its own, no tracking server from outside, torch's global state restored."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("WATKINS_DEBUG", raising=False)
    rng = torch.get_rng_state()
    yield
    torch.set_rng_state(rng)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The real recordings and weights beside the repository."""
    if not SHARED.is_dir():
        pytest.skip(f"no real data: {SHARED} is absent")
    return SHARED


def tone(frequency: float, seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    """A noisy tone, float32, shape (samples,)."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * frequency * time) + 0.05 * rng.standard_normal(len(time))).astype("float32")


def write_archive(folder: Path, species: dict[str, float], tapes: int = 4, cuts: int = 3, seconds: float = 0.4) -> Path:
    """Class folders of noisy tones, one frequency a species; cut ids as in Watkins (tape + three digits)."""
    seed = 0
    for number, (name, frequency) in enumerate(species.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for tape in range(tapes):
            for cut in range(cuts):
                seed += 1
                path = folder / name / f"{number + 1:02d}{tape:03d}{cut:03d}.wav"
                soundfile.write(path, tone(frequency * (1 + 0.01 * tape), seconds, seed), RATE)
    return folder


THREE_SPECIES = {"FinWhale": 400.0, "Risso'sDolphin": 3000.0, "Short_Finned(Pacific)PilotWhale": 1500.0}


@pytest.fixture(scope="session")
def archive(tmp_path_factory) -> Path:
    """36 recordings of three species on twelve tapes. Copy it before changing it."""
    return write_archive(tmp_path_factory.mktemp("archive"), THREE_SPECIES)


@pytest.fixture(scope="session")
def prepared(archive, tmp_path_factory) -> Path:
    """The archive as `watkins prepare` leaves it. Read only."""
    from watkins_ml.dataset.prepare import PrepareOptions, prepare

    out = tmp_path_factory.mktemp("prepared") / "data"
    prepare(archive, out, PrepareOptions(workers=1))
    return out


@pytest.fixture
def recipe(prepared):
    """A function that gives the shipped baseline (or efficientnet) configuration, made small."""
    from watkins_ml.config import load_config

    def load(name: str = "baseline", *overrides: str):
        path = Path(__file__).resolve().parents[1] / "experiments" / f"{name}.yaml"
        small = [f"data.dir={prepared}", "data.batch_size=8", "train.epochs=2", "train.device=cpu"]
        if name == "efficientnet":
            small.append("model.weights=none")
        return load_config(path, [*small, *overrides])

    return load
