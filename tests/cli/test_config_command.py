"""`watkins config` lists what a recipe can say."""

from __future__ import annotations

import json
import os
import sys

import pytest

from tests.support import forked
from tests.support.commands import assert_one_line
from watkins_ml import __version__
from watkins_ml.config import ExperimentConfig
from watkins_ml.models.registry import all_families
from watkins_ml.transforms.registry import all_transforms


def test_every_key_of_every_section_family_and_transform_is_listed(watkins):
    said = watkins("config")
    assert said.status == 0
    for family in all_families():
        assert family.title in said.out and all(f"model.{key}" in said.out for key in family.config.model_fields)
    for transform in all_transforms().values():
        assert all(f"augment.N.{key}" in said.out for key in transform.model_fields)
    for name, field in ExperimentConfig.model_fields.items():
        assert all(f"{name}.{key}" in said.out for key in getattr(field.annotation, "model_fields", ()))
    assert "whole number ≥ 1, ≤ 1,000,000" in said.out and "auto, none, bf16, fp16" in said.out and "null" in said.out


def test_one_family_and_json(watkins):
    said = watkins("config", "baseline")
    assert said.status == 0 and "model.dropout" in said.out and "model.freeze_depth" not in said.out
    keys = json.loads(watkins("config", "baseline", "--json").out)
    (epochs,) = (key for key in keys if key["name"] == "train.epochs")
    assert epochs["values"] == "whole number ≥ 1, ≤ 1,000,000" and {key["name"] for key in keys} >= {"model.dropout"}
    assert_one_line(watkins("config", "baselin"), 2, "did you mean baseline?")


def test_the_version_is_that_of_the_package(watkins):
    assert watkins("--version").out == f"watkins {__version__}\n"


@pytest.mark.slow
@pytest.mark.parametrize(("typed", "word"), [("tr", "train"), ("cross", "crossval"), ("train --no", "--note")])
def test_the_shell_completes_commands_and_options(tmp_path, typed, word):
    words = f"watkins {typed}"
    variables = {"_WATKINS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    program = [sys.executable, "-c", "from watkins_ml.cli import app; app(prog_name='watkins')"]
    said = forked.run(program, cwd=tmp_path, env=os.environ | variables, capture_output=True, text=True)
    assert word in said.stdout.split(), said.stderr
