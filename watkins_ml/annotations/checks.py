"""Which annotations cannot be: times outside the recording, duplicates, and two labels for one box."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

DIGITS = 2
"""Boxes are one where their times agree to so many digits of a second."""
EARLY_S = 0.01
"""A begin so little before the recording's is rounding."""
BOX = ["recording", "start_s", "end_s", "channel", "low_hz", "high_hz"]


def with_reasons(rows: pd.DataFrame, durations: dict[str, float], channels: dict[str, int]) -> pd.DataFrame:
    """The rows with `reason`: why one cannot be used, empty where it can.

    Args:
        rows: columns BOX (times in seconds, frequencies in Hz, NaN where unknown; channel 0 is all), `species`
            (None where the label is unknown), and `reason` so far.
        durations: seconds by recording.
        channels: how many a recording has.
    """
    table = rows.copy()
    duration = table["recording"].map(durations)
    length = table["end_s"] - table["start_s"]

    def reject(which: pd.Series, reason: str | pd.Series) -> None:
        table["reason"] = table["reason"].where((table["reason"] != "") | ~which, reason)

    reject(length.isna(), "no times: its start or end is not a number")
    reject(length < 0, "negative length: it ends before it begins")
    reject(length == 0, "no length: it is a point in time")
    reject(table["start_s"] < -EARLY_S, "begins before the recording")
    ends = duration.map("{:.2f} s".format)
    reject(table["start_s"] >= duration, "beyond the end: the recording lasts " + ends)
    reject(table["end_s"] - duration > length / 2, "beyond the end: most of it lies behind the recording's " + ends)
    most = table["recording"].map(channels)
    reject(table["channel"] > most, "unknown channel: the recording has " + most.map("{:.0f}".format))
    _reject_repeated(table, reject)
    return table


def _reject_repeated(table: pd.DataFrame, reject: Callable[[pd.Series, pd.Series], None]) -> None:
    usable = table[(table["reason"] == "") & table["species"].notna()]
    box = usable[BOX].round(dict.fromkeys(BOX[1:3], DIGITS)).fillna(-1.0)
    names = box.assign(species=usable["species"], source=usable["source"])
    same = names.groupby(BOX)
    several = same["species"].transform("nunique") > 1
    said = names[several].groupby(BOX)["species"].transform(lambda each: " and ".join(sorted(set(each))))
    contradictory = several.reindex(table.index, fill_value=False)
    reject(contradictory, "contradictory: one box is labelled " + said.astype(str).reindex(table.index, fill_value=""))
    repeated = names.duplicated([*BOX, "species"])
    first = "duplicate of " + names.groupby([*BOX, "species"])["source"].transform("first")
    reject(repeated.reindex(table.index, fill_value=False), first.reindex(table.index, fill_value=""))


def clipped(rows: pd.DataFrame, durations: dict[str, float]) -> pd.DataFrame:
    """The rows with their times inside the recordings."""
    duration = rows["recording"].map(durations)
    return rows.assign(start_s=rows["start_s"].clip(lower=0.0), end_s=rows["end_s"].clip(upper=duration))
