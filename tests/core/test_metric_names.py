"""The names of metrics stand in one module, and those of earlier versions are read as today's."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import watkins_ml
from watkins_ml.core import metric_names

PACKAGE = Path(watkins_ml.__file__).parent
HOME = PACKAGE / "core" / "metric_names.py"
QUANTITY = r"(loss|calibrated_loss|accuracy|(macro|weighted)_(f1|precision|recall)|nll|ece\w*|coverage_at\w*|aurc|X)?"
NAME = re.compile(
    rf"((fold|trial)_)?((best_)?(train|val|test)_{QUANTITY}(_(low|high|X))?|control_\w*)|best_(epoch|X)|threshold_90"
)


def spelled_out(path: Path) -> list[str]:
    """Literals that are the name of a metric, an f-string with X for what is put in."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            text = node.value
        else:
            continue
        if NAME.fullmatch(text):
            found.append(f"{path.name}:{node.lineno} {text}")
    return found


def test_no_other_module_spells_out_the_name_of_a_metric():
    assert not [name for path in PACKAGE.rglob("*.py") if path != HOME for name in spelled_out(path)]


@pytest.mark.parametrize(
    "line",
    ['m["val_macro_f1"]', 'f"val_{name}"', '"best_val_ece"', 'f"control_{name}_accuracy"', 'f"test_{key}_{end}"'],
)
def test_the_search_finds_names(tmp_path, line):
    (tmp_path / "module.py").write_text(f"x = {line}\n")
    assert spelled_out(tmp_path / "module.py")
    assert spelled_out(HOME)


def test_earlier_names_of_a_kept_networks_validation_are_read_as_todays():
    earlier = {"best_epoch": 3, "val_macro_f1": 0.5, "val_ece_uncalibrated": 0.1, "test_accuracy": 0.25}
    today = {"best_epoch": 3, "best_val_macro_f1": 0.5, "best_val_ece_uncalibrated": 0.1, "test_accuracy": 0.25}
    assert metric_names.renamed(earlier) == metric_names.renamed(today) == today


def test_scopes_and_quantities_make_the_names():
    assert metric_names.BEST_VAL + metric_names.MACRO_F1 == metric_names.BEST_VAL_MACRO_F1 == "best_val_macro_f1"
    assert metric_names.VAL + metric_names.MACRO_F1 == metric_names.VAL_MACRO_F1
    assert metric_names.control("tape", metric_names.ACCURACY) == "control_tape_accuracy"
