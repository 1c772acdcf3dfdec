"""Which species a label means: spellings, labels to leave out, and the two names that are none of a species."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from watkins_ml.core.csv_import import import_csv
from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import printable
from watkins_ml.core.names import normal

BACKGROUND = "background"
"""The class of windows that somebody listened to and heard no call in; as a label it says that of its span."""
UNCERTAIN = "?"
"""Something was heard that nobody could name: its span is neither a call of a species nor silence."""
DROPPED = ""


@dataclass(frozen=True)
class LabelMapping:
    """Species by label; without a table every label is a species."""

    species: Mapping[str, str] | None = None

    def of(self, label: str) -> str | None:
        """The species, BACKGROUND, UNCERTAIN or DROPPED; None where the table does not know the label."""
        label = normal(" ".join(label.split()))
        if label in (BACKGROUND, UNCERTAIN):
            return label
        if self.species is None:
            return label
        for key in (label, label.casefold()):
            if key in self.species:
                return self.species[key]
        return label if label in self.species.values() else None


def read_mapping(path: Path | None) -> LabelMapping:
    """Read a CSV table with the columns `label` and `species`; an empty species drops the label.

    Raises:
        UsageError: no such table, or one label has two species.
    """
    if path is None:
        return LabelMapping()
    table = import_csv(path, ("label", "species"), "--labels").rows
    if missing := {"label", "species"} - set(table):
        raise UsageError(
            f"--labels {printable(path)}: has no column {min(missing)}; it needs label,species (an empty species drops "
            "the label)"
        )
    species: dict[str, str] = {}
    for label, name in zip(table["label"], table["species"], strict=True):
        for key in {label := " ".join(label.split()), label.casefold()}:
            known = species.setdefault(key, name)
            if known != name and key == label:
                raise UsageError(f"--labels {printable(path)}: '{label}' has two species, '{known}' and '{name}'")
    return LabelMapping(species)
