"""`watkins promote`: another version becomes the champion of its model."""

from __future__ import annotations

from typing import Annotated

import typer

EXAMPLE = "watkins promote watkins-efficientnet/3"


def promote(
    model_version: Annotated[str, typer.Argument(help="NAME/VERSION, for example watkins-efficientnet/3.")],
    if_detects_better: Annotated[
        bool,
        typer.Option(
            "--if-detects-better",
            help="Only if `watkins evaluate --recordings` gave it a higher average precision than the champion.",
        ),
    ] = False,
) -> None:
    """Make this version the champion of its model, whatever it scored in training."""
    from watkins_ml.core.console import out
    from watkins_ml.inference.resolve import tracker_errors
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client

    with tracker_errors(model_version):
        if if_detects_better:
            from watkins_ml.tracking.detection_gate import check_better

            check_better(client(), model_version)
        version = registry.promote(client(), model_version)
    out.print(f"{version.name} version {version.version} is now champion")
