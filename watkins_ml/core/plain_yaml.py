"""YAML as recipes use it: named values, lists, texts and numbers in one small file, from any source.

A recipe may be from an untrusted source, so its bytes, values, depth and texts are limited, and only a regular file is
read, since reading a pipe may block and a device has no end.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from watkins_ml.core.errors import UsageError, first_line, plain

MOST_BYTES = 256_000
"""The recipes of this program have about one thousand."""
MOST_VALUES = 10_000
DEEPEST = 20
LONGEST_KEY = 100
LONGEST_TEXT = 4096
"""The longest path that Linux takes."""
TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp")}
"""What a value that stands there plainly may turn out to be."""


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, which YAML 1.1 calls text; keys are texts as written; limits size and depth."""

    def __init__(self, text: str):
        super().__init__(text)
        self._depth = self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        event = self.peek_event()
        self._values += 1
        if self._values > MOST_VALUES:
            self._refuse(f"more than {MOST_VALUES:,} values", event)
        if self._depth >= DEEPEST:
            self._refuse(f"nested more than {DEEPEST} deep", event)
        self._check(event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node, seen = super().compose_mapping_node(anchor), set[str]()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse("a key that is no text", key)
            if len(key.value) > LONGEST_KEY:
                self._refuse(f"a key of {len(key.value):,} characters, more than {LONGEST_KEY}", key)
            if key.value in seen:
                self._refuse(f"the key {shown(key.value)} stands there twice", key)
            seen.add(key.value)
            key.tag = "tag:yaml.org,2002:str"  # so that 7, yes and null are keys as they are written
        return node

    def _check(self, event: yaml.Event) -> None:
        """Refuse an alias, of which a kilobyte can stand for gigabytes; a tag; a text that is no name, path or word."""
        if isinstance(event, yaml.AliasEvent):
            self._refuse(f"the alias *{(event.anchor or '')[:40]}; write the value out, or name a `base` recipe", event)
        if (tag := getattr(event, "tag", None)) is not None:
            self._refuse(f"the tag {shown(tag)}; write the value without it", event)
        if not isinstance(event, yaml.ScalarEvent):
            return
        if len(event.value) > LONGEST_TEXT:
            self._refuse(f"a text of {len(event.value):,} characters, more than {LONGEST_TEXT:,}", event)
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in event.value):
            self._refuse("a text with a control character or a line break", event)
        if event.implicit[0] and self.resolve(yaml.ScalarNode, event.value, event.implicit) not in TAGS:
            self._refuse(f"{shown(event.value)} is a special token of YAML; put it into quotes", event)

    def _refuse(self, problem: str, where: Any) -> None:
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, source: str) -> Any:
    """The mapping, list or value in a text; raises a UsageError that begins with `source` and names the line."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UsageError(f"{source}{where}: not valid YAML ({plain(problem or first_line(error))})") from None
    except (ValueError, OverflowError) as error:  # a date that is none, a number of thousands of digits
        raise UsageError(f"{source}: not valid YAML ({first_line(error)})") from None


def read_yaml(path: Path) -> Any:
    """What `parse_yaml` finds in a small regular file.

    Raises:
        UsageError: it is not there, not such a file, not UTF-8, or not what `parse_yaml` takes.
    """
    what = f"{path}: cannot read this recipe"
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{what} (not a regular file); see experiments/")
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{what} ({error.strerror}); see experiments/") from None
    if len(content) > MOST_BYTES:
        raise UsageError(f"{what} (larger than {MOST_BYTES // 1000} kB); see experiments/")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: not valid YAML (not UTF-8 text; save it as UTF-8)") from None
    return parse_yaml(text, str(path))


def shown(value: Any) -> str:
    """A value as a sentence can hold it, however large it is."""
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # of Python, for whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= 100 else text[:100] + "…"
