"""The runs that an ensemble is made of, and what they have kept of validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from watkins_ml.config import ExperimentConfig, load_stored, validate
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.metric_names import TEMPERATURE
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.targets import LABELS
from watkins_ml.inference.resolve import run_directory
from watkins_ml.models.registry import family_of_members
from watkins_ml.tracking.run_files import check_confined
from watkins_ml.tracking.rundir import RunDirectory


@dataclass(frozen=True)
class MemberRun:
    """A finished run that an ensemble is made of."""

    model: str
    """As the command line has it."""
    run: RunDirectory
    """Its run directory, or a copy without its model."""
    config: ExperimentConfig


@contextmanager
def member_runs(models: list[str]) -> Iterator[list[MemberRun]]:
    """The runs behind MODELs.

    Raises:
        UsageError: fewer than two, one twice, trainings beside cross-validations, or ensembles.
        UserError: one is not there or not finished, or they are of different data, splits or folds.
    """
    if len(models) < 2:
        raise UsageError("ensemble needs two MEMBERs or more")
    with ExitStack() as stack:
        runs = [RunDirectory(stack.enter_context(run_directory(model))) for model in models]
        found = [
            MemberRun(model, run, load_stored(run.root / "config.yaml"))
            for model, run in zip(models, runs, strict=True)
            if _is_usable(model, run)
        ]
        _check_together(found)
        yield found


def _is_usable(model: str, run: RunDirectory) -> bool:
    """True; raises where a run is no member, or leads out of its folder."""
    check_confined(run.root)
    facts = run.facts
    if facts.is_study:
        raise UsageError(f"{model}: is a study; name the run of its best trial")
    if facts.members is not None:
        raise UsageError(f"{model}: is an ensemble itself; name the models that it is made of")
    if facts.crossval is not None:
        raise UsageError(f"{model}: is a fold of the cross-validation {facts.crossval.name}; name that one")
    if facts.status != "FINISHED" and facts.model is None:
        raise UserError(f"{model}: has not finished ({facts.status}); finish it first")
    return True


def _check_together(members: list[MemberRun]) -> None:
    first, facts = members[0], members[0].run.facts
    for other in members[1:]:
        theirs = other.run.facts
        if (theirs.folds is None) != (facts.folds is None):
            raise UsageError(
                f"{first.model} and {other.model}: one is a cross-validation, the other a single run; name several of "
                "one kind"
            )
        for key, what in (("split_protocol", "split protocol"), ("data_digest", "data digest")):
            if (one := getattr(facts, key)) != (its := getattr(theirs, key)):
                what = f"folds ({what}" if facts.folds is not None else f"data or another split ({what}"
                raise UserError(
                    f"{other.model}: of other {what} {its}) than {first.model} ({one}); an ensemble needs the same"
                )
    uids = [member.run.facts.uid for member in members]
    if twice := next((each.model for each in members if uids.count(each.run.facts.uid) > 1), None):
        raise UsageError(f"{twice}: is named twice; name different runs")


def member_facts(members: list[MemberRun]) -> list[dict[str, str | None]]:
    """What `run.json` says of the members."""
    facts = [member.run.facts for member in members]
    return [{"uid": each.uid, "name": each.name or "", "family": each.family or ""} for each in facts]


def configuration(
    members: list[MemberRun], sections: list[dict], data_dir: Path, register_as: str | None
) -> ExperimentConfig:
    """That of the first member, with the members' `sections` as its model; raises a UsageError where they do not fit.

    Its sections `optim` and `train` say how that one was trained, and decide nothing here.
    """
    tree = members[0].config.model_dump()
    tree["model"] = {"name": family_of_members().name, "members": sections}
    tree["data"]["dir"] = str(data_dir)
    tree["augment"] = []
    tree["train"]["refit"] = any(member.config.train.refit for member in members)
    tree["tracking"]["register_as"] = register_as
    return validate(tree, "these members")


def mean_log_probabilities(logits: list[np.ndarray], temperatures: list[float]) -> np.ndarray:
    """The mean over members of their calibrated log-probabilities, float32 (cuts, species), from logits like that."""
    of_members = [
        log_softmax(each.astype(float) / temperature, axis=1)
        for each, temperature in zip(logits, temperatures, strict=True)
    ]
    return np.mean(of_members, axis=0).astype(np.float32)


def combined(runs: list[RunDirectory], side: str, frame: pd.DataFrame, classes: list[str]) -> np.ndarray:
    """`mean_log_probabilities` of what runs have kept of a side, in the order of `frame`."""
    from watkins_ml.evaluation.report import stored_logits

    temperatures = [run.read_metrics().get(TEMPERATURE, 1.0) for run in runs]
    logits = [
        stored_logits(run.root, side, frame["path"], classes, temperature)
        for run, temperature in zip(runs, temperatures, strict=True)
    ]
    return mean_log_probabilities(logits, temperatures)


def read_data(data_dir: Path, members: list[MemberRun]) -> PreparedData:
    """The data that the members were trained on; raises a UserError where the folder is missing."""
    try:
        data = read_prepared(data_dir)
    except UserError as error:
        had = f"{members[0].model} had {members[0].config.data.dir}"
        raise UserError(f"{error}, or name the members' data with --data ({had})") from None
    if data.task == LABELS:
        raise UserError(
            f"{data_dir}: prepared for any number of species a recording (--task {LABELS}); ensembles are of models "
            "that name one"
        )
    return data
