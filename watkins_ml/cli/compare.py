"""`watkins compare`: models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.cli.arguments import Json, print_json

EXAMPLE = "watkins compare models:/watkins-baseline/2 runs/my-run --out compare.html"


def compare(
    models: Annotated[list[str] | None, typer.Argument(help="Two or more MODELs; default the champions.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML page.")] = Path("results/compare.html"),
    as_json: Json = False,
) -> None:
    """Models of several families side by side, as a table and a self-contained HTML page."""
    from watkins_ml.cli.tables import print_comparison
    from watkins_ml.inference.comparison import compare_models

    comparison = compare_models(models or [], out)
    if as_json:
        print_json({"headline": comparison.attrs.get("headline"), "page": out, "models": comparison.to_dict()})
    else:
        print_comparison(comparison, out)
