"""`watkins prepare`: recordings in folders to annotations, a split and spectrograms."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from watkins_ml.audio.defaults import FRAMES_A_SECOND, MELS, MOST_FRAMES, MOST_MELS, RATES, SAMPLE_RATE, SECONDS
from watkins_ml.core.errors import UsageError

if TYPE_CHECKING:
    from watkins_ml.audio.settings import FrontendSettings

FRONTEND = {"rich_help_panel": "Frontend"}
EXAMPLE = "watkins prepare recordings/ --out data --split tape"


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
    sample_rate: Annotated[
        int, typer.Option(min=RATES[0], max=RATES[1], help="Hz that recordings are resampled to.", **FRONTEND)
    ] = SAMPLE_RATE,
    seconds: Annotated[
        float,
        typer.Option(
            min=2 / FRAMES_A_SECOND, max=MOST_FRAMES / FRAMES_A_SECOND, help="Length of a window.", **FRONTEND
        ),
    ] = SECONDS,
    mels: Annotated[int, typer.Option(min=1, max=MOST_MELS, help="Mel bands of a spectrogram.", **FRONTEND)] = MELS,
    f_min: Annotated[float, typer.Option(min=0, help="Hz at which the lowest band begins.", **FRONTEND)] = 0.0,
    f_max: Annotated[
        float | None,
        typer.Option(
            min=0, help="Hz at which the highest band ends; at most, and by default, half the rate.", **FRONTEND
        ),
    ] = None,
    compression: Annotated[
        Literal["log", "pcen"],
        typer.Option(help="log (decibels) or pcen (each band relative to its recent level).", **FRONTEND),
    ] = "log",
    normalisation: Annotated[
        Literal["sample", "band"],
        typer.Option(help="Mean 0 and deviation 1 over the sample, or in each band.", **FRONTEND),
    ] = "sample",
    no_upsampling: Annotated[
        bool, typer.Option("--no-upsampling", help="Leave out recordings of a native rate below --sample-rate.")
    ] = False,
    metadata: Annotated[
        Path | None, typer.Option(help="CSV table with a row a recording: its id, site, perhaps latitude and so on.")
    ] = None,
    export_sides: Annotated[
        Path | None,
        typer.Option(help="New folder for the spectrograms as SIDE/SPECIES/CUT.pt (links, or copies on another disk)."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes that read recordings.")] = os.cpu_count()
    or 1,
) -> None:
    """Scan, annotate, split and turn recordings into spectrograms; run it again to go on or update."""
    from watkins_ml.cli.tables import print_prepared
    from watkins_ml.core.console import out as console
    from watkins_ml.dataset.export import check_export, export_spectrograms
    from watkins_ml.dataset.layout import read_prepared
    from watkins_ml.dataset.prepare import PrepareOptions
    from watkins_ml.dataset.prepare import prepare as prepare_data

    frontend = _frontend(
        sample_rate, seconds, n_mels=mels, f_min=f_min, f_max=f_max, compression=compression,
        normalisation=normalisation,
    )  # fmt: skip
    if export_sides is not None:
        check_export(export_sides, audio_dir, out)
    options = PrepareOptions(split, seed, group_regex, min_clips, frontend, workers, metadata, no_upsampling)
    print_prepared(prepare_data(audio_dir, out, options), out)
    if export_sides is not None:
        count = export_spectrograms(read_prepared(out), export_sides)
        console.print(f"{count:,} spectrograms exported to {export_sides}")


def _frontend(sample_rate: int, seconds: float, **others: Any) -> FrontendSettings:
    """Raises a UsageError, in a sentence, where the options contradict each other."""
    from pydantic import ValidationError

    from watkins_ml.audio.settings import FrontendSettings

    try:
        return FrontendSettings.at(sample_rate, seconds, **others)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "".join(f"--{name}: ".replace("_", "-") for name in problem["loc"])
        raise UsageError(f"{option}{problem['msg'].removeprefix('Value error, ')}") from None
