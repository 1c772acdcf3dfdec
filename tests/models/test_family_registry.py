"""The registry of model families: what it finds, and that nobody else knows a family by name."""

from __future__ import annotations

import ast
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.support import EXPERIMENTS, ROOT, forked
from watkins_ml.config import load_config
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.models import registry
from watkins_ml.models.registry import all_families, family, family_names, try_model

PACKAGE = ROOT / "watkins_ml"
NAMES = re.compile(r"baseline|efficientnet|\btimm\b", re.IGNORECASE)
EXAMPLE = re.compile(r"Example: |experiments/[\w.-]+\.yaml|for example ")
"""Help texts and errors that show a user what to write."""
ONE_FILE = '''
from typing import Literal
from torch import nn
from watkins_ml.models.family import Family, ModelSection


class MeanModel(ModelSection):
    """The mean of each band under one linear layer."""

    name: Literal["mean"]


class MeanNetwork(nn.Module):
    explained_layer = None
    embedding_size = 1

    def __init__(self, species):
        super().__init__()
        self.classifier = nn.Linear(1, species)

    def embed(self, spectrograms):
        return spectrograms.mean(dim=(2, 3))

    def head(self, embeddings):
        return self.classifier(embeddings)

    def forward(self, spectrograms):
        return self.head(self.embed(spectrograms))


FAMILY = Family("mean", "Mean", "watkins-mean", MeanModel, lambda config, species, pretrained: MeanNetwork(species))
'''


def test_each_family_has_a_file_a_title_and_if_it_is_trained_a_recipe_that_registers_under_its_name():
    files = {path.stem for path in (PACKAGE / "models" / "families").glob("[!_]*.py")}
    assert set(family_names()) == files == {each.name for each in all_families()}
    recipes = "\n".join(path.read_text() for path in EXPERIMENTS.glob("*.yaml"))
    for each in all_families():
        assert each.title
        if each.members is None:
            assert f"name: {each.name}" in recipes and f"register_as: {each.registered_name}" in recipes


def test_an_unknown_family_is_refused_with_the_nearest_name():
    with pytest.raises(UsageError, match=r"^efficientnet_b1: must be one of .*; did you mean efficientnet_b0"):
        family("efficientnet_b1")


@pytest.fixture
def offer(tmp_path, monkeypatch):
    """Install a package that offers a family by an entry point, for the length of a test."""
    caches = (registry.family, registry._entry_points)

    def install(package: str, name: str, target: str) -> None:
        metadata = tmp_path / package / f"{package}-1.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{name} = {target}\n")
        monkeypatch.syspath_prepend(metadata.parent)
        for each in caches:
            each.cache_clear()

    yield install
    monkeypatch.undo()
    for each in caches:
        each.cache_clear()


def test_two_packages_with_a_family_of_one_name_are_refused_and_disturb_no_other(offer):
    offer("first", "twin", "math:pi")
    offer("second", "twin", "math:tau")
    with pytest.raises(UsageError, match=r"^twin: the packages (first and second|second and first) offer a family"):
        family("twin")
    assert "baseline" in [each.name for each in all_families()]


def test_a_name_of_this_package_cannot_be_taken_by_another(offer):
    offer("thief", "baseline", "math:pi")
    assert family("baseline").title == "Baseline" and family_names().count("baseline") == 1


def test_an_entry_point_that_is_no_family_names_its_package(offer):
    offer("numbers", "pi", "math:pi")
    with pytest.raises(UsageError, match=r"^pi: the family of the package numbers is wrong: math:pi is no Family"):
        family("pi")


def test_no_other_module_knows_a_family_by_name():
    found = []
    for path in PACKAGE.rglob("*.py"):
        if "families" not in path.parts:
            found += [f"{path.relative_to(ROOT)}:{line}: {word}" for line, word in named(path)]
    assert found == []


def is_example(node: ast.Assign) -> bool:
    """Whether this is the example of a command's help."""
    return any(isinstance(target, ast.Name) and target.id == "EXAMPLE" for target in node.targets)


def named(path: Path) -> list[tuple[int, str]]:
    """Line and text of names and strings, beside docstrings and examples, that name a family."""
    tree = ast.parse(path.read_text())
    plain = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    plain |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Assign) and is_example(node)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in plain:
            words = "" if EXAMPLE.search(node.value) or node.value.startswith("  watkins train") else node.value
        else:
            words = getattr(node, "id", "") or getattr(node, "attr", "")
        if NAMES.search(words):
            found.append((node.lineno, words))
    return found


@pytest.mark.slow
def test_a_family_is_one_file_and_one_recipe(prepared, tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "watkins_ml", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "watkins_ml" / "models" / "families" / "mean.py").write_text(ONE_FILE)
    recipe = (EXPERIMENTS / "baseline.yaml").read_text().replace("name: baseline\n  dropout: 0.3", "name: mean")
    recipe = recipe.replace("dir: data", f"dir: {prepared}").replace(
        "register_as: watkins-baseline", "register_as: null"
    )
    (tmp_path / "mean.yaml").write_text(recipe.replace("epochs: 10", "epochs: 1"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "watkins_ml", "train", "mean.yaml", "--run-dir", "run"]
    done = forked.run(command, fresh=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"family": "mean"' in (tmp_path / "run" / "run.json").read_text()


def test_spectrograms_that_are_too_small_for_a_network_are_refused_before_anything_is_written():
    model = load_config(EXPERIMENTS / "baseline.yaml").model
    try_model(model, 3, (1, 64, 16))
    with pytest.raises(UserError, match=r"model\.name baseline: cannot use spectrograms of 64 mel bands and 12 frames"):
        try_model(model, 3, (1, 64, 12))
