"""`watkins tune`: an Optuna study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.cli.arguments import Json, Note, Overrides, Tags, print_json

EXAMPLE = "watkins tune experiments/tune-efficientnet.yaml --trials 20 --workers 2"


def tune(
    recipe: Annotated[Path, typer.Argument(help="Recipe with a section study, as experiments/tune-efficientnet.yaml.")],
    override: Overrides = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials in all; default the recipe's.")] = None,
    workers: Annotated[int, typer.Option(min=1, max=1024, help="Processes on this machine.")] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            envvar="WATKINS_STORAGE",
            help="Database that the machines of a study share, postgresql+psycopg://…; default runs/studies.db.",
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the study; default the recipe's.")] = None,
    tag: Tags = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """An Optuna study: search for the best validation macro F1, then test, register and promote the best trial.

    The same command continues a study that was interrupted, on this machine or on any that reaches its database.
    """
    from watkins_ml.tuning.recipe import load_study

    study = load_study(recipe, override or [], name, trials)
    from watkins_ml.cli.tables import print_study
    from watkins_ml.tracking.launch import read_launch
    from watkins_ml.tuning.tune import tune as run_study

    outcome = run_study(study, workers, storage, read_launch(override or [], tag or [], note))
    if as_json and (best := outcome.best) is not None:
        found = {
            "number": best.number,
            "value": best.value,
            "params": best.params,
            "run_dir": outcome.study.run_of(best),
        }
        print_json({"run_dir": outcome.study.folder, "best": found, "metrics": outcome.metrics})
    else:
        print_study(outcome)
