"""Which windows of long recordings are rows of a data set: those with sound, of classes with enough of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from watkins_ml.dataset.targets import decode, encode, joined_names

REJECTED = ["path", "species", "reason"]


def usable_rows(table: pd.DataFrame, min_clips: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows of a data set, by path, and those that are silent or too few in their class."""
    table = table.sort_values("path")
    usable = table["reason"] == ""
    clips = table[usable].groupby("species")["path"].transform("size")
    few = clips[clips < min_clips]
    table.loc[few.index, "reason"] = "too few in class: " + few.astype(str) + f" of {min_clips}"
    usable = table["reason"] == ""
    return table[usable].drop(columns="reason"), table.loc[~usable, REJECTED]


def usable_targets(
    table: pd.DataFrame, min_clips: int, classes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """As `usable_rows` with targets, and the classes that are left; windows with a species that is not stay."""
    table = table.sort_values("path")
    usable, silent = table[table["reason"] == ""].drop(columns="reason"), table.loc[table["reason"] != "", REJECTED]
    values = decode(usable["targets"], len(classes))
    clips = (values == 1).sum(axis=0)
    enough = clips >= min_clips
    few = [
        {"path": path, "species": classes[label], "reason": f"too few in class: {clips[label]} of {min_clips}"}
        for label in np.flatnonzero(~enough)
        for path in usable["path"][values[:, label] == 1]
    ]
    kept = [name for name, there in zip(classes, enough, strict=True) if there]
    values = values[:, enough]
    known = ~np.isnan(values).all(axis=1) if kept else np.zeros(len(usable), dtype=bool)
    usable, present = usable[known], values[known] == 1
    if kept:
        usable = usable.assign(species=joined_names(present, kept), targets=encode(present, ~np.isnan(values[known])))
    rejected = pd.concat([silent, pd.DataFrame(few, columns=REJECTED, dtype=object)], ignore_index=True)
    return usable, rejected, kept
