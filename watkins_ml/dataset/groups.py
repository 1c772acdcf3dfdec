"""How much the sides of a data set can say: tapes behind each, and whether the recorder's band tells the species."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from watkins_ml.audio.defaults import RATES
from watkins_ml.core.wording import plural
from watkins_ml.dataset.split import SIDES

FEW_TAPES = 10
"""With fewer behind a side, one tape more or less moves its scores by much."""
MOST_NAMED = 5
"""So many species are named in a warning."""
ADVANTAGE = 0.1
"""So much more than the commonest species the band alone has to name for `prepare` to speak of it."""
REACHING = 0.9
"""This share of the recordings fills the band that `prepare` advises."""


def group_facts(annotations: pd.DataFrame, side: pd.Series, sample_rate: int, alike: bool) -> dict[str, Any]:
    """What `dataset.json` says of groups; `alike`: no recording is of a native rate below `sample_rate` (Hz)."""
    return {
        "tapes": tapes_of_sides(annotations, side),
        "single_tape_species": single_tape_species(annotations, side),
        "band_advice": None if alike else band_advice(annotations, sample_rate),
    }


def tapes_of_sides(annotations: pd.DataFrame, side: pd.Series) -> dict[str, int]:
    """How many tapes stand behind train, val and test; `side` names that of each row."""
    return {name: int(annotations.loc[side == name, "tape"].nunique()) for name in SIDES}


def single_tape_species(annotations: pd.DataFrame, side: pd.Series) -> dict[str, list[str]]:
    """Of validation and test the species whose recordings there are all of one tape."""
    tapes = annotations.groupby([side.rename("side"), "species"])["tape"].nunique()
    single = tapes[tapes == 1].index
    return {name: sorted(str(species) for where, species in single if where == name) for name in SIDES[1:]}


def group_word(summary: dict[str, Any]) -> str:
    """What a group of a `dataset.json` is called: tape, or what windows were grouped by."""
    by = summary.get("group_by", "tape")
    return by if by in ("tape", "recording", "day", "site") else "group"


def small_groups(summary: dict[str, Any]) -> list[str]:
    """The warnings of a `dataset.json` about sides that rest on few tapes; none for a random split."""
    word = group_word(summary)
    if summary["split"] != "tape":
        return []
    told = []
    few = [f"{name} ({plural(count, word)})" for name in SIDES if (count := summary["tapes"][name]) < FEW_TAPES]
    if few:
        told.append(
            f"Few {word}s stand behind {' and '.join(few)}: scores there hang on single {word}s; `watkins crossval` "
            f"tests on every {word} once"
        )
    single = [f"on {name} for {_some(names)}" for name, names in summary["single_tape_species"].items() if names]
    return told + [f"One {word} alone stands {' and '.join(single)}"] * bool(single)


def _some(names: list[str]) -> str:
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more species" if rest > 0 else "")


def band_advice(annotations: pd.DataFrame, sample_rate: int) -> str | None:
    """A sentence where the band that a recorder left, up to that of `sample_rate` (Hz), names species on other tapes.

    `annotations` has species, tape and native sample_rate. Above half its native rate a recording is empty, so a
    network may learn where spectra end instead of who calls.
    """
    native = annotations["sample_rate"].to_numpy()
    right = _named_by_band(annotations.assign(band=np.minimum(native, sample_rate)))
    commonest = float(annotations["species"].value_counts(normalize=True).iloc[0])
    common = int(np.sort(native)[int((1 - REACHING) * len(native))])
    if right < commonest + ADVANTAGE or not RATES[0] <= common < sample_rate:
        return None
    left_out = int((native < common).sum())
    return (
        f"The native sample rate tells species apart: which band is empty names {right:.0%} of the recordings on other "
        f"tapes, the commonest species alone {commonest:.0%}. With --sample-rate {common} --no-upsampling all fill one "
        f"band; {plural(left_out, 'recording')} would be left out"
    )


def _named_by_band(table: pd.DataFrame) -> float:
    """The share of recordings whose species is the commonest of their band among all other tapes."""
    bands, species, tapes = (pd.factorize(table[column])[0] for column in ("band", "species", "tape"))
    counts = np.zeros((bands.max() + 1, species.max() + 1), dtype=int)
    np.add.at(counts, (bands, species), 1)
    right = 0
    for rows in pd.Series(range(len(table))).groupby(tapes):
        own = rows[1].to_numpy()
        others = counts.copy()
        np.subtract.at(others, (bands[own], species[own]), 1)
        guess = np.where(others.sum(axis=1) > 0, others.argmax(axis=1), others.sum(axis=0).argmax())
        right += int((guess[bands[own]] == species[own]).sum())
    return right / len(table)
