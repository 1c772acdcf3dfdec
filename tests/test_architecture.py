"""The package's layers: imports go downward only, modules stay small, and CONTRIBUTING.md names every package."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "watkins_ml"
MODULES = sorted(PACKAGE.rglob("*.py"))
LAYERS = [
    ["core"],
    ["audio"],
    ["annotations"],
    ["dataset"],
    ["transforms", "models", "fetch"],
    ["config"],
    ["serving"],
    ["tracking"],
    ["training"],
    ["evaluation"],
    ["inference"],
    ["runs"],
    ["tuning"],
    ["demo"],
    ["cli"],
]
"""From the bottom; packages of one layer do not import each other."""
HEIGHT = {package: height for height, layer in enumerate(LAYERS) for package in layer}
MOST_LINES = 300


def package_of(module: str) -> str:
    """`watkins_ml.core.files` is of core, `watkins_ml.config` of config, `watkins_ml` itself of none."""
    return module.split(".")[1] if "." in module else ""


def imports(file: Path) -> Iterator[tuple[int, str]]:
    """Line and module of every import of the package's own modules, also of those inside functions."""
    parent = ("watkins_ml", *file.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = parent[: len(parent) - node.level + 1] if node.level else ()
            base = ".".join((*start, node.module) if node.module else start)
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "watkins_ml" else [base]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] == "watkins_ml")


def test_every_package_has_a_layer():
    found = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir() if not path.name.startswith("__")}
    assert found == set(HEIGHT)


def test_imports_go_downward_only():
    wrong = []
    for file in MODULES:
        own = package_of(".".join(("watkins_ml", *file.relative_to(PACKAGE).with_suffix("").parts)))
        for line, name in imports(file):
            other = package_of(name)
            if own in HEIGHT and other in HEIGHT and other != own and HEIGHT[other] >= HEIGHT[own]:
                wrong.append(f"{file.relative_to(ROOT)}:{line} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_this_test_sees_imports_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PACKAGE", tmp_path)
    module = tmp_path / "core" / "module.py"
    module.parent.mkdir()
    module.write_text(
        "import watkins_ml.cli.tune\nfrom watkins_ml import config, __version__\n"
        "def f():\n    from watkins_ml.runs.train import train\n"
        "    from ..models import registry\n    from . import files\n"
    )
    assert [name for _, name in imports(module)] == [
        "watkins_ml.cli.tune",
        "watkins_ml.config",
        "watkins_ml.__version__",
        "watkins_ml.runs.train",
        "watkins_ml.models",
        "watkins_ml.core",
    ]


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_module_is_longer_than_three_hundred_lines(file: Path):
    assert len(file.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_contributing_names_the_layers_from_the_top():
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## The map of the code")[2]
    rows = re.findall(r"^\| ((?:`[a-z_]+`(?:, )?)+) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert [sorted(re.findall(r"`([a-z_]+)`", row)) for row in rows] == [sorted(layer) for layer in LAYERS[::-1]]
