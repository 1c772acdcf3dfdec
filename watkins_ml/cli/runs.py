"""`watkins train`, `watkins sync` and `watkins server`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def add_to(app: typer.Typer) -> None:
    app.command(epilog="Example: watkins train experiments/baseline.yaml -o train.epochs=5")(train)
    app.command(epilog="Example: watkins sync runs/baseline-20261123-101500-1a2b")(sync)
    app.command(epilog="Example: watkins server --port 5000")(server)


def train(
    recipe: Annotated[Path, typer.Argument(help="Recipe, for example experiments/efficientnet.yaml.")],
    override: Annotated[
        list[str] | None, typer.Option("--override", "-o", help="key.path=value; may be given again.")
    ] = None,
    run_dir: Annotated[Path | None, typer.Option(help="Folder of the run; default runs/<name>.")] = None,
) -> None:
    """One tracked run: train, evaluate on validation and test, log to MLflow, register."""
    from watkins_ml.config import load_config

    config = load_config(recipe, override or [])
    from watkins_ml.cli.tables import print_run
    from watkins_ml.experiment import run_experiment

    result = run_experiment(config, run_dir)
    print_run(result.run_dir, result.metrics)


def sync(
    run_dirs: Annotated[list[Path] | None, typer.Argument(help="Run directories; default all in runs/.")] = None,
) -> None:
    """Send to the tracking server what it has not received of these runs."""
    from watkins_ml.console import out
    from watkins_ml.errors import UserError, first_line
    from watkins_ml.tracking.rundir import RunDirectory
    from watkins_ml.tracking.uploader import Shipment

    paths = run_dirs or sorted(file.parent for file in Path("runs").glob("*/journal.jsonl"))
    if not paths:
        out.print("no runs in runs/; name a run directory")
    for path in paths:
        run = RunDirectory(path)
        _ = run.facts  # refuses a folder that is no run
        shipment = Shipment(run)
        before = shipment.state["sent"]
        try:
            shipment.send()
        except Exception as error:  # whatever the tracker raises, the user gets one sentence
            raise UserError(f"{path}: {shipment.uri} did not take it ({first_line(error)}); try again later") from None
        out.print(f"{path}: {shipment.state['sent'] - before} of {shipment.state['sent']} entries sent")
        for message in shipment.messages:
            out.print(message)


def server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    backend: Annotated[str | None, typer.Option(help="Database URL; default the embedded SQLite store.")] = None,
) -> None:
    """MLflow's UI and REST API on the embedded store (or another database)."""
    import os

    from watkins_ml.console import out
    from watkins_ml.tracking.server import EMBEDDED, server_command

    (EMBEDDED / "artifacts").mkdir(parents=True, exist_ok=True)
    command = server_command(host, port, backend)
    out.print(f"MLflow on http://{host}:{port} (Ctrl-C stops it). To log to it from elsewhere:")
    out.print(f"  export MLFLOW_TRACKING_URI=http://{host}:{port}")
    os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    os.execv(command[0], command)
