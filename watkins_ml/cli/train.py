"""`watkins train`: one tracked run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.cli.arguments import Json, Note, Overrides, Tags, chosen, print_json
from watkins_ml.core.errors import UsageError, UserError

EXAMPLE = "watkins train experiments/baseline.yaml -o train.epochs=5 --name first --tag site=Samana"


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe, for example experiments/efficientnet.yaml.")] = None,
    override: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Folder in runs/; default the model's with the time.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run, instead of one in runs/.")] = None,
    tag: Tags = None,
    note: Note = None,
    as_json: Json = False,
    resume: Annotated[
        Path | None, typer.Option(help="Run directory of an interrupted run to go on with, exactly as it would have.")
    ] = None,
) -> None:
    """One tracked run: train, evaluate on validation and test, log to MLflow, register.

    Under torchrun, by several processes on one machine or many:
    torchrun --standalone --nproc-per-node 2 -m watkins_ml train RECIPE
    """
    from watkins_ml.core.distributed import init_process_group

    with init_process_group() as group:
        if group.is_first:
            _train(recipe, override or [], chosen(name, run_dir), resume, tag or [], note, as_json)
        else:
            from watkins_ml.runs.train import help_training

            help_training()


def _train(
    recipe: Path | None,
    overrides: list[str],
    run_dir: Path | None,
    resume: Path | None,
    tags: list[str],
    note: str | None,
    as_json: bool,
) -> None:
    from watkins_ml.config import load_config, load_stored

    if resume is not None and (run_dir is not None or tags or note is not None):
        raise UsageError("--name, --run-dir, --tag and --note are for a new run, --resume is for an interrupted one")
    if resume is not None and not (resume / "run.json").exists():
        raise UserError(f"--resume {resume}: not a run directory (it has no run.json)")
    own = None if resume is None else resume / "config.yaml"
    if own is not None and recipe in (None, own):
        config = load_stored(own, overrides)
    elif recipe is not None:
        config = load_config(recipe, overrides)
    else:
        raise UsageError("name a recipe, for example experiments/baseline.yaml, or an interrupted run with --resume")
    from watkins_ml.cli.tables import print_run
    from watkins_ml.runs.train import resume_experiment, run_experiment
    from watkins_ml.tracking.launch import read_launch

    if resume is None:
        result = run_experiment(config, run_dir, read_launch(overrides, tags, note))
    else:
        result = resume_experiment(resume, config)
    if as_json:
        print_json({"run_dir": result.run_dir, "metrics": result.metrics})
    else:
        print_run(result.run_dir, result.metrics)
