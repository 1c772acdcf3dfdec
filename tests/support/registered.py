"""Asks MLflow for the model of a run, as anybody who has only the server: its files, and what it says of noise."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile

from watkins_ml.core.metric_names import BEST_VAL_CONTROL_MACRO_F1
from watkins_ml.inference.by_file import predict_files
from watkins_ml.models.bundle import load_bundle
from watkins_ml.tracking.rundir import RunDirectory


def without_control(run: RunDirectory) -> None:
    """Let a run's journal say nothing of the control beside its network, as those of earlier versions did."""
    entries = [json.loads(line) for line in run.journal.read_text(encoding="utf-8").splitlines()]
    for entry in entries:
        if entry["kind"] == "model":
            del entry["tags"][BEST_VAL_CONTROL_MACRO_F1]
    run.journal.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def held(uri: str) -> dict[str, str]:
    """The files of the bundle in a logged or registered model, by name."""
    with tempfile.TemporaryDirectory() as folder:
        there = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
        (description,) = there.rglob("model.json")
        return digests(description.parent)


def assert_is_the_runs_own(uri: str, run_dir: Path, folder: Path) -> None:
    """The model at `uri` has the run's own files, byte for byte, and white noise is unknown to it as to the run."""
    own = digests(run_dir / "model")
    assert set(own) == {"model.json", "weights.pt", "novelty.pt", "example.wav"}
    assert held(uri) == own
    noise = folder / "noise.wav"
    soundfile.write(noise, np.random.default_rng(0).normal(0, 0.1, 4_000), 8_000)
    (answer,) = mlflow.pyfunc.load_model(uri).predict(pd.DataFrame({"path": [str(noise)]})).to_dict("records")
    (expected,) = predict_files(load_bundle(run_dir / "model"), [noise]).to_dict("records")
    assert (answer["species"], expected["species"]) == ("unknown", "unknown")
    assert answer["novelty"] == pytest.approx(expected["novelty"], rel=1e-3) and answer["novelty"] > 1
