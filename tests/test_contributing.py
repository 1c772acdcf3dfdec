"""CONTRIBUTING.md is right: its steps are followed in a copy of the package, and what they add works."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.support import forked
from watkins_ml.dataset.prepare import PrepareOptions, prepare

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILE = re.compile(r"^`([\w/]+\.\w+)`:\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path, monkeypatch, archive) -> Path:
    """A copy of package and recipes, with data of the usual frontend and a recording."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "watkins_ml", folder / "watkins_ml", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    prepare(archive, folder / "data", PrepareOptions(workers=1))
    (folder / "recordings").mkdir()
    time = np.arange(16_000) / 8_000
    soundfile.write(folder / "recordings" / "one.wav", 0.5 * np.sin(2 * np.pi * 900 * time), 8_000)
    monkeypatch.chdir(folder)
    return folder


def follow(heading: str, checkout: Path) -> str:
    """Write the files of a section, run its commands, and return what they print."""
    section = TEXT.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    for name, content in FILE.findall(section):
        assert not (checkout / name).exists(), f"{name} is to be a new file"
        (checkout / name).write_text(content, encoding="utf-8")
    printed = ""
    for line in COMMANDS.search(section)[1].splitlines():
        watkins, *arguments = shlex.split(line)
        assert watkins == "watkins"
        done = forked.run(
            [sys.executable, "-m", "watkins_ml", *arguments],
            env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, timeout=300,
            fresh=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout + done.stderr
    return printed


@pytest.mark.slow
def test_a_model_is_one_file_and_one_recipe(checkout):
    printed = follow("How to add a model", checkout)
    assert "watkins-linear" in printed
    assert (checkout / "runs" / "linear" / "model").is_dir()
    assert "one.wav" in printed


@pytest.mark.slow
def test_a_transform_is_one_file(checkout):
    follow("How to add a transform", checkout)
    stored = (checkout / "runs" / "flip" / "config.yaml").read_text()
    assert "name: flip" in stored and "share: 0.5" in stored


@pytest.mark.slow
def test_a_command_is_one_file(checkout):
    printed = follow("How to add a command", checkout)
    assert "Greet somebody" in printed
    assert printed.endswith("Hello, Ada\n")


def test_make_targets_exist():
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([\w-]+)", TEXT, re.MULTILINE)) <= set(targets)


def test_named_files_exist_or_are_made_by_the_steps():
    made = {name for name, _ in FILE.findall(TEXT)}
    named = set(re.findall(r"`((?:\.?[a-z_]+/)+[a-z_]*\.?\w*)`", TEXT)) - made
    missing = [name for name in named if not (ROOT / name).exists() and not (ROOT / "watkins_ml" / name).exists()]
    assert named and not missing
