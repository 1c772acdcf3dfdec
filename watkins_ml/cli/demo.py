"""`watkins demo`: what a user does in a day, on a generated ocean, in minutes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.core.errors import UserError

RECIPES = Path(__file__).parents[1] / "demo"
EXAMPLE = "watkins demo --out demo"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the ocean, the runs and the report.")] = Path("demo"),
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the generated ocean and of the training.")
    ] = 0,
) -> None:
    """The whole job on a small generated ocean: prepare, train both models, compare, register, predict."""
    from watkins_ml.core.files import disk_errors
    from watkins_ml.core.locks import only_writer

    started, folder = time.perf_counter(), out.resolve()
    with (
        disk_errors(f"cannot write the demo to {folder}", "choose another folder with --out"),
        only_writer(folder, "watkins demo"),
    ):
        _generate(folder, seed)
        os.chdir(folder)  # data, runs and the embedded store lie together, as in a user's own project
        page, model = _train_and_compare(seed)
        _predict(model)
    _print()
    _print(f"Done in {time.perf_counter() - started:.0f} s. Open the comparison: {page}")
    _print(f"Look at the runs:     cd {folder} && watkins server    (and open the address that it prints)")


def _generate(folder: Path, seed: int) -> None:
    from watkins_ml.demo.ocean import generate_ocean, generate_recording

    _print_step(f"Generating a small ocean in {folder / 'ocean'}")
    try:
        ocean = generate_ocean(folder / "ocean", seed)
    except FileExistsError as error:
        raise UserError(f"{error}; choose another folder with --out") from None
    calls = generate_recording(folder / "new-recording.wav", seed)
    tapes = sum(len(each) for each in ocean.tapes.values())
    _print(
        f"{sum(ocean.species.values())} cuts of {len(ocean.species)} species on {tapes} tapes, "
        f"{ocean.seconds / 60:.0f} minutes; among them one corrupt file and one duplicate; "
        f"and a new recording with {len(calls)} bouts of calls of {calls[0][2]}"
    )


def _train_and_compare(seed: int) -> tuple[Path, str]:
    """Prepare, train both models, register and compare them; the page, and a model to predict with."""
    from watkins_ml.cli.model_tables import print_models
    from watkins_ml.cli.tables import print_comparison, print_prepared
    from watkins_ml.config import load_config
    from watkins_ml.dataset.prepare import PrepareOptions, prepare
    from watkins_ml.inference.comparison import compare_models
    from watkins_ml.runs.train import run_experiment
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client, tracking_uri

    _print_step("Preparing: annotations, tape split, spectrograms")
    print_prepared(prepare(Path("ocean"), Path("data"), PrepareOptions(seed=seed)), Path("data"))
    runs, names = [], []
    for recipe in sorted(RECIPES.glob("*.yaml")):
        _print_step(f"Training {recipe.stem}")
        config = load_config(recipe, [f"train.seed={seed}"])
        runs.append(str(run_experiment(config).run_dir))
        names.append(config.tracking.register_as)
    _print_step("Comparing the two runs")
    page = Path("compare.html").resolve()
    print_comparison(compare_models(runs, page), page)
    _print_step("The model registry")
    print_models(registry.list_versions(client()), tracking_uri())
    champions = [f"models:/{name}@{registry.CHAMPION}" for name in names if name and registry.champion(client(), name)]
    return page, champions[0] if champions else runs[0]


def _predict(model: str) -> None:
    from watkins_ml.cli.prediction_tables import print_detections
    from watkins_ml.inference.detections import DetectionOptions
    from watkins_ml.inference.pipeline import predict_recordings
    from watkins_ml.inference.resolve import load_classifier
    from watkins_ml.inference.windows import WindowOptions

    _print_step(f"Predicting a new recording with {model}")
    if not model.startswith("models:/"):
        _print("No network is above its control on validation, so none became champion; this is the first run")
    classifier = load_classifier(model)
    print_detections(
        predict_recordings(classifier, [Path("new-recording.wav")], DetectionOptions(), WindowOptions()), "table"
    )


def _print_step(step: str) -> None:
    _print()
    _print(step, style="bold")


def _print(*words: str, style: str | None = None) -> None:
    from watkins_ml.core.console import out

    out.print(*words, style=style)
