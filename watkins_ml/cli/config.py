"""`watkins config`: what a recipe can say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import typer

from watkins_ml.cli.arguments import Json, print_json

EXAMPLE = "watkins config efficientnet_b0"


class Key(NamedTuple):
    """One key of a recipe, in words."""

    name: str
    values: str
    default: str
    meaning: str


def config(
    family: Annotated[str | None, typer.Argument(help="Of models of this family only; default all families.")] = None,
    as_json: Json = False,
) -> None:
    """Every key of a recipe with its values, default and meaning; also those of each model and transform."""
    from rich.markup import escape

    from watkins_ml.cli.tables import table_of
    from watkins_ml.core.console import out

    sections = _sections(family)
    if as_json:
        print_json([{"section": title} | key._asdict() for title, keys in sections for key in keys])
        return
    for title, keys in sections:
        table = table_of("key", "values", "default", "meaning", title=title)
        for key in keys:
            table.add_row(*map(escape, key))
        out.print(table)
    out.print("A run changes them with -o key=value, for example -o train.epochs=3 or -o augment.0.name=mixup")


def _sections(name: str | None) -> Iterator[tuple[str, list[Key]]]:
    from watkins_ml.config import ExperimentConfig
    from watkins_ml.models.registry import all_families, family
    from watkins_ml.transforms.registry import all_transforms

    for each in all_families() if name is None else [family(name)]:
        yield f"model of the family {each.name}: {each.title}", list(_keys("model", each.config))
    for name, field in ExperimentConfig.model_fields.items():
        if name != "model" and hasattr(field.annotation, "model_fields"):
            yield name, list(_keys(name, field.annotation))
    for name, transform in all_transforms().items():
        yield f"entry of the list augment: {name}", list(_keys("augment.N", transform))


def _keys(prefix: str, section: Any) -> Iterator[Key]:
    for name, facts in section.model_json_schema()["properties"].items():
        default = _shown(facts["default"]) if "default" in facts else "must be given"
        yield Key(f"{prefix}.{name}", _values(facts), default, " ".join(facts.get("description", "").split()))


def _values(facts: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in facts:
        return " or ".join(_values(each) for each in facts["anyOf"])
    if "const" in facts or "enum" in facts:
        return ", ".join(map(str, facts.get("enum", [facts.get("const")])))
    kinds = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {facts[key]:,}".removesuffix(".0") for key, sign in bounds.items() if key in facts]
    return " ".join([kinds.get(facts["type"], facts["type"]), ", ".join(limits)]).strip()


def _shown(value: Any) -> str:
    """A default as a recipe writes it."""
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
