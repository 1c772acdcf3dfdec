"""Recipe files as nested mappings: bases, overrides and the keys of earlier versions; nothing is validated here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from watkins_ml.core.errors import UsageError
from watkins_ml.core.plain_yaml import DEEPEST, LONGEST_KEY, parse_yaml, read_yaml, shown
from watkins_ml.transforms import keys

MOST_BASES = 10
"""A recipe has a `base`, which may have one itself, and so on."""


def read_recipe(recipe: Path, overrides: list[str] | tuple[str, ...] = ()) -> dict[str, Any]:
    """A recipe with its base and overrides as a nested mapping, not yet validated; raises as `load_config`."""
    tree = _read_recipe(Path(recipe), seen=())
    for override in overrides:
        apply_override(tree, override)
    return tree


def _read_recipe(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    tree = read_yaml(path)
    if path.resolve() in seen:
        raise UsageError(f"{path}: its `base` recipes form a circle; remove one of them")
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: a recipe is a mapping with model, data, optim, train and tracking")
    base = tree.pop("base", None)
    if not isinstance(base, str | None):
        raise UsageError(f"{path}: base must be the name of a recipe file, not {shown(base)}")
    if base is not None and len(seen) >= MOST_BASES:
        raise UsageError(f"{path}: has more than {MOST_BASES} `base` recipes above it; write some of them as one")
    inherited = {} if base is None else _read_recipe(path.parent / base, (*seen, path.resolve()))
    if isinstance(tree.get("augment"), dict):  # keys of earlier versions change a list of transforms
        before = inherited.get("augment")
        with naming(str(path)):
            tree["augment"] = keys.with_keys(before if isinstance(before, list) else [], tree["augment"])
    return _merge(inherited, tree)


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    what, parts = f"override {shown(override)}", key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"{what}: write it as key.path=value, for example train.epochs=3")
    if len(parts) > DEEPEST or max(map(len, parts)) > LONGEST_KEY or not key.isprintable():
        raise UsageError(f"{what}: no key is so long, or has so many parts or such letters")
    value = parse_yaml(text, what)
    with naming(what):
        set_value(tree, parts, value)


def set_value(tree: dict[str, Any], parts: list[str], value: Any) -> None:
    """Set the value of a dotted key in a nested mapping; the parts of a key of a list are its indices.

    Raises:
        UsageError: there is no such place; the message does not name the source.
    """
    if parts[0] == "augment" and len(parts) == 2 and isinstance(tree.get("augment"), list) and not parts[1].isdigit():
        tree["augment"] = keys.with_key(tree["augment"], parts[1], value)
        return
    node: Any = tree
    for part, following in zip(parts, [*parts[1:], None], strict=True):
        if isinstance(node, list) and not (part.isdecimal() and int(part) < len(node)):
            raise UsageError(f"{part} is none of the {len(node)} entries of a list, which count from 0")
        place: Any = int(part) if isinstance(node, list) else part
        if following is None:
            node[place] = value
            return
        node = node[place] if isinstance(node, list) else node.setdefault(place, {})
        if not isinstance(node, dict | list):
            raise UsageError(f"{part} is a value, not a section")


@contextmanager
def naming(source: str) -> Iterator[None]:
    """Put the source of a configuration before errors in its keys."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None
