"""A small training, and its result when nothing goes wrong."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import EXPERIMENTS
from tests.support.children import Command

RECIPE = EXPERIMENTS / "baseline.yaml"


@dataclass(frozen=True)
class Training:
    """One small training, to be started, killed and resumed in folders of its own."""

    data: Path
    epochs: int = 6

    def start(self, folder: Path, name: str | None = None, **how) -> Command:
        """`watkins train … --run-dir run` in `folder`; `name` is the registered model's."""
        overrides = [
            f"data.dir={self.data}",
            "data.batch_size=8",
            f"train.epochs={self.epochs}",
            "train.early_stopping_patience=6",
            "train.device=cpu",
            f"tracking.register_as={name or 'null'}",
        ]
        words = [word for override in overrides for word in ("-o", override)]
        return Command(folder, "train", RECIPE, "--run-dir", "run", *words, **how)

    def resume(self, folder: Path, **how) -> Command:
        return Command(folder, "train", "--resume", "run", **how)

    def go_on(self, folder: Path, name: str | None = None, **how) -> Command:
        """Resume where a run has begun, else start it."""
        if (folder / "run" / "run.json").exists():
            return self.resume(folder, **how)
        shutil.rmtree(folder / "run", ignore_errors=True)
        return self.start(folder, name, **how)


@pytest.fixture(scope="session")
def training(prepared) -> Training:
    return Training(prepared)


@pytest.fixture(scope="session")
def reference(training, tmp_path_factory) -> Path:
    """The run directory of the same training when nobody interrupts it and nobody tracks it. Read only."""
    folder = tmp_path_factory.mktemp("reference")
    command = training.start(folder, uri="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert command.wait() == 0, command.said
    return folder / "run"
