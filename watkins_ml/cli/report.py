"""`watkins report`: one model as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.cli.arguments import Model

EXAMPLE = "watkins report models:/watkins-efficientnet@champion --out report.html"


def report(
    model: Model,
    out: Annotated[Path, typer.Option(help="The HTML page.")] = Path("results/report.html"),
) -> None:
    """What a run or registered model knows, as one HTML page to mail: scores, species, and cuts to listen to."""
    from watkins_ml.core.console import out as console
    from watkins_ml.inference.comparison import report_model

    console.print(report_model(model, out))
    console.print(f"The page: {out}")
