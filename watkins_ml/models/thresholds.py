"""From which probability on a species is detected: chosen on validation recordings, and kept beside the model.

In a run directory or a bundle it is the file `thresholds.json`; a registered version has the same text as a tag, for
its files are not changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from watkins_ml.core.confined import plain_file
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_text
from watkins_ml.core.names import normal
from watkins_ml.models.bundle_files import THRESHOLDS

FORMAT = 1
LARGEST = 2_000_000
"""Bytes of the file."""


@dataclass(frozen=True)
class Thresholds:
    """A threshold of each species, and where they are from."""

    of: dict[str, float]
    """By species; one that is left out has the default of `watkins predict`."""
    chosen_for: str
    """What was asked for: `at most 1 false alarms an hour`."""
    facts: dict[str, str | int | float | bool | None]
    """On which recordings, by which criterion, with which windows."""

    def text(self) -> str:
        """As it is stored."""
        content = {"format": FORMAT, "chosen_for": self.chosen_for, "thresholds": self.of, "facts": self.facts}
        return json.dumps(content, ensure_ascii=False, allow_nan=False)


class _Stored(BaseModel):
    model_config = ConfigDict(allow_inf_nan=False, strict=True)

    format: int = Field(ge=1)
    chosen_for: str = Field(max_length=1000)
    thresholds: dict[str, float]
    facts: dict[str, str | int | float | bool | None]


def parse_thresholds(text: str, source: object, classes: list[str]) -> Thresholds:
    """Thresholds as they are stored.

    Raises:
        UserError: it is none of this, of a later version, or about species that the model does not have.
    """
    try:
        stored = _Stored.model_validate_json(text)
        if stored.format > FORMAT:
            raise UserError(f"{source}: thresholds of format {stored.format} need a newer watkins_ml")
        of = {normal(name): value for name, value in stored.thresholds.items()}
        if unknown := sorted(set(of) - set(classes)):
            raise ValueError(f"{unknown[0]} is no species of the model")
    except (ValidationError, ValueError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(
            f"{source}: damaged thresholds ({first}); remove them, or choose them again with "
            "`watkins evaluate … --save-thresholds`"
        ) from None
    return Thresholds(of, stored.chosen_for, stored.facts)


def read_thresholds(folder: Path, name: object, classes: list[str]) -> Thresholds | None:
    """Those beside a bundle, None where there are none; raises as `parse_thresholds`."""
    if not (folder / THRESHOLDS).exists():
        return None
    text = plain_file(folder, THRESHOLDS, name, LARGEST).read_text(encoding="utf-8", errors="replace")
    return parse_thresholds(text, f"{name}: {THRESHOLDS}", classes)


def write_thresholds(folder: Path, thresholds: Thresholds) -> None:
    """Put them beside a bundle, in one step."""
    write_text(folder / THRESHOLDS, thresholds.text() + "\n")
