"""Cross-validations over the same folds together: each recording with the ensemble of the fold that tests it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import write_bytes, write_csv
from watkins_ml.core.metric_names import (
    BEST_VAL_MACRO_F1,
    CONTROL,
    FOLD,
    TEMPERATURE,
    TEST,
    TEST_ACCURACY,
    TEST_MACRO_F1,
    THRESHOLD_90,
)
from watkins_ml.dataset.folds import FoldRule, Folds, make_folds
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.loading import SpectrogramFiles
from watkins_ml.dataset.split import SIDES, leak_stamp
from watkins_ml.inference.resolve import is_uri
from watkins_ml.models.bundle_files import DESCRIPTION
from watkins_ml.runs.crossval import CrossValidation, pooled_data
from watkins_ml.runs.ensemble_members import MemberRun, combined, configuration, read_data
from watkins_ml.runs.ensemble_record import HOW_TO_CONTINUE, begin, recorded, refuse_others, write_history
from watkins_ml.runs.lifecycle import RunInterruptedError, run_lifecycle
from watkins_ml.runs.reports import validated_species
from watkins_ml.tracking.records import Launch
from watkins_ml.tracking.run_files import check_confined
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.uploader import Uploader


class FoldScores(NamedTuple):
    """What the ensemble of one fold says."""

    data: PreparedData
    validation: dict[str, float]
    """Its scores on the fold's validation side."""
    found: dict[str, float]
    """Temperature and threshold, from there."""
    logits: np.ndarray
    """Of its test side, float32 (recordings, species)."""


def pool_ensemble(
    members: list[MemberRun], run_dir: Path, data_dir: Path | None = None, launch: Launch | None = None
) -> CrossValidation:
    """Pool the predictions of ensembles, one a fold, of cross-validations; there is no model.

    Raises:
        UsageError: `run_dir` holds something else, or a member is no folder.
        UserError: folds or data are missing, or the data have changed.
    """
    data_dir = data_dir or Path(members[0].config.data.dir)
    folds = _folds(members, data_dir)
    sides = {fold: folds.data_of(fold) for fold in folds.names}
    config = configuration(members, [_section(each, folds.names[0]) for each in members], data_dir, register_as=None)
    record = RunDirectory(run_dir)
    refuse_others(record, config, members)
    scores = {fold: _score_fold(members, fold, data) for fold, data in sides.items()}
    rule = members[0].run.facts.fold_rule or {}
    facts = {"folds": len(sides), "fold_rule": rule, "untestable": folds.untestable}
    with recorded(record, folds.data) as is_new:
        if is_new:
            begin(record, config, pooled_data(folds, sides), members, launch, **facts)
            with Uploader(record), run_lifecycle(record, HOW_TO_CONTINUE, stops=(RunInterruptedError,)):
                _pool(record, folds, scores, members)
    table = _fold_table(scores)
    return CrossValidation(record.root, record.read_metrics(), table, folds.untestable, folds.rule.protocol)


def _folds(members: list[MemberRun], data_dir: Path) -> Folds:
    for member in members:
        if is_uri(member.model):
            raise UsageError(
                f"{member.model}: is a cross-validation on a server; name its run directory, with its folds"
            )
    facts = members[0].run.facts
    try:
        rule = FoldRule(**(facts.fold_rule or {}))
    except TypeError:
        raise UserError(f"{members[0].model}: its run.json says no folds that this version can make") from None
    folds = make_folds(read_data(data_dir, members), rule)
    if folds.digest != facts.data_digest:
        raise UserError(
            f"{data_dir}: prepared anew since {members[0].model} (its folds have the digest {facts.data_digest}, these "
            f"{folds.digest}); prepare it as it was, or name another copy with --data"
        )
    return folds


def _fold(member: MemberRun, fold: str) -> RunDirectory:
    return RunDirectory(member.run.root / f"fold-{fold}")


