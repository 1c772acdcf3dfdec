"""What the columns of annotation tables are called, by the programs that write them."""

from __future__ import annotations

import re

from watkins_ml.core.names import normal

MEANINGS: dict[str, tuple[str, ...]] = {
    "start_s": ("start_s", "begin_time_s", "begin_s", "onset_s", "start_time_s", "start_seconds", "start_time",
                "begin_time", "start", "begin", "onset"),
    "end_s": ("end_s", "end_time_s", "stop_s", "offset_s", "end_seconds", "end_time", "stop_time", "end", "stop",
              "offset"),
    "file": ("file", "filename", "file_name", "recording", "path", "audio_file", "audio_path", "wav"),
    "label": ("species", "label", "annotation", "annotations", "class", "call_type", "scientific_name",
              "common_name", "species_code", "species_name", "code", "tags", "tag", "sound_type", "call"),
    "low_hz": ("low_hz", "low_freq_hz", "low_frequency_hz", "low_frequency", "low_freq", "start_frequency", "low_f"),
    "high_hz": ("high_hz", "high_freq_hz", "high_frequency_hz", "high_frequency", "high_freq", "end_frequency",
                "high_f"),
    "channel": ("channel",),
    "confidence": ("confidence", "score", "probability"),
    "annotator": ("annotator", "observer", "analyst"),
    "begin_file": ("begin_file",),
    "begin_path": ("begin_path",),
    "file_offset_s": ("file_offset_s",),
    "selection": ("selection",),
    "view": ("view",),
}  # fmt: skip
"""The first name that a table has counts; capitals, spaces and brackets do not: `Begin Time (s)` is `begin_time_s`."""
KNOWN = tuple(name for names in MEANINGS.values() for name in names)


def find_columns(headings: list[str], label_column: str | None) -> dict[str, str]:
    """Which heading of a table has which meaning; a label column of the user's own goes before those known.

    Raises:
        KeyError: the table lacks the label column that was named.
    """
    found = {
        meaning: next(name for name in names if name in headings)
        for meaning, names in MEANINGS.items()
        if any(name in headings for name in names)
    }
    if label_column is not None:
        wanted = [name for name in headings if plain(name) == plain(label_column)]
        if not wanted:
            raise KeyError(label_column)
        found["label"] = wanted[0]
    return found


def plain(heading: str) -> str:
    """A heading without capitals, spaces and signs."""
    return re.sub(r"[\W_]+", "", normal(heading)).lower()
