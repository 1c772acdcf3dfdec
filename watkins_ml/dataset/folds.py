"""The split rule of cross-validation: which recordings each fold tests, validates and trains."""

from __future__ import annotations

import hashlib
import re
import warnings
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.files import check_name
from watkins_ml.core.names import normal
from watkins_ml.core.wording import plural
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.split import SIDES
from watkins_ml.dataset.targets import LABELS

VALIDATION_PARTS = 6
"""One part in so many of what a fold does not test is for validation."""


@dataclass(frozen=True)
class FoldRule:
    """How recordings get their fold: drawn, or as a pattern or a column says."""

    count: int = 5
    protocol: str = "tape"
    """`tape`: no tape in two folds, stratified by species; `random`: stratified by species only (leaky reference)."""
    seed: int = 0
    regex: str | None = None
    """Finds the fold in a file's name, its first group or the whole match: the official folds of a data set."""
    column: str | None = None
    """A column of the annotations that holds the fold."""


@dataclass(frozen=True)
class Folds:
    """Every recording of a prepared data set with its fold."""

    data: PreparedData
    rule: FoldRule
    table: pd.DataFrame
    """A row a recording, as in the sides of `data`, with `fold`, and `stratum`, the species by which it is divided."""
    untestable: dict[str, str]
    """Species that no fold can test after training on others of it, each with the reason."""

    @property
    def names(self) -> list[str]:
        """The folds, without those that hold nothing but species that are untestable."""
        testable = self.table[self._testable]
        return sorted(testable["fold"].unique(), key=lambda name: (len(name), name))

    @property
    def _testable(self) -> pd.Series:
        """Which rows can be tested; of those that may hold several species all, for what is absent is tested too."""
        if self.data.task == LABELS:
            return pd.Series(True, index=self.table.index)
        return ~self.table["species"].isin(self.untestable)

    @property
    def digest(self) -> str:
        """Of the data and of who is in which fold: two cross-validations compare where it is equal."""
        table = self.table[["path", "fold"]].sort_values("path").to_csv(index=False, lineterminator="\n")
        return hashlib.sha256(f"{self.data.digest} {self.rule.protocol}\n{table}".encode()).hexdigest()[:16]

    def data_of(self, name: str) -> PreparedData:
        """The prepared data with the sides of one fold: test is the fold, without the species that are untestable."""
        tested = self.table["fold"] == name
        rest = self.table[~tested]
        validating = _validation(rest, self.rule)
        parts = {
            "train": rest[~validating],
            "val": rest[validating],
            "test": self.table[tested & self._testable],
        }
        sides = {side: parts[side].drop(columns=["fold", "stratum"]).reset_index(drop=True) for side in SIDES}
        counts = self.data.summary["counts"] | {side: len(frame) for side, frame in sides.items()}
        placed = pd.concat([frame[["path"]].assign(side=side) for side, frame in sides.items()])
        digest = hashlib.sha256(f"{self.digest} {name}\n{placed.to_csv(index=False)}".encode()).hexdigest()[:16]
        absent = sorted(set(self.data.classes) - set(self.data.row_a_species(sides["test"])["species"]))
        summary = self.data.summary | {
            "split": self.rule.protocol,
            "data_digest": digest,
            "fold": name,
            "counts": counts,
            "tapes": {side: int(frame["tape"].nunique()) for side, frame in sides.items()},
            "species_not_tested": {each: self.untestable.get(each, "only in other folds") for each in absent},
        }
        return replace(self.data, summary=summary, sides=sides)


def make_folds(data: PreparedData, rule: FoldRule) -> Folds:
    """Give every recording of a prepared data set, whatever side it is on, its fold.

    Raises:
        UsageError: the pattern or the column does not give every recording a fold, or fewer than three folds.
        UserError: too few tapes for so many folds, or folds that are given share a tape.
    """
    table = pd.concat([data.sides[side] for side in SIDES], ignore_index=True).sort_values("path", ignore_index=True)
    table = table.assign(stratum=data.strata(table))
    if rule.regex is not None:
        fold = _by_pattern(table, rule.regex)
    elif rule.column is not None:
        fold = _by_column(table, rule.column)
    else:
        fold = _drawn(table, rule)
    table = table.assign(fold=fold)
    _check(table, rule)
    by_species = data.row_a_species(table)
    untestable = _untestable(by_species)
    if len(untestable) == by_species["species"].nunique():
        raise UserError(
            "folds of one species each test nothing: no network would have been trained on what it is tested on"
        )
    return Folds(data, rule, table, untestable)


