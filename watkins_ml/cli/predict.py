"""`watkins predict`: which species call when."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from watkins_ml.cli.arguments import Model
from watkins_ml.core.errors import UsageError, UserError


class Format(StrEnum):
    """What detections are printed or written as; the terminal takes the first two, a folder the others and csv."""

    table = "table"
    csv = "csv"
    parquet = "parquet"
    raven = "raven"
    audacity = "audacity"


EXAMPLE = "watkins predict models:/watkins-efficientnet@champion day1/ --out found --format raven"


def predict(
    model: Model,
    audio: Annotated[list[Path], typer.Argument(help="Audio files or folders.")],
    by: Annotated[
        Literal["detection", "window", "peak", "file"] | None,
        typer.Option(
            help="detection (who calls from when to when, default), window, peak (the surest of windows that overlap, "
            "for short calls), or file (one answer each)."
        ),
    ] = None,
    format: Annotated[
        list[Format] | None,
        typer.Option(help="table or csv, to the terminal; with --out csv, parquet, raven or audacity, also several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; the same command goes on there after an interruption.")
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(min=1, help="Species a window or file, most probable first; 1, or all above kept thresholds."),
    ] = None,
    min_confidence: Annotated[
        float | None,
        typer.Option(
            "--threshold",
            "--min-confidence",
            min=0,
            max=1,
            help="Least probability of a detection; else the thresholds kept with the model, else 0.5.",
        ),
    ] = None,
    max_novelty: Annotated[
        float | None,
        typer.Option(min=0, help="Unknown above it; 1 keeps 19 of 20 validation recordings, inf never gives unknown."),
    ] = None,
    species: Annotated[list[str] | None, typer.Option(help="Only detections of this one; may be repeated.")] = None,
    overlap: Annotated[
        float | None,
        typer.Option(min=0, max=0.95, help="Share of a window that the next repeats; 0.5, or that of kept thresholds."),
    ] = None,
    channels: Annotated[Literal["mix", "each"], typer.Option(help="mix, or each: every channel by itself.")] = "mix",
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="auto takes CUDA where there is one.")
    ] = "auto",
) -> None:
    """Which species call when, in recordings from short cuts to days."""
    changed = {"--out": out, "--species": species, "--min-confidence": min_confidence is not None}
    if by == "file" and any(changed.values()):
        first = next(name for name, value in changed.items() if value)
        raise UsageError(f"--by file prints one answer a file; leave out {first}")
    formats = _formats(format or [], out)
    from watkins_ml.cli.prediction_tables import print_detections, print_predictions
    from watkins_ml.core.console import err
    from watkins_ml.core.device import choose_device
    from watkins_ml.core.names import normal
    from watkins_ml.dataset.targets import LABELS
    from watkins_ml.inference.by_file import predict_files
    from watkins_ml.inference.cache import ScoreCache
    from watkins_ml.inference.detections import DEFAULT_THRESHOLD, DetectionOptions
    from watkins_ml.inference.pipeline import predict_recordings
    from watkins_ml.inference.recordings import find_recordings
    from watkins_ml.inference.resolve import load_classifier
    from watkins_ml.inference.windows import WindowOptions, by_of, novelty_of, overlap_of

    where = choose_device(device, "--device")
    files, classifier = find_recordings(audio), load_classifier(model)
    classifier.network.to(where)
    for name in species or ():
        classifier.label(name)
    kept = classifier.thresholds if by != "file" and min_confidence is None else None
    by, max_novelty = by or by_of(kept), novelty_of(max_novelty, kept)
    windows = WindowOptions(overlap_of(overlap, kept, by if by == "peak" else "detection"), channels == "each")
    every = len(classifier.classes)
    try:
        if by == "file":
            predictions = predict_files(
                classifier, files, top or (every if classifier.task == LABELS else 1), max_novelty, windows
            )
            print_predictions(predictions, formats[0])
            readable = predictions["problem"].isna().any()
        else:
            wanted = frozenset(map(normal, species or ()))
            least = DEFAULT_THRESHOLD if min_confidence is None else min_confidence
            own = {} if kept is None else dict(kept.of)
            if kept is not None:
                chosen = f"{kept.chosen_for}, by {kept.facts.get('by', 'detection')}"
                err.print(f"Thresholds kept with the model: {chosen}; --threshold takes another for all")
            most = top or (every if own or classifier.task == LABELS else 1)
            options = DetectionOptions(least, most, wanted, max_novelty, by == "detection", by == "peak", own)
            with _only_writer(out):
                cache = ScoreCache(out, classifier, model, windows) if out else None
                result = predict_recordings(classifier, files, options, windows, cache, formats)
                print_detections(result, "files" if out else formats[0])
            readable = any(each.readable for each in result.recordings)
    except KeyboardInterrupt:
        raise UserError(f"interrupted{'; the same command goes on' if out else ''}") from None
    if not readable:
        raise UserError("none of the files could be read; the reasons are listed above")


@contextmanager
def _only_writer(out: Path | None) -> Iterator[None]:
    """Keep other commands from writing to the folder meanwhile."""
    from watkins_ml.core.files import disk_errors
    from watkins_ml.core.locks import only_writer

    with ExitStack() as stack:
        if out:
            with disk_errors(f"cannot write to {out}", "choose another --out"):
                stack.enter_context(only_writer(out, "watkins predict"))
        yield


def _formats(given: list[Format], out: Path | None) -> tuple[str, ...]:
    """The formats to write or to print; without a folder, what the terminal can show."""
    formats = tuple(each.value for each in given) or ("csv" if out else "table",)
    for each in formats:
        if out and each == "table":
            raise UsageError("--format table: is for the terminal; leave out --out, or choose another format")
        if not out and each not in ("table", "csv"):
            raise UsageError(f"--format {each}: is for files; the terminal shows table or csv, --out FOLDER takes all")
    if len(formats) > 1 and not out:
        raise UsageError(f"--format {formats[1]}: the terminal takes one format; several need --out FOLDER")
    return formats
