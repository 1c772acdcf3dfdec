"""Arguments that several commands take."""

from __future__ import annotations

import json
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any

import typer

from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import check_name

Model = Annotated[str, typer.Argument(help="models:/NAME@champion, models:/NAME/VERSION, runs:/ID or a run directory.")]
Overrides = Annotated[list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")]
Tags = Annotated[
    list[str] | None, typer.Option("--tag", help="name=value of a tag of the run on MLflow; may be given again.")
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of tables.")]
Note = Annotated[str | None, typer.Option(help="Shown at the top of the run's page on MLflow; Markdown.")]

TABLES = {"rich_help_panel": "How tables of annotations are read"}
TableIndex = Annotated[
    Path | None, typer.Option(help="CSV of table,recording: which belong together; perhaps label.", **TABLES)
]
LabelColumn = Annotated[str | None, typer.Option(help="Heading of the labels, if it is an unusual one.", **TABLES)]
Label = Annotated[str | None, typer.Option(help="Label of rows without one.", **TABLES)]
Labels = Annotated[
    Path | None,
    typer.Option(help="CSV of label,species (empty: left out, ?: uncertain, background: no call).", **TABLES),
]
Reviewed = Annotated[
    str,
    typer.Option(
        help="Where somebody listened to everything: all, spans (labelled background), none, or a CSV of "
        "file,start_s,end_s.",
        **TABLES,
    ),
]


def print_json(value: Any) -> None:
    """A result on the standard output, in ASCII for any terminal; what JSON has no number for (NaN) is null."""
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False, default=str))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, Real) and not isinstance(value, bool):
        return float(value) if isfinite(value) else None
    return value


def named(name: str) -> Path:
    """The folder of the run `--name`; raises a UsageError where that could not be a folder's name."""
    check_name(f"--name {name}", name)
    return Path("runs") / name


def chosen(name: str | None, run_dir: Path | None) -> Path | None:
    """The folder of a run by `--name` or `--run-dir`; None where neither is given. Raises a UsageError for both."""
    if name is not None and run_dir is not None:
        raise UsageError("give one of --name and --run-dir")
    return run_dir if name is None else named(name)
