"""`watkins models`, `promote`, `evaluate`, `compare`, `report` and `predict`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.core.errors import UsageError

Model = Annotated[str, typer.Argument(help="models:/NAME@champion, models:/NAME/VERSION, runs:/ID or a run directory.")]


def add_to(app: typer.Typer) -> None:
    app.command("models", epilog="Example: watkins models")(list_models)
    app.command(epilog="Example: watkins promote watkins-efficientnet/3")(promote)
    app.command(epilog="Example: watkins evaluate models:/watkins-efficientnet@champion --split test")(evaluate)
    app.command(epilog="Example: watkins compare models:/watkins-baseline/2 runs/my-run --out compare.html")(compare)
    app.command(epilog="Example: watkins report models:/watkins-efficientnet@champion --out report.html")(report)
    app.command(
        epilog="Example: watkins predict models:/watkins-efficientnet@champion day1/ --out found --format raven"
    )(predict)


def list_models() -> None:
    """The registered models: versions, scores, data, and who is champion."""
    from watkins_ml.cli.tables import print_models
    from watkins_ml.inference.resolve import tracker_errors
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.faults import TrackingError, who_answers
    from watkins_ml.tracking.server import client, tracking_uri

    with tracker_errors("the model registry"):
        versions = registry.list_versions(client())
        if not versions and (fault := who_answers(tracking_uri())):  # any program may answer `{}`
            raise TrackingError(fault)
    print_models(versions, tracking_uri())


def promote(
    model_version: Annotated[str, typer.Argument(help="NAME/VERSION, for example watkins-efficientnet/3.")],
) -> None:
    """Make this version the champion of its model, whatever it scored."""
    from watkins_ml.core.console import out
    from watkins_ml.inference.resolve import tracker_errors
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client

    with tracker_errors(model_version):
        version = registry.promote(client(), model_version)
    out.print(f"{version.name} version {version.version} is now champion")


def evaluate(
    model: Model,
    data: Annotated[Path, typer.Option(help="Prepared data folder.")] = Path("data"),
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    out: Annotated[Path | None, typer.Option(help="Folder for the report; default results/<model>-<split>.")] = None,
) -> None:
    """Full report of any run or registered model on prepared data."""
    from watkins_ml.cli.tables import print_scores
    from watkins_ml.core.names import file_name
    from watkins_ml.dataset.split import SIDES
    from watkins_ml.inference.evaluate import evaluate_model

    if split not in SIDES:
        raise UsageError(f"--split {split}: must be train, val or test")
    out = out or Path("results") / f"{file_name(model.replace('models:/', '').strip('/').replace('/', '-'))}-{split}"
    scores, protocol = evaluate_model(model, data, split, out)
    print_scores(scores, split, protocol, out)


def compare(
    models: Annotated[list[str] | None, typer.Argument(help="Two or more MODELs; default the two champions.")] = None,
    out: Annotated[Path, typer.Option(help="The HTML page.")] = Path("results/compare.html"),
) -> None:
    """Baseline against EfficientNet side by side, as a table and a self-contained HTML page."""
    from watkins_ml.cli.tables import print_comparison
    from watkins_ml.inference.comparison import compare_models

    print_comparison(compare_models(models or [], out), out)


def report(
    model: Model,
    out: Annotated[Path, typer.Option(help="The HTML page.")] = Path("results/report.html"),
) -> None:
    """What a run or registered model knows, as one HTML page to mail: scores, species, and cuts to listen to."""
    from watkins_ml.core.console import out as console
    from watkins_ml.inference.comparison import report_model

    console.print(report_model(model, out))
    console.print(f"The page: {out}")


def predict(
    model: Model,
    audio: Annotated[list[Path], typer.Argument(help="Audio files or folders.")],
    by: Annotated[
        str, typer.Option(help="detection (who calls from when to when), window, or file (one answer each).")
    ] = "detection",
    format: Annotated[
        list[str] | None,
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
    channels: Annotated[str, typer.Option(help="mix, or each: every channel by itself.")] = "mix",
    device: Annotated[str, typer.Option(help="cpu, cuda or mps; auto takes CUDA where there is one.")] = "auto",
) -> None:
    """Which species call when, in recordings from short cuts to days."""
    formats = _formats(by, format, out)
    if channels not in ("mix", "each"):
        raise UsageError(f"--channels {channels}: must be mix or each")
    unused = {"--out": out, "--species": species, "--overlap": overlap != 0.5, "--channels": channels != "mix"}
    unused |= {"--min-confidence": min_confidence != 0.5}
    if by == "file" and any(unused.values()):
        first = next(name for name, value in unused.items() if value)
        raise UsageError(f"--by file prints one answer a file; leave out {first}")
    from watkins_ml.cli.tables import print_annotated, print_predictions
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


def _formats(by: str, wanted: list[str] | None, out: Path | None) -> tuple[str, ...]:
    """The formats to write or to print; without a folder, what the terminal can show."""
    from watkins_ml.inference.annotations import FORMATS

    if by not in ("detection", "window", "file"):
        raise UsageError(f"--by {by}: must be detection, window or file")
    formats = tuple(wanted or (["csv"] if out else ["table"]))
    known = FORMATS if out and by != "file" else ("table", "csv")
    for each in formats:
        if each not in known:
            more = "" if out or by == "file" else f"; with --out FOLDER also {', '.join(FORMATS[1:])}"
            raise UsageError(f"--format {each}: must be {', '.join(known[:-1])} or {known[-1]}{more}")
    if len(formats) > 1 and (by == "file" or not out):
        raise UsageError(f"--format {formats[1]}: the terminal takes one format; several need --out FOLDER")
    return formats
