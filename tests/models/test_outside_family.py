"""A family of models that comes in another package, installed from a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.support import EXPERIMENTS, ROOT, forked

PACKAGE = ROOT / "tests" / "support" / "toy_package"
TRACKED = "models:/watkins-toy/1"
RECIPE = """
base: {base}
model: {{name: toy, scale: 2.0, dropout: null}}
data: {{dir: {data}, batch_size: 8}}
train: {{epochs: 2, device: cpu}}
tracking: {{register_as: watkins-toy}}
"""


def install(source: Path, target: Path) -> Path:
    """Install a package with pip, without an index; the folder to be put on PYTHONPATH."""
    shutil.copytree(source, target.with_name("source"))
    arguments = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--target", target]
    subprocess.run(
        [sys.executable, "-m", "pip", *map(str, arguments), str(target.with_name("source"))],
        check=True, capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    return install(PACKAGE, tmp_path_factory.mktemp("outside") / "site")


def run(folder: Path, installed: Path | None, *words: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(map(str, filter(None, (ROOT, installed))))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, *map(str, words)]
    return forked.run(command, fresh=True, cwd=folder, env=environment, capture_output=True, text=True)


def watkins(folder: Path, installed: Path | None, *words: object) -> subprocess.CompletedProcess[str]:
    return run(folder, installed, "-m", "watkins_ml", *words)


@pytest.fixture(scope="module")
def trained(installed, prepared, empty_store, tmp_path_factory) -> Path:
    """A folder with a run of the toy family, registered in an embedded store, and a recording."""
    folder = tmp_path_factory.mktemp("toy")
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    recipe = RECIPE.format(base=EXPERIMENTS / "baseline.yaml", data=prepared).replace(", dropout: null", "")
    (folder / "base.yaml").write_text((EXPERIMENTS / "baseline.yaml").read_text().replace("  dropout: 0.3\n", ""))
    (folder / "toy.yaml").write_text(recipe.replace(str(EXPERIMENTS / "baseline.yaml"), "base.yaml"))
    samples = 0.3 * np.sin(2 * np.pi * 400 / 8_000 * np.arange(8_000))
    soundfile.write(folder / "call.wav", samples + np.random.default_rng(0).normal(0, 0.05, 8_000), 8_000)
    done = watkins(folder, installed, "train", "toy.yaml", "--run-dir", "run")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_it_trains_registers_and_predicts_from_the_run_and_the_registry(trained, installed):
    info = json.loads((trained / "run" / "run.json").read_text())
    assert info["family"] == "toy" and info["status"] == "FINISHED"
    answers = [
        watkins(trained, installed, "predict", model, "call.wav", "--out", out, "--format", "csv")
        for model, out in (("run", "of-run"), (TRACKED, "of-registry"))
    ]
    assert [done.returncode for done in answers] == [0, 0], answers[0].stderr + answers[1].stderr
    tables = [pd.read_parquet(next((trained / out / "windows").glob("*.parquet"))) for out in ("of-run", "of-registry")]
    pd.testing.assert_frame_equal(*tables)


@pytest.mark.slow
def test_the_registered_model_answers_where_neither_package_is_installed(trained):
    script = (
        "import sys, mlflow, pandas\n"
        f"model = mlflow.pyfunc.load_model({TRACKED!r})\n"
        "print(model.predict(pandas.DataFrame({'path': ['call.wav']})).probability[0])\n"
        "assert 'toy_family' not in sys.modules and 'watkins_ml' not in sys.modules\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["MLFLOW_TRACKING_URI"] = f"sqlite:///{trained}/mlflow/mlflow.db"
    done = forked.run(
        [sys.executable, "-c", script], fresh=True, cwd=trained, env=environment, capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert 0 < float(done.stdout) <= 1


@pytest.mark.slow
def test_without_its_package_a_recipe_and_a_run_are_refused_in_one_line(trained):
    for words in (("train", "toy.yaml", "--run-dir", "other"), ("predict", "run", "call.wav")):
        done = watkins(trained, None, *words)
        assert done.returncode != 0 and "toy: must be one of baseline, efficientnet_b0" in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (trained / "other").exists()


@pytest.mark.slow
def test_a_broken_package_is_named_and_disturbs_no_other_family(tmp_path):
    source = shutil.copytree(PACKAGE, tmp_path / "broken")
    (source / "toy_family" / "family.py").write_text("import not_there\n")
    site = install(source, tmp_path / "site")
    listing = "from watkins_ml.models.registry import all_families; print([each.name for each in all_families()])"
    assert "baseline" in run(tmp_path, site, "-c", listing).stdout
    done = watkins(tmp_path, site, "train", EXPERIMENTS / "baseline.yaml", "-o", "model.name=toy")
    assert done.returncode == 2
    assert "the package toy-family cannot be loaded (ModuleNotFoundError: No module named 'not_there')" in done.stderr
