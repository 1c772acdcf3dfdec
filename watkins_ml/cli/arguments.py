"""Arguments that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="models:/NAME@champion, models:/NAME/VERSION, runs:/ID or a run directory.")]
Overrides = Annotated[list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")]

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
