"""Reads docker-compose.yml as Compose does, as far as this file needs it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tests.support import ROOT

FILE = ROOT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<rule>:[-?])(?P<rest>(?:[^${}]|\$\{[^}]*\})*))?\}")


class MissingVariable(Exception):  # noqa: N818
    """What Compose prints instead of starting."""


def interpolated(text: str, env: dict[str, str]) -> str:
    """`text` with its ${NAME}, ${NAME:-default} and ${NAME:?sentence} filled in."""

    def value(match: re.Match) -> str:
        if env.get(match["name"]) or not match["rule"]:
            return env.get(match["name"], "")
        if match["rule"] == ":?":
            raise MissingVariable(f"required variable {match['name']} is missing a value: {match['rest']}")
        return interpolated(match["rest"], env)

    return VARIABLE.sub(value, text)


def read(env: dict[str, str], file: Path = FILE) -> dict:
    """The whole file for these variables; raises MissingVariable as `docker compose up` does."""

    def fill(node: object) -> object:
        if isinstance(node, dict):
            return {key: fill(value) for key, value in node.items()}
        if isinstance(node, list):
            return [fill(value) for value in node]
        return interpolated(node, env) if isinstance(node, str) else node

    return fill(yaml.safe_load(file.read_text()))


def env_file(path: Path) -> dict[str, str]:
    """The variables of an .env file of plain NAME=value lines."""
    return dict(re.findall(r"^(\w+)=(.*)$", path.read_text(), flags=re.MULTILINE))


def config(file: dict, name: str) -> str:
    """The text of a config, which is a file of the checkout."""
    return (ROOT / file["configs"][name]["file"]).read_text()
