"""`watkins predict`: which species call when."""

from __future__ import annotations

from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from watkins_ml.cli.arguments import Model
from watkins_ml.core.errors import UsageError


class Format(StrEnum):
    """What detections are printed or written as; the terminal takes the first two, a folder the others and csv."""

    table = "table"
    csv = "csv"
    parquet = "parquet"
    raven = "raven"
    audacity = "audacity"


def add_to(app: typer.Typer) -> None:
    app.command(
        epilog="Example: watkins predict models:/watkins-efficientnet@champion day1/ --out found --format raven"
    )(predict)


def predict(
    model: Model,
    audio: Annotated[list[Path], typer.Argument(help="Audio files or folders.")],
    by: Annotated[
        Literal["detection", "window", "file"],
        typer.Option(help="detection (who calls from when to when), window, or file (one answer each)."),
    ] = "detection",
    format: Annotated[
        list[Format] | None,
        typer.Option(help="table or csv, to the terminal; with --out csv, parquet, raven or audacity, also several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; the same command goes on there after an interruption.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Species a window or file, most probable first.")] = 1,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Least probability of a detection.")] = 0.5,
    max_novelty: Annotated[
        float,
        typer.Option(min=0, help="Unknown above it; 1 keeps 19 of 20 validation recordings, inf never says unknown."),
    ] = 1.0,
    species: Annotated[list[str] | None, typer.Option(help="Only detections of this one; may be repeated.")] = None,
    overlap: Annotated[float, typer.Option(min=0, max=0.95, help="Share of a window that the next repeats.")] = 0.5,
    channels: Annotated[Literal["mix", "each"], typer.Option(help="mix, or each: every channel by itself.")] = "mix",
    device: Annotated[
        Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="auto takes CUDA where there is one.")
    ] = "auto",
) -> None:
    """Which species call when, in recordings from short cuts to days."""
    formats = _formats(by, format or [], out)
    unused = {"--out": out, "--species": species, "--overlap": overlap != 0.5, "--channels": channels != "mix"}
    unused |= {"--min-confidence": min_confidence != 0.5}
    if by == "file" and any(unused.values()):
        first = next(name for name, value in unused.items() if value)
        raise UsageError(f"--by file prints one answer a file; leave out {first}")
    from watkins_ml.cli.prediction_tables import print_annotated, print_predictions
    from watkins_ml.core.device import choose_device
    from watkins_ml.core.errors import UserError
    from watkins_ml.core.files import disk_errors
    from watkins_ml.core.locks import only_writer
    from watkins_ml.core.names import normal
    from watkins_ml.inference.annotate import annotate
    from watkins_ml.inference.detections import Wanted
    from watkins_ml.inference.judge import Listening
    from watkins_ml.inference.kept import Kept
    from watkins_ml.inference.predict import find_audio, predict_files
    from watkins_ml.inference.resolve import load_classifier

    where = choose_device(device, "--device")
    files, classifier = find_audio(audio), load_classifier(model)
    classifier.network.to(where)
    for name in species or ():
        classifier.label(name)
    stack = ExitStack()
    try:
        if out:
            with disk_errors(f"cannot write to {out}", "choose another --out"):
                stack.enter_context(only_writer(out, "watkins predict"))
        if by == "file":
            predictions = predict_files(classifier, files, top, max_novelty)
            print_predictions(predictions, formats[0])
            heard = predictions["problem"].isna().any()
        else:
            listening = Listening(overlap, channels == "each")
            kept = Kept(out, classifier, model, listening) if out else None
            wanted = Wanted(min_confidence, top, frozenset(map(normal, species or ())), max_novelty)
            result = annotate(classifier, files, wanted, listening, by == "detection", kept, formats if out else ())
            print_annotated(result, files, "files" if out else formats[0])
            heard = result.heard
    except KeyboardInterrupt:
        raise UserError(f"interrupted{'; the same command goes on' if out else ''}") from None
    finally:
        stack.close()
    if not heard:
        raise UserError("none of the files could be read; the reasons are listed above")


def _formats(by: str, given: list[Format], out: Path | None) -> tuple[str, ...]:
    """The formats to write or to print; without a folder, what the terminal can show."""
    formats = tuple(each.value for each in given) or ("csv" if out else "table",)
    for each in formats:
        if each == "table" and out and by != "file":
            raise UsageError("--format table: is for the terminal; leave out --out, or choose another format")
        if each not in ("table", "csv") and not (out and by != "file"):
            raise UsageError(f"--format {each}: is for files; the terminal shows table or csv, --out FOLDER takes all")
    if len(formats) > 1 and (by == "file" or not out):
        raise UsageError(f"--format {formats[1]}: the terminal takes one format; several need --out FOLDER")
    return formats
