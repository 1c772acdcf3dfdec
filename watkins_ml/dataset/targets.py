"""What is known of rows that may hold any number of species: the task `labels`.

In tables a row's targets are text with a character a class, in the order of the classes: PRESENT, ABSENT or UNKNOWN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from watkins_ml.annotations.mapping import BACKGROUND

PRESENT, ABSENT, UNKNOWN = "1", "0", "-"
SPECIES, LABELS = "species", "labels"
"""The tasks: one species a row (softmax), or any number of them (a sigmoid each)."""
TOGETHER = " + "
"""Between the names of species that are in a row together."""
NO_LABEL = -1
"""`label` of a row that holds no species."""


def encode(present: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Bool (rows, classes): whether a species is there, and whether that is known; texts, object (rows,)."""
    rows, classes = present.shape
    signs = np.where(present, PRESENT, np.where(known, ABSENT, UNKNOWN)).astype("U1")
    return np.ascontiguousarray(signs).view(f"U{classes}").reshape(rows).astype(object)


def decode(targets: Iterable[str], classes: int) -> np.ndarray:
    """Texts to float32 (rows, classes): 1 present, 0 absent, NaN where it is not known.

    Raises:
        ValueError: a text of another length, or with another character.
    """
    texts = list(targets)
    if not all(isinstance(text, str) and len(text) == classes for text in texts):
        raise ValueError(f"targets that are not of {classes} characters, one a species")
    signs = np.frombuffer("".join(texts).encode("ascii", "replace"), "S1").reshape(len(texts), classes)
    values = np.full(signs.shape, np.nan, dtype=np.float32)
    values[signs == PRESENT.encode()], values[signs == ABSENT.encode()] = 1, 0
    if not (np.isnan(values) == (signs == UNKNOWN.encode())).all():
        raise ValueError(f"targets with characters other than {PRESENT}, {ABSENT} and {UNKNOWN}")
    return values


def targets_of(species: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """The targets of rows that hold one species each, or none (BACKGROUND); texts as of `encode`."""
    present = np.array([[name == wanted for wanted in classes] for name in species], dtype=bool)
    return encode(present, np.ones_like(present))


def joined_names(present: np.ndarray, classes: Sequence[str]) -> list[str]:
    """The species in each row as one text for people, BACKGROUND where there is none; `present` (rows, classes)."""
    names = np.asarray(classes, dtype=object)
    return [TOGETHER.join(names[row]) or BACKGROUND for row in present]


def main_labels(present: np.ndarray) -> np.ndarray:
    """The class of each row by which it is divided and drawn, int64: of its species the rarest; NO_LABEL if none."""
    rarity = present.sum(axis=0).astype(float)
    counts = np.where(present, rarity, np.inf)
    return np.where(present.any(axis=1), counts.argmin(axis=1) if present.shape[1] else 0, NO_LABEL).astype(np.int64)


def row_a_species(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """A table with `targets` as one of a row a species: `species` is one name, BACKGROUND where there is none."""
    present = decode(table["targets"], len(classes)) == 1
    row, label = np.nonzero(np.column_stack([present, ~present.any(axis=1)]))
    names = np.array([*classes, BACKGROUND], dtype=object)
    return table.iloc[row].assign(species=names[label])
