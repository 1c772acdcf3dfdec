"""Arguments that several commands take."""

from __future__ import annotations

from typing import Annotated

import typer

Model = Annotated[str, typer.Argument(help="models:/NAME@champion, models:/NAME/VERSION, runs:/ID or a run directory.")]
Overrides = Annotated[list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")]
