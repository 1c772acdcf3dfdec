"""Prepared data and target folders that several commands want at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile

from tests.support import EXPERIMENTS, forked
from watkins_ml.core.locks import READERS, only_writer

pytestmark = pytest.mark.slow
RECIPE = EXPERIMENTS / "baseline.yaml"


@pytest.fixture
def data(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data")


@pytest.fixture
def training(data, tmp_path):
    """`watkins train` of ever more epochs as a process of its own, in its second epoch, which is streamed."""
    settings = (f"data.dir={data}", "data.batch_size=8", "train.epochs=9999", "train.early_stopping_patience=9999",
                "train.device=cpu", "data.memory_gb=0")  # fmt: skip
    command = [sys.executable, "-m", "watkins_ml", "train", str(RECIPE), "--run-dir", "run"]
    command += [part for setting in settings for part in ("-o", setting)]
    process = forked.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    history = tmp_path / "run" / "history.csv"
    while process.poll() is None and not history.exists():
        time.sleep(0.02)
    yield process
    process.kill()
    process.communicate()


def prepare_anew(watkins, archive, data):
    return watkins("prepare", archive, "--out", data, "--sample-rate", 4000, "--workers", 1)


def test_prepare_does_not_change_what_a_training_reads(training, watkins, archive, data):
    before = (data / "dataset.json").read_bytes()
    said = prepare_anew(watkins, archive, data)
    assert said.status == 1
    assert f"watkins train (run) (process {training.pid} on" in said.err and "is reading it" in said.err
    assert (data / "dataset.json").read_bytes() == before
    assert training.poll() is None
    training.kill()
    training.wait()
    assert prepare_anew(watkins, archive, data).status == 0


def test_a_training_that_nobody_saw_stops_where_its_data_change(training, watkins, archive, data):
    shutil.rmtree(data / READERS)  # as if it ran on a machine whose locks do not reach this one
    assert prepare_anew(watkins, archive, data).status == 0
    _, said = training.communicate(timeout=120)
    assert training.returncode == 1
    assert "data: prepared anew since this command began to read it" in said.splitlines()[-1]


def test_two_predicts_and_evaluates_of_one_folder(watkins, finished, data, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 16_000), 8000)
    commands = (
        ("predict", finished.run_dir, tmp_path / "a.wav", "--out", "out"),
        ("evaluate", finished.run_dir, "--data", data, "--out", "out"),
    )
    for command in commands:
        with only_writer(tmp_path / "out", "watkins predict"):
            before = sorted((tmp_path / "out").iterdir())
            said = watkins(*command)
            assert said.status == 1 and "out: watkins predict (process" in said.err and "is writing there" in said.err
            assert sorted((tmp_path / "out").iterdir()) == before
        assert watkins(*command).status == 0


def test_a_folder_that_cannot_be_made_is_one_sentence(watkins, finished, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.random.default_rng(0).uniform(-0.3, 0.3, 16_000), 8000)
    (tmp_path / "file").touch()
    said = watkins("predict", finished.run_dir, tmp_path / "a.wav", "--out", "file/out")
    assert said.status == 1 and said.err.startswith("watkins: cannot write to file/out: Not a directory")
