"""`watkins prepare`: recordings in folders to annotations, a split and spectrograms."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from watkins_ml.audio.defaults import FRAMES_A_SECOND, MELS, MOST_FRAMES, MOST_MELS, RATES, SAMPLE_RATE, SECONDS
from watkins_ml.cli.arguments import Label, LabelColumn, Labels, Reviewed, TableIndex
from watkins_ml.core.errors import UsageError

if TYPE_CHECKING:
    from watkins_ml.audio.settings import FrontendSettings
    from watkins_ml.dataset.prepare import Prepared, PrepareOptions

FRONTEND = {"rich_help_panel": "Frontend"}
ANNOTATED = {"rich_help_panel": "Long recordings with annotations"}
EXAMPLE = "watkins prepare recordings/ --out data --split tape"


def prepare(
    audio_dir: Annotated[
        Path,
        typer.Argument(help="Folder with one folder of recordings a species; with --annotations, any recordings."),
    ],
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
    task: Annotated[
        Literal["species", "labels"],
        typer.Option(help="species (one a recording or window) or labels (any number of them, each yes or no)."),
    ] = "species",
    annotations: Annotated[
        Path | None,
        typer.Option(help="Selection tables (Raven), labels (Audacity) or CSV: a file, or their folder.", **ANNOTATED),
    ] = None,
    table_index: TableIndex = None,
    label_column: LabelColumn = None,
    label: Label = None,
    labels: Labels = None,
    reviewed: Reviewed = "spans",
    group_by: Annotated[
        str,
        typer.Option(
            help="What stays on one side: recording, day, a column of --metadata (site), or a regular expression.",
            **ANNOTATED,
        ),
    ] = "recording",
    overlap: Annotated[
        float, typer.Option(min=0, max=0.99, help="Share of a window that the next repeats.", **ANNOTATED)
    ] = 0.5,
    present: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of a call (or window) from which it is there.", **ANNOTATED)
    ] = 0.5,
    absent: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a call up to which it is not there.", **ANNOTATED)
    ] = 0.1,
    background_ratio: Annotated[
        float, typer.Option(min=0, help="Windows without a call for each one with a call, at most.", **ANNOTATED)
    ] = 1.0,
    each_channel: Annotated[
        bool, typer.Option("--each-channel", help="Windows of every channel by itself.", **ANNOTATED)
    ] = False,
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
    options = PrepareOptions(split, seed, group_regex, min_clips, frontend, workers, metadata, no_upsampling, task)
    given = {
        "table_index": table_index, "label_column": label_column, "label": label, "labels": labels,
        "reviewed": reviewed, "group_by": group_by, "overlap": overlap, "present": present, "absent": absent,
        "background_ratio": background_ratio, "each_channel": each_channel,
    }  # fmt: skip
    if annotations is None:
        _refuse_without_annotations(given)
        print_prepared(prepare_data(audio_dir, out, options), out)
    else:
        print_prepared(_annotated(audio_dir, annotations, out, options, given), out)
    if export_sides is not None:
        count = export_spectrograms(read_prepared(out), export_sides)
        console.print(f"{count:,} spectrograms exported to {export_sides}")


def _refuse_without_annotations(given: dict[str, Any]) -> None:
    usual = {name: value.default for name, value in inspect.signature(prepare).parameters.items()}
    if changed := [name for name, value in given.items() if value != usual[name]]:
        option = changed[0].replace("_", "-")
        raise UsageError(f"--{option}: is for long recordings; give their tables too (--annotations)")


def _annotated(audio: Path, tables: Path, out: Path, options: PrepareOptions, given: dict[str, Any]) -> Prepared:
    from watkins_ml.annotations.collect import AnnotationOptions
    from watkins_ml.annotations.labelling import Thresholds
    from watkins_ml.dataset.annotated import AnnotatedOptions, prepare_annotated
    from watkins_ml.dataset.prepare import DEFAULT_GROUP_REGEX
    from watkins_ml.dataset.windowing import WindowRule

    if options.group_regex != DEFAULT_GROUP_REGEX:
        raise UsageError("--group-regex: is for recordings in species folders; with --annotations give --group-by")
    names = ("label_column", "label", "labels", "table_index", "reviewed")
    reading = AnnotationOptions(**{name: given[name] for name in names})
    rule = WindowRule(
        given["overlap"], Thresholds(given["present"], given["absent"]), given["background_ratio"],
        given["each_channel"],
    )  # fmt: skip
    return prepare_annotated(audio, tables, out, options, AnnotatedOptions(reading, rule, given["group_by"]))


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
