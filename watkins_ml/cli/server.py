"""`watkins server`: MLflow on the embedded store."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from watkins_ml.core.errors import UsageError

EXAMPLE = "watkins server --port 5000"


def server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 5000,
    backend: Annotated[
        str | None,
        typer.Option(envvar="MLFLOW_BACKEND_STORE_URI", help="Database URL; default the embedded SQLite store."),
    ] = None,
) -> None:
    """MLflow's UI and REST API on the embedded store (or another database)."""
    from watkins_ml.core.console import out
    from watkins_ml.core.files import check_temporary_files
    from watkins_ml.tracking.embedded import embedded_uri, open_embedded_store
    from watkins_ml.tracking.server import check_port, server_command, server_environment

    if backend is not None and "://" not in backend:
        named = "" if "@" in backend else f" {backend}"  # what stands before an @ may be a password
        raise UsageError(f"--backend{named}: not a database URL such as postgresql+psycopg://user@host/database")
    check_port(host, port)
    check_temporary_files()
    if backend is None:
        open_embedded_store(embedded_uri())
    command, environment = server_command(host, port), os.environ | server_environment(backend)
    page = "#/experiments?workflowType=machine_learning"  # its front page is about language models
    out.print(f"MLflow on http://{host}:{port}/{page} (Ctrl-C stops it). To log to it from elsewhere:")
    out.print(f"  export MLFLOW_TRACKING_URI=http://{host}:{port}")
    os.execve(command[0], command, environment)
