"""`watkins train`, `watkins sync` and `watkins server`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from watkins_ml.core.errors import UsageError, UserError


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: watkins train experiments/baseline.yaml -o train.epochs=5")(train)
    app.command(epilog="Example: watkins sync runs/baseline-20261123-101500-1a2b")(sync)
    app.command(epilog="Example: watkins server --port 5000")(server)


def train(
    recipe: Annotated[Path | None, typer.Argument(help="Recipe, for example experiments/efficientnet.yaml.")] = None,
    override: Annotated[
        list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name>.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run directory of an interrupted run to go on with, exactly as it would have.")
    ] = None,
) -> None:
    """One tracked run: train, evaluate on validation and test, log to MLflow, register.

    Under torchrun, by several processes on one machine or many:
    torchrun --standalone --nproc-per-node 2 -m watkins_ml train RECIPE
    """
    from watkins_ml.core.distributed import joined

    with joined() as group:
        if group.is_first:
            _train(recipe, override or [], run_dir, resume)
        else:
            from watkins_ml.runs.train import help_training

            help_training()


def _train(recipe: Path | None, overrides: list[str], run_dir: Path | None, resume: Path | None) -> None:
    from watkins_ml.config import load_config, load_stored

    if resume is not None and run_dir is not None:
        raise UsageError("--run-dir is for a new run, --resume for an interrupted one; give one of them")
    if resume is None and recipe is None:
        raise UsageError("name a recipe, for example experiments/baseline.yaml, or an interrupted run with --resume")
    if resume is not None and not (resume / "run.json").exists():
        raise UserError(f"--resume {resume}: not a run directory (it has no run.json)")
    own = resume and resume / "config.yaml"
    config = load_stored(own, overrides) if recipe in (None, own) else load_config(recipe, overrides)
    from watkins_ml.cli.tables import print_run
    from watkins_ml.runs.train import resume_experiment, run_experiment

    result = run_experiment(config, run_dir) if resume is None else resume_experiment(resume, config)
    print_run(result.run_dir, result.metrics)


def sync(
    run_dirs: Annotated[list[Path] | None, typer.Argument(help="Run directories; default all in runs/.")] = None,
) -> None:
    """Send to the tracking server what it has not received, and close runs whose process died."""
    from watkins_ml.core.console import err, out
    from watkins_ml.core.wording import plural
    from watkins_ml.tracking.server import check_address, tracking_uri

    check_address()
    paths = [path for root in run_dirs or _runs(Path("runs")) for path in (root, *_parts(root))]
    if not paths:
        out.print("no runs in runs/; name a run directory")
    problems, complete = [], 0
    for path in paths:
        try:
            complete += not _sync_one(path)
        except UserError as error:  # the others can still be sent
            problems.append(error)
    if complete:
        out.print(f"nothing to send for {plural(complete, 'run')}")
    if len(problems) == 1:
        raise problems[0]
    if problems:
        for problem in problems:
            err.print(str(problem))
        raise UserError(f"{len(problems)} of {len(paths)} runs are not complete on {tracking_uri()}")


def _runs(folder: Path) -> list[Path]:
    """The run directories directly in a folder; that of a study, a run itself, has those of its trials in it."""
    return sorted(journal.parent for journal in folder.glob("*/journal.jsonl"))


def _parts(run: Path) -> list[Path]:
    """The trials or folds in the folder of a study or a cross-validation; raises where one is a link to elsewhere."""
    from watkins_ml.core.confined import inside

    return [inside(run, part.name, run) for part in _runs(run)]


def _sync_one(path: Path) -> bool:
    """Say what was done with a run; whether there was anything to do."""
    from watkins_ml.core.console import out
    from watkins_ml.tracking.rundir import RunDirectory
    from watkins_ml.tracking.sync import catch_up

    done = False
    for message in catch_up(RunDirectory(path)):
        out.print(message)
        done = True
    return done


def server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    backend: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_BACKEND_STORE_URI", help="Database URL; default the embedded SQLite store."),
    ] = None,
) -> None:
    """MLflow's UI and REST API on the embedded store (or another database)."""
    import os

    from watkins_ml.core.console import out
    from watkins_ml.core.files import check_temporary_files
    from watkins_ml.tracking.embedded import embedded_uri, open_embedded_store
    from watkins_ml.tracking.server import check_port, server_command, server_environment

    if backend is not None and "://" not in backend:
        told = "" if "@" in backend else f" {backend}"  # what stands before an @ may be a password
        raise UsageError(f"--backend{told}: not a database URL such as postgresql+psycopg://user@host/database")
    check_port(host, port)
    check_temporary_files()
    if backend is None:
        open_embedded_store(embedded_uri())
    command, environment = server_command(host, port), os.environ | server_environment(backend)
    page = "#/experiments?workflowType=machine_learning"  # its front page is about language models
    out.print(f"MLflow on http://{host}:{port}/{page} (Ctrl-C stops it). To log to it from elsewhere:")
    out.print(f"  export MLFLOW_TRACKING_URI=http://{host}:{port}")
    os.execve(command[0], command, environment)
