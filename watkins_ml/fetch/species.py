"""The one table of species (`species.csv`): common and scientific name, family, and how releases spell them.

Names are those of the Society for Marine Mammalogy; releases carry older ones, misspellings and faults (HarbourSeal
has Bottlenose's scientific name), so names of releases are only looked up here, never adopted.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True)
class Species:
    """One species of the archive."""

    common_name: str
    scientific_name: str
    family: str
    spellings: tuple[str, ...]
    """The folders and labels of releases that mean it."""
    older_names: tuple[str, ...]
    """Scientific names that it had before, as releases still give them."""

    @property
    def label(self) -> str:
        """Its folder here, and so its class: `RissosDolphin`, the same whatever release it came from."""
        words = re.sub(r"[^A-Za-z -]", "", self.common_name)
        return "".join(word[0].upper() + word[1:] for word in re.split(r"[ -]", words))


@cache
def table() -> tuple[Species, ...]:
    """All species, by common name."""
    text = files("watkins_ml.fetch").joinpath("species.csv").read_text(encoding="utf-8")
    return tuple(
        Species(
            row["common_name"], row["scientific_name"], row["family"],
            tuple(filter(None, row["spellings"].split(";"))), tuple(filter(None, row["older_names"].split(";"))),
        )
        for row in csv.DictReader(text.splitlines())
    )  # fmt: skip


def find(spelling: str) -> Species | None:
    """The species that a release means; upper case, spaces and punctuation make no difference. None if unknown."""
    return _by_letters().get(_letters(spelling))


@cache
def _by_letters() -> dict[str, Species]:
    return {_letters(name): one for one in table() for name in (*one.spellings, one.common_name, one.label)}


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", unicodedata.normalize("NFKD", name).lower())  # é counts as e in every form
