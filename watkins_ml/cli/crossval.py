"""`watkins crossval`: cross-validation by tape."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from watkins_ml.cli.arguments import Json, Note, Overrides, Tags, chosen, named, print_json
from watkins_ml.core.errors import UsageError

EXAMPLE = "watkins crossval experiments/efficientnet.yaml --folds 5"


def crossval(
    recipe: Annotated[Path, typer.Argument(help="Recipe, for example experiments/baseline.yaml.")],
    override: Overrides = None,
    folds: Annotated[int | None, typer.Option(min=3, max=1000, help="How many folds; default 5.")] = None,
    split: Annotated[
        Literal["tape", "random"], typer.Option(help="tape (no tape in two folds) or random (leaky reference).")
    ] = "tape",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the folds.")] = 0,
    fold_regex: Annotated[
        str | None, typer.Option(help="Finds the fold in a file's name: a data set's official folds.")
    ] = None,
    fold_column: Annotated[str | None, typer.Option(help="Column of the annotations that holds the fold.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder in runs/; default the recipe's name with -crossval.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run, instead of one in runs/.")] = None,
    tag: Tags = None,
    note: Note = None,
    as_json: Json = False,
) -> None:
    """Cross-validation by tape: every recording is tested once, by a network that was not trained on its tape.

    The same command continues one that was interrupted.
    """
    from watkins_ml.config import load_config

    if sum(option is not None for option in (folds, fold_regex, fold_column)) > 1:
        raise UsageError("give one of --folds, --fold-regex and --fold-column")
    config = load_config(recipe, override or [])
    from watkins_ml.cli.tables import print_crossval
    from watkins_ml.dataset.folds import FoldRule
    from watkins_ml.runs.crossval import cross_validate
    from watkins_ml.tracking.launch import read_launch

    rule = FoldRule(folds or 5, split, seed, fold_regex, fold_column)
    usual = recipe.stem + ("-crossval" if split == "tape" else "-crossval-random")
    folder = chosen(name, run_dir) or named(usual)
    result = cross_validate(config, rule, folder, read_launch(override or [], tag or [], note))
    if as_json:
        by_fold = result.by_fold.to_dict("records")
        print_json({"run_dir": result.run_dir, "metrics": result.metrics, "folds": by_fold})
    else:
        print_crossval(result)
