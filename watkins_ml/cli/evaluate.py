"""`watkins evaluate`: the full report of a model on prepared data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from watkins_ml.cli.arguments import Model

EXAMPLE = "watkins evaluate models:/watkins-efficientnet@champion --split test"


def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="Prepared data folder.")] = Path("data"),
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="The side to report on.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default results/<model>-<split>.")] = None,
) -> None:
    """Full report of any run or registered model on prepared data."""
    from watkins_ml.cli.tables import print_scores
    from watkins_ml.core.names import file_name
    from watkins_ml.inference.evaluate import evaluate_model

    out = out or Path("results") / f"{file_name(model.replace('models:/', '').strip('/').replace('/', '-'))}-{split}"
    scores, protocol = evaluate_model(model, data, split, out)
    print_scores(scores, split, protocol, out)
