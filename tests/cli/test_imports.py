"""What a command imports before it knows that it needs it: libraries that take seconds come late."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIBRARIES = ("numpy", "pandas", "torch", "torchaudio", "torchvision", "mlflow", "optuna", "sklearn", "matplotlib")


def imported_by(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(set({LIBRARIES}) & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("command", ["", "prepare", "train", "tune", "predict", "compare", "models", "fetch"])
def test_help_needs_no_library(command):
    arguments = [*command.split(), "--help"]
    run = f"from watkins_ml.cli import app\napp({arguments}, standalone_mode=False)"
    assert imported_by(run) == set()


def test_who_hands_out_recordings_to_workers_does_without_torch():
    """They import it meanwhile."""
    assert imported_by("import watkins_ml.dataset.prepare, watkins_ml.cli.tables") == {"numpy", "pandas"}


def test_a_baseline_trains_without_torchvision_and_what_reports_need():
    assert imported_by("import watkins_ml.runs.train") <= {"numpy", "pandas", "torch", "torchaudio", "mlflow"}
