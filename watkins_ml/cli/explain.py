"""`watkins explain`: what in a recording the model looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.cli.arguments import Model
from watkins_ml.core.errors import UsageError

EXAMPLE = "watkins explain models:/watkins-efficientnet@champion call.wav --out call.png"


def explain(
    model: Model,
    audio: Annotated[Path, typer.Argument(help="One audio file.")],
    out: Annotated[Path | None, typer.Option(help="The picture; default results/<audio>-explained.png.")] = None,
    species: Annotated[str | None, typer.Option(help="What to look for; default the model's answer.")] = None,
) -> None:
    """A picture of a recording and of what in it the model looked at.

    Grad-CAM on the last convolutions: a coarse map of what counts for the
    species. Of a long recording, the window in which it is most probable. With
    a pretrained encoder, what its probability loses when a stretch is hidden.
    """
    from watkins_ml.core.console import out as console
    from watkins_ml.core.files import printable
    from watkins_ml.core.names import file_name, spelled
    from watkins_ml.inference.explain import explain_file

    out = out or Path("results") / f"{file_name(spelled(audio.stem))}-explained.png"
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out}: must end with .png")
    found = explain_file(model, audio, out, species)
    console.print(f"{printable(audio)}: {found.species} {found.probability:.1%} at {found.where()}")
    console.print(f"The picture: {out}")
