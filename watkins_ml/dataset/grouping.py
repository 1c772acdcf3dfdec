"""Which group a long recording belongs to: nothing of a group stands on two sides."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from watkins_ml.annotations.recordings import LongRecording
from watkins_ml.core.errors import UsageError
from watkins_ml.core.names import normal
from watkins_ml.dataset.layout import METADATA_COLUMNS
from watkins_ml.dataset.metadata import read_metadata

DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)[-_.]?(0[1-9]|1[0-2])[-_.]?(0[1-9]|[12]\d|3[01])(?!\d{1,5}(?:\D|$))")
"""Year, month and day in a recording's name; what follows is a time of six digits, or none."""
WORDS = ("recording", "day")


def groups_of(recordings: list[LongRecording], group_by: str, metadata: pd.DataFrame | None) -> dict[str, str]:
    """The group of each recording, by path.

    Args:
        group_by: `recording`, `day` (the date in its name), a column of the metadata table (`site`), or a regular
            expression that finds it in the name (its first group, or the whole match).
        metadata: a row a recording, by path, as `Metadata.of` gives it.

    Raises:
        UsageError: it does not give every recording a group; names the first.
    """
    if group_by == "recording":
        return {each.path: each.name for each in recordings}
    if group_by in METADATA_COLUMNS:
        return _of_column(recordings, group_by, metadata)
    try:
        pattern = DATE if group_by == "day" else re.compile(normal(group_by), re.DOTALL)
    except re.error as error:
        raise UsageError(f"--group-by '{group_by}' is not a regular expression: {error}") from None
    groups = {}
    for each in recordings:
        found = pattern.search(each.stem)
        whole = "-".join(found.groups()) if found and pattern is DATE else found and found[1 if pattern.groups else 0]
        if not whole:
            what = "no date (as 20090111)" if pattern is DATE else "no group"
            raise UsageError(
                f"--group-by {group_by}: finds {what} in the name '{each.stem}'; give a regular expression that fits "
                "every recording, or a column of --metadata"
            )
        groups[each.path] = normal(whole)
    return groups


def _of_column(recordings: list[LongRecording], column: str, metadata: pd.DataFrame | None) -> dict[str, str]:
    if metadata is None or column not in metadata:
        raise UsageError(f"--group-by {column}: needs a table with that column and a row a recording (--metadata)")
    values = metadata[column].to_dict()
    missing = [each.path for each in recordings if not values.get(each.path)]
    if missing:
        raise UsageError(f"--group-by {column}: the metadata table has no {column} of {missing[0]}; add it")
    return {each.path: values[each.path] for each in recordings}


def metadata_of(recordings: list[LongRecording], table: Path | None) -> pd.DataFrame | None:
    """What a table of `--metadata` says of recordings, a row each, by path; None without a table."""
    if table is None:
        return None
    names = pd.DataFrame({"path": [each.path for each in recordings], "cut_id": [each.name for each in recordings]})
    return read_metadata(table).of(names)
