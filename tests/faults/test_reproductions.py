"""Faults that people met, each as a script of its own that says whether the program does right now."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import SHARED

FOLDER = SHARED / "faults"
SCRIPTS = sorted(FOLDER.glob("*.sh"))

pytestmark = pytest.mark.faults


@pytest.mark.skipif(not SCRIPTS, reason=f"{FOLDER} is not there")
@pytest.mark.parametrize("script", [pytest.param(path, id=path.stem) for path in SCRIPTS])
def test_the_program_does_right(script: Path, tmp_path: Path):
    """Exit status: 0 it does right, 1 it does not, 2 the script itself failed."""
    tools = {"WATKINS": str(Path(sys.executable).with_name("watkins")), "PYTHON": sys.executable}
    outcome = subprocess.run(
        ["bash", script], cwd=tmp_path, env=os.environ | tools | {"TMPDIR": str(tmp_path)},
        capture_output=True, text=True, errors="replace", timeout=1200,
    )  # fmt: skip
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
