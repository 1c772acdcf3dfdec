"""The keys of `augment` before it was a list, which old recipes, runs and studies have: each stands for an entry."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from watkins_ml.core.errors import UsageError
from watkins_ml.core.plain_yaml import shown
from watkins_ml.transforms.registry import all_transforms

KEYS = {"time_roll": None, "freq_mask": "width", "time_mask": "width", "mixup": "alpha"}
"""In the order of application: the key, which is the transform's name, and the setting that the key gives. False (for
`time_roll`) or 0 means no such transform; masks are two in each spectrogram."""


def as_list(augment: Any) -> Any:
    """A mapping of keys as the list of transforms; anything else as it is. Raises as `with_key`."""
    return with_keys([], augment) if isinstance(augment, dict) else augment


def with_keys(entries: list[Any], keys: Mapping[str, Any]) -> list[Any]:
    """A list of transforms, as a recipe has it, with keys set that an old recipe or override gives."""
    for key, value in keys.items():
        entries = with_key(entries, key, value)
    return entries


def with_key(entries: list[Any], key: str, value: Any) -> list[Any]:
    """Set one key: change, remove or insert its transform, before those that come later in KEYS.

    Raises:
        UsageError: an unknown key, or a value of the wrong type or range; the message begins with the dotted key.
    """
    if key not in KEYS:
        nearest = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.5)
        hint = f"; did you mean augment.{nearest[0]}?" if nearest else ""
        raise UsageError(f"unknown key augment.{key}{hint} (`augment` is a list of transforms, see `watkins config`)")
    setting = KEYS[key]
    is_right = isinstance(value, bool) if setting is None else type(value) in (int, float)
    if not is_right:
        wanted = "true or false" if setting is None else "a number"
        raise UsageError(f"augment.{key} must be {wanted}, not {shown(value)}")
    if not value:
        return [entry for entry in entries if _name(entry) != key]
    given = {} if setting is None else {setting: value}
    try:
        all_transforms()[key].model_validate({"name": key, **given})
    except ValidationError as error:
        wanted = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise UsageError(f"augment.{key} must be {wanted}, not {shown(value)}") from None
    if any(_name(entry) == key for entry in entries):
        return [entry | given if _name(entry) == key else entry for entry in entries]
    later = list(KEYS)[list(KEYS).index(key) + 1 :]
    place = next((place for place, entry in enumerate(entries) if _name(entry) in later), len(entries))
    two = {"count": 2} if setting == "width" else {}
    return [*entries[:place], {"name": key, **given, **two}, *entries[place:]]


def key_values(entries: list[Any]) -> dict[str, Any]:
    """What the keys are for a valid list of transforms, as dotted keys; of several of one name the first counts."""
    first = {_name(entry): entry for entry in reversed(entries)}
    off = {"time_roll": False, "freq_mask": 0, "time_mask": 0, "mixup": 0.0}
    return {
        f"augment.{key}": (True if setting is None else first[key][setting]) if key in first else off[key]
        for key, setting in KEYS.items()
    }


def renamed(flat: Mapping[str, Any]) -> dict[str, Any]:
    """A flat configuration of an earlier version, with `augment` as a nested list."""
    old = {key: flat[f"augment.{key}"] for key in KEYS if f"augment.{key}" in flat}
    rest = {key: value for key, value in flat.items() if key.removeprefix("augment.") not in old}
    return rest | {"augment": as_list(old)} if old else rest


def _name(entry: Any) -> Any:
    return entry.get("name") if isinstance(entry, dict) else None
