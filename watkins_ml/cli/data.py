"""`watkins prepare`: recordings in folders to annotations, a split and spectrograms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from watkins_ml.core.errors import UsageError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: watkins prepare recordings/ --out data --split tape")(prepare)


def prepare(
    audio_dir: Annotated[Path, typer.Argument(help="Folder with one folder of recordings a species.")],
    out: Annotated[Path, typer.Option(help="Folder for annotations, splits and spectrograms.")] = Path("data"),
    split: Annotated[
        Literal["tape", "random"], typer.Option(help="tape (no tape on two sides) or random (leaky reference).")
    ] = "tape",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the split.")] = 0,
    group_regex: Annotated[
        str, typer.Option(help="Finds the tape in a file's name: the first group, or the whole match.")
    ] = r"^.{5}",
    min_clips: Annotated[int, typer.Option(min=2, help="Leave out species with fewer usable recordings.")] = 10,
    sample_rate: Annotated[int, typer.Option(help="Rate in Hz that recordings are resampled to.")] = 16_000,
    no_upsampling: Annotated[
        bool, typer.Option("--no-upsampling", help="Leave out recordings of a native rate below --sample-rate.")
    ] = False,
    metadata: Annotated[
        Path | None, typer.Option(help="CSV table with a row a recording: its id, site, perhaps latitude and so on.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes that read recordings.")] = os.cpu_count()
    or 1,
) -> None:
    """Scan, annotate, split and turn recordings into spectrograms; run it again to go on or update."""
    from pydantic import ValidationError

    from watkins_ml.audio.settings import FrontendSettings
    from watkins_ml.cli.tables import print_prepared
    from watkins_ml.dataset.prepare import PrepareOptions
    from watkins_ml.dataset.prepare import prepare as prepare_data

    try:
        frontend = FrontendSettings.at(sample_rate)
    except ValidationError:
        raise UsageError(f"--sample-rate {sample_rate}: must be from 1000 to 200000 Hz") from None
    options = PrepareOptions(split, seed, group_regex, min_clips, frontend, workers, metadata, no_upsampling)
    print_prepared(prepare_data(audio_dir, out, options), out)