def _check(table: pd.DataFrame, rule: FoldRule) -> None:
    if table["fold"].nunique() < 3:
        raise UsageError(f"only {plural(table['fold'].nunique(), 'fold')}; a cross-validation needs three or more")
    for name in table["fold"].unique():
        check_name(f"fold {name!r}", name)
    crossing = table.groupby("tape")["fold"].nunique()
    if rule.protocol == "tape" and (crossing > 1).any():
        raise UserError(
            f"tape {crossing.idxmax()} stands in {crossing.max()} folds; give the tapes with "
            "`watkins prepare --group-regex`, or say --split random (leaky reference)"
        )


def _by_pattern(table: pd.DataFrame, regex: str) -> pd.Series:
    try:
        pattern = re.compile(normal(regex))
    except re.error as error:
        raise UsageError(f"--fold-regex '{regex}' is not a regular expression: {error}") from None
    found = [pattern.search(normal(PurePosixPath(path).stem)) for path in table["path"]]
    fold = [match and (match[1] if pattern.groups else match[0]) for match in found]
    for path, name in zip(table["path"], fold, strict=True):
        if not name:
            raise UsageError(f"--fold-regex '{regex}' finds no fold in '{path}'; give one that fits every file")
    return pd.Series(fold, index=table.index)


def _by_column(table: pd.DataFrame, column: str) -> pd.Series:
    if column not in table:
        known = ", ".join(sorted(table.columns))
        raise UsageError(f"--fold-column {column}: the annotations have no such column; there are {known}")
    fold = table[column].astype(str)
    if (fold == "").any():
        raise UsageError(f"--fold-column {column}: empty for '{table.loc[fold == '', 'path'].iloc[0]}'")
    return fold


def _drawn(table: pd.DataFrame, rule: FoldRule) -> pd.Series:
    fold = pd.Series("", index=table.index)
    for number, held in enumerate(_parts(table, rule.count, rule.protocol, rule.seed), start=1):
        fold.iloc[held] = str(number)
    return fold


def _parts(table: pd.DataFrame, count: int, protocol: str, seed: int) -> list[np.ndarray]:
    """Row numbers of `count` disjoint parts, each with about the same share of every species."""
    groups = table["tape"].nunique() if protocol == "tape" else len(table)
    if groups < count:
        what = plural(groups, "tape" if protocol == "tape" else "recording")
        raise UserError(f"{what} cannot be divided into {count} parts; give fewer --folds")
    kind = StratifiedGroupKFold if protocol == "tape" else StratifiedKFold
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # an archive has such species
        try:
            tapes = table["tape"] if protocol == "tape" else None
            parts = kind(count, shuffle=True, random_state=seed).split(table, table["stratum"], tapes)
            return [held for _, held in parts]
        except ValueError as error:
            raise UserError(f"cannot divide these recordings into {count} parts: {error}") from None


def _validation(rest: pd.DataFrame, rule: FoldRule) -> pd.Series:
    """Which of the recordings that a fold does not test are for validation; every species keeps some to train on."""
    held = pd.Series(False, index=rest.index)
    groups = rest["tape"].nunique() if rule.protocol == "tape" else len(rest)
    held.iloc[_parts(rest, max(2, min(VALIDATION_PARTS, groups)), rule.protocol, rule.seed)[0]] = True
    training = set(rest.loc[~held, "stratum"])
    lacking = rest[held & ~rest["stratum"].isin(training)]
    back = rest["tape"].isin(lacking["tape"]) if rule.protocol == "tape" else rest.index.isin(lacking.index)
    if not (held & ~back).any():
        tapes = plural(rest["tape"].nunique(), "tape")
        raise UserError(f"of {tapes} outside a fold none is left for validation; give more --folds")
    return held & ~back


def _untestable(table: pd.DataFrame) -> dict[str, str]:
    found = {}
    for species, rows in table.groupby("species"):
        tapes = rows["tape"].nunique()
        if rows["fold"].nunique() == 1:
            found[str(species)] = "one tape only" if tapes == 1 else f"its {tapes} tapes stand in one fold"
    return found
