"""`watkins tune` and `watkins crossval`: many runs under one parent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.core.errors import UsageError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: watkins tune experiments/tune-efficientnet.yaml --trials 20 --workers 2")(tune)
    app.command(epilog="Example: watkins crossval experiments/efficientnet.yaml --folds 5")(crossval)


def tune(
    recipe: Annotated[Path, typer.Argument(help="Recipe with a section study, as experiments/tune-efficientnet.yaml.")],
    override: Annotated[
        list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")
    ] = None,
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
) -> None:
    """An Optuna study: search for the best validation macro F1, then test, register and promote the best trial.

    The same command continues a study that was interrupted, on this machine or on any that reaches its database.
    """
    from watkins_ml.tuning.recipe import load_study

    study = load_study(recipe, override or [], name, trials)
    from watkins_ml.cli.tables import print_study
    from watkins_ml.tuning.tune import tune as run_study

    print_study(run_study(study, workers, storage))


def crossval(
    recipe: Annotated[Path, typer.Argument(help="Recipe, for example experiments/baseline.yaml.")],
    override: Annotated[
        list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")
    ] = None,
    folds: Annotated[int | None, typer.Option(min=3, max=1000, help="How many folds; default 5.")] = None,
    split: Annotated[str, typer.Option(help="tape (no tape in two folds) or random (leaky reference).")] = "tape",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds.")] = 0,
    fold_regex: Annotated[
        str | None, typer.Option(help="Finds the fold in a file's name: a data set's official folds.")
    ] = None,
    fold_column: Annotated[str | None, typer.Option(help="Column of the annotations that holds the fold.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder in runs/; default the recipe's name with -crossval.")] = None,
) -> None:
    """Cross-validation by tape: every recording is judged once, by a network that has heard none of its tape.

    The same command continues one that was interrupted.
    """
    from watkins_ml.config import load_config

    if split not in ("tape", "random"):
        raise UsageError(f"--split {split}: must be tape or random")
    if sum(option is not None for option in (folds, fold_regex, fold_column)) > 1:
        raise UsageError("give one of --folds, --fold-regex and --fold-column")
    config = load_config(recipe, override or [])
    from watkins_ml.cli.tables import print_crossval
    from watkins_ml.core.files import check_name
    from watkins_ml.dataset.folds import FoldRule
    from watkins_ml.runs.crossval import cross_validate

    rule = FoldRule(folds or 5, split, seed, fold_regex, fold_column)
    name = name or recipe.stem + ("-crossval" if split == "tape" else "-crossval-random")
    check_name(f"--name {name}", name)
    print_crossval(cross_validate(config, rule, Path("runs") / name))
