"""`train.refit`: once its epochs are known, a network of all recordings but those of the test side."""

from __future__ import annotations

from functools import partial

import pandas as pd
from torch import nn

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.console import err
from watkins_ml.core.distributed import current
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_csv
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.loading import Side
from watkins_ml.models.registry import build_model
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.training.checkpoints import Checkpoint, load_checkpoint
from watkins_ml.training.features import FeatureCache
from watkins_ml.training.loop import refit
from watkins_ml.training.monitor import best_epoch

CHECKPOINT = "refit.pt"
"""Beside the other checkpoints, until the run has its result."""


def refit_network(
    config: ExperimentConfig, data: PreparedData, train: Side, val: Side, run: RunDirectory | None
) -> nn.Module:
    """The second network of a run, or of a process that helps to train it (`run` None); goes on where a kill came.

    Its losses are in the run's `refit.csv`.
    """
    group = current()
    rates = group.broadcast(None if run is None else _rates(run.read_history(), config.train.monitor))
    start = None if run is None else _checkpoint(run, rates)
    err.print(f"Refit: {plural(len(train) + len(val), 'recording')} of both sides, {plural(len(rates), 'epoch')}")
    network, rows = refit(
        config,
        partial(build_model, config.model, len(data.classes), pretrained=start is None and group.is_first),
        train,
        val,
        len(data.classes),
        rates,
        None if run is None else run.checkpoints / CHECKPOINT,
        start,
        FeatureCache(data.folder.root / "features", data.digest, config.data.feature_cache_gb),
    )
    if run is not None:
        write_csv(run.root / "refit.csv", pd.DataFrame(rows))
    return network


def _rates(history: pd.DataFrame, monitor: str) -> list[float]:
    """The learning rate of each epoch up to the best one."""
    return history["learning_rate"][history["epoch"] <= best_epoch(history, monitor)].tolist()


def _checkpoint(run: RunDirectory, rates: list[float]) -> Checkpoint | None:
    """That of an interrupted call for the same epochs."""
    path = run.checkpoints / CHECKPOINT
    try:
        found = load_checkpoint(path) if path.exists() else None
    except UserError as error:
        err.print(f"{error}; refitting from the start", style="yellow")
        return None
    return found if found is not None and found.facts["rates"] == rates else None
