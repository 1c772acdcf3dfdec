"""`watkins demo`: what a user does in a day, on a generated ocean, in minutes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from watkins_ml.cli.tables import print_annotated, print_comparison, print_models, print_prepared
from watkins_ml.config import load_config
from watkins_ml.core.console import out as terminal
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.locks import only_writer
from watkins_ml.dataset.prepare import PrepareOptions, prepare
from watkins_ml.demo.ocean import generate_ocean, generate_recording
from watkins_ml.inference.annotate import annotate
from watkins_ml.inference.comparison import compare_models
from watkins_ml.inference.detections import Wanted
from watkins_ml.inference.judge import Listening
from watkins_ml.inference.resolve import load_classifier
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking import registry
from watkins_ml.tracking.server import client, tracking_uri

RECIPES = Path(__file__).parents[1] / "demo"


def run_demo(folder: Path, seed: int) -> None:
    """Generate, prepare, train both models, compare, register, predict; everything lands in `folder`."""
    started = time.perf_counter()
    folder = folder.resolve()
    with (
        disk_errors(f"cannot write the demo to {folder}", "choose another folder with --out"),
        only_writer(folder, "watkins demo"),
    ):
        _run_demo(folder, seed, started)


def _run_demo(folder: Path, seed: int, started: float) -> None:
    _generate(folder, seed)
    os.chdir(folder)  # data, runs and the embedded store lie together, as in a user's own project
    _say("Preparing: annotations, tape split, spectrograms")
    print_prepared(prepare(Path("ocean"), Path("data"), PrepareOptions(seed=seed)), Path("data"))
    runs = []
    for recipe in ("baseline", "efficientnet"):
        _say(f"Training {recipe}")
        config = load_config(RECIPES / f"{recipe}.yaml", [f"train.seed={seed}"])
        runs.append(run_experiment(config).run_dir)
    _say("Comparing the two runs")
    page = Path("compare.html").resolve()
    print_comparison(compare_models([str(run) for run in runs], page), page)
    _say("The model registry")
    print_models(registry.list_versions(client()), tracking_uri())
    _say("Predicting a new recording with the champion")
    recordings = [Path("new-recording.wav")]
    found = annotate(load_classifier("models:/watkins-baseline@champion"), recordings, Wanted(), Listening())
    print_annotated(found, recordings, "table")
    terminal.print()
    terminal.print(f"Done in {time.perf_counter() - started:.0f} s. Open the comparison: {page}")
    terminal.print(f"Look at the runs:     cd {folder} && watkins server    (and open the address that it prints)")


def _generate(folder: Path, seed: int) -> None:
    _say(f"Generating a small ocean in {folder / 'ocean'}")
    try:
        ocean = generate_ocean(folder / "ocean", seed)
    except FileExistsError as error:
        raise UserError(f"{error}; choose another folder with --out") from None
    calls = generate_recording(folder / "new-recording.wav", seed)
    tapes = sum(len(each) for each in ocean.tapes.values())
    terminal.print(
        f"{sum(ocean.species.values())} cuts of {len(ocean.species)} species on {tapes} tapes, "
        f"{ocean.seconds / 60:.0f} minutes; among them one corrupt file and one duplicate; "
        f"and a new recording with {len(calls)} bouts of calls of {calls[0][2]}"
    )


def _say(step: str) -> None:
    terminal.print()
    terminal.print(step, style="bold")