def _section(member: MemberRun, fold: str) -> dict[str, Any]:
    """What the ensemble's section `model` says of a member; the frontend is the same in all folds."""
    file = _fold(member, fold).model / DESCRIPTION
    try:
        frontend = json.loads(file.read_text(encoding="utf-8"))["frontend"]
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"{file}: missing or damaged; take it from another copy") from None
    return {"model": member.config.model.model_dump(), "frontend": frontend, "temperature": None}


def _score_fold(members: list[MemberRun], fold: str, data: PreparedData) -> FoldScores:
    runs, val = [_fold(member, fold) for member in members], data.sides["val"]
    for run in runs:
        check_confined(run.root)
        if run.facts.data_digest != data.digest:
            raise UserError(f"{run.root}: of other sides than this fold of {data.folder.root}; run `watkins crossval`")
    evaluation, found = validated_species(
        val["label"].to_numpy(), combined(runs, "val", val, data.classes), data.classes, val["tape"]
    )  # fmt: skip
    return FoldScores(data, evaluation.scores, found, combined(runs, "test", data.sides["test"], data.classes))


def _pool(record: RunDirectory, folds: Folds, scores: dict[str, FoldScores], members: list[MemberRun]) -> None:
    """The report of all folds together, as of a cross-validation."""
    from watkins_ml.evaluation.report import write_report
    from watkins_ml.evaluation.result import evaluate

    for sentence in leak_stamp(folds.rule.protocol).values():
        err.print(sentence, style="yellow")
    parts = list(scores.values())
    tested = pd.concat([part.data.sides["test"] for part in parts], ignore_index=True)
    counts = [len(part.logits) for part in parts]
    evaluation = evaluate(
        tested["label"].to_numpy(),
        np.concatenate([part.logits for part in parts]),
        folds.data.classes,
        np.repeat([part.found[TEMPERATURE] for part in parts], counts),
        np.repeat([part.found.get(THRESHOLD_90, np.inf) for part in parts], counts),
        tested["tape"],
    )
    write_report(record.root, "test", tested, evaluation, SpectrogramFiles(folds.data, tested), folds.data)
    metrics = {TEST + name: value for name, value in evaluation.scores.items()} | _controls(record, members)
    record.write_metrics(metrics)
    table = _fold_table(scores)
    write_csv(record.root / "reports" / "folds.csv", table)
    write_history(record, [part.validation for part in parts])
    for number, row in enumerate(table.to_dict("records"), start=1):
        chosen = {FOLD + key: row[key] for key in (BEST_VAL_MACRO_F1, TEST_ACCURACY, TEST_MACRO_F1)}
        record.record_once("metrics", step=number, values=chosen)
    record.record_once("metrics", step=0, values={key: value for key, value in metrics.items() if value == value})


def _controls(record: RunDirectory, members: list[MemberRun]) -> dict[str, float]:
    """The controls of a member, which are of the same folds; of a refitted one, if there is any, for they know more."""
    member = next((each for each in members if each.config.train.refit), members[0]).run
    for name in ("reports/test_controls.csv", "preds/test_controls.csv"):
        if (member.root / name).is_file():
            write_bytes(record.root / name, (member.root / name).read_bytes())
    return {key: value for key, value in member.read_metrics().items() if key.startswith(CONTROL)}


def _fold_table(scores: dict[str, FoldScores]) -> pd.DataFrame:
    """A row a fold: fold, recordings of each side, and what the ensemble scores."""
    from watkins_ml.evaluation.metrics import score
    from watkins_ml.models.bundle import to_probabilities

    rows = []
    for fold, (data, validation, found, logits) in scores.items():
        labels = data.sides["test"]["label"].to_numpy()
        tested = score(labels, to_probabilities(torch.from_numpy(logits), found[TEMPERATURE]), data.classes)
        sizes = {side: len(data.sides[side]) for side in SIDES}
        rows.append(
            {
                "fold": fold,
                **sizes,
                BEST_VAL_MACRO_F1: validation["macro_f1"],
                TEST_ACCURACY: tested["accuracy"],
                TEST_MACRO_F1: tested["macro_f1"],
            }
        )
    return pd.DataFrame(rows)
