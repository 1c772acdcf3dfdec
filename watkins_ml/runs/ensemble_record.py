"""The record of an ensemble: how its run directory begins, goes on, and says what it scores on validation."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import disk_errors, write_csv
from watkins_ml.core.locks import reading
from watkins_ml.core.metric_names import (
    TRAIN_ACCURACY,
    TRAIN_LOSS,
    VAL_ACCURACY,
    VAL_CALIBRATED_LOSS,
    VAL_LOSS,
    VAL_MACRO_F1,
)
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.runs.ensemble_members import MemberRun, member_facts
from watkins_ml.tracking.records import ENSEMBLE, Launch
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.uploader import Uploader

if TYPE_CHECKING:
    pass

HOW_TO_CONTINUE = "the same command goes on with it"
SINGLE_EPOCH = 1
"""An ensemble has no epochs; its history has the one row that every run's has."""


def begin(
    record: RunDirectory,
    config: ExperimentConfig,
    data: PreparedData,
    members: list[MemberRun],
    launch: Launch | None,
    **facts: object,
) -> None:
    """The first entries, or that it goes on after an interruption."""
    resumes = record.facts_file.exists()
    if not resumes:
        own = {"members": member_facts(members), **facts}
        record.write_facts(config, data, launch or Launch(), uid=uuid.uuid4().hex, command=ENSEMBLE, **own)
    record.open_journal(config, data, {"ensemble.members": ", ".join(member.model for member in members)})
    if resumes:
        record.update_facts(status="RUNNING")
        record.record("resume", epoch=None)


def refuse_others(record: RunDirectory, config: ExperimentConfig, members: list[MemberRun]) -> None:
    """Leave a folder alone that holds anything but this ensemble, or what a very early kill left of it."""
    if not record.facts_file.exists():
        if record.root.exists() and {path.name for path in record.root.glob("[!.]*")} - {"config.yaml"}:
            raise UsageError(f"{record.root}: exists and is no ensemble; give another --name")
        return
    facts = record.facts
    known = {(each.uid, each.name) for each in facts.members or []}
    if facts.command != ENSEMBLE or known != {(each["uid"], each["name"]) for each in member_facts(members)}:
        raise UsageError(f"{record.root}: holds another run; give this ensemble another --name")
    if changed := record.changes(config):
        raise UsageError(f"{record.root}: holds an ensemble that differs ({'; '.join(changed)}); give another --name")


@contextmanager
def recorded(record: RunDirectory, data: PreparedData) -> Iterator[bool]:
    """While an ensemble is written; gives False where it is there already, and only sends what has not arrived."""
    with disk_errors(f"cannot write to {record.root}", f"make room; {HOW_TO_CONTINUE}"):
        record.root.mkdir(parents=True, exist_ok=True)
        with record.training(), reading(data.folder.root, f"{ENSEMBLE} ({record.root})"):
            if record.facts_file.exists() and record.facts.status == "FINISHED":
                record.close_if_dead()
                with Uploader(record):
                    err.print(f"{record.root}: this ensemble has been made")
                yield False
            else:
                yield True


def write_history(record: RunDirectory, validation: list[dict[str, float]]) -> None:
    """The one row of an ensemble's history: its scores on validation, the mean over its folds where there are some."""
    scores = pd.DataFrame(validation).mean()
    row = {
        "epoch": SINGLE_EPOCH,
        TRAIN_LOSS: np.nan,
        VAL_LOSS: scores["nll"],
        TRAIN_ACCURACY: np.nan,
        VAL_ACCURACY: scores["accuracy"],
        VAL_MACRO_F1: scores["macro_f1"],
        VAL_CALIBRATED_LOSS: scores["nll"],
    }
    write_csv(record.history, pd.DataFrame([row]))
