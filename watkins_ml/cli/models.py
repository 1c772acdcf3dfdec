"""`watkins models`, `promote`, `evaluate`, `compare`, `report` and `predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.errors import UsageError

Model = Annotated[str, typer.Argument(help="models:/NAME@champion, models:/NAME/VERSION, runs:/ID or a run directory.")]


def add_to(app: typer.Typer) -> None:
    app.command("models", epilog="Example: watkins models")(list_models)
    app.command(epilog="Example: watkins promote watkins-efficientnet/3")(promote)
    app.command(epilog="Example: watkins evaluate models:/watkins-efficientnet@champion --split test")(evaluate)
    app.command(epilog="Example: watkins compare models:/watkins-baseline/2 runs/my-run --out compare.html")(compare)
    app.command(epilog="Example: watkins report models:/watkins-efficientnet@champion --out report.html")(report)
    app.command(epilog="Example: watkins predict models:/watkins-efficientnet@champion recording.wav")(predict)


def list_models() -> None:
    """The registered models: versions, scores, data, and who is champion."""
    from watkins_ml.cli.tables import print_models
    from watkins_ml.inference.resolve import tracker_errors
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client, tracking_uri

    with tracker_errors("the model registry"):
        versions = registry.list_versions(client())
    print_models(versions, tracking_uri())


def promote(
    model_version: Annotated[str, typer.Argument(help="NAME/VERSION, for example watkins-efficientnet/3.")],
) -> None:
    """Make this version the champion of its model, whatever it scored."""
    from watkins_ml.console import out
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
    from watkins_ml.dataset.split import SIDES
    from watkins_ml.inference.evaluate import evaluate_model

    if split not in SIDES:
        raise UsageError(f"--split {split}: must be train, val or test")
    out = out or Path("results") / f"{model.replace('models:/', '').strip('/').replace('/', '-')}-{split}"
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
    from watkins_ml.console import out as console
    from watkins_ml.inference.comparison import report_model

    console.print(report_model(model, out))
    console.print(f"The page: {out}")


def predict(
    model: Model,
    audio: Annotated[list[Path], typer.Argument(help="Audio files or folders.")],
    format: Annotated[str, typer.Option(help="table or csv.")] = "table",
    top: Annotated[int, typer.Option(min=1, help="Species a file, most probable first.")] = 1,
) -> None:
    """The most probable species of each recording, long ones judged by up to 16 windows."""
    if format not in ("table", "csv"):
        raise UsageError(f"--format {format}: must be table or csv")
    from watkins_ml.cli.tables import print_predictions
    from watkins_ml.errors import UserError
    from watkins_ml.inference.predict import find_audio, predict_files
    from watkins_ml.inference.resolve import load_classifier

    files = find_audio(audio)
    predictions = predict_files(load_classifier(model), files, top)
    print_predictions(predictions, format)
    if predictions["problem"].notna().all():
        raise UserError("none of the files could be read; the reasons are in the table")
