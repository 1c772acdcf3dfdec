"""docs/threat-model.md promises something in each row of its tables, and names the test that shows it."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

from tests.support import ROOT

PAGE = ROOT / "docs" / "threat-model.md"
TEST = re.compile(r"`(tests/[\w/.]+\.py)::(\w+)`")


def rows() -> list[str]:
    """The lines of its tables that promise something."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [line for line in lines if not set(line) <= set("|- ") and "| test |" not in line]


@cache
def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if hasattr(node, "name")}


def test_every_row_names_a_test():
    assert len(rows()) > 20
    assert [row for row in rows() if not TEST.search(row)] == []


def test_every_test_that_is_named_exists():
    lost = [
        f"{path}::{name}"
        for path, name in TEST.findall(PAGE.read_text(encoding="utf-8"))
        if not (ROOT / path).exists() or name not in functions(ROOT / path)
    ]
    assert lost == []
