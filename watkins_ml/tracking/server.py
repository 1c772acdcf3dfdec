"""Which MLflow server a command talks to, and how a local one is started."""

from __future__ import annotations

import errno
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from watkins_ml.core.errors import UserError
from watkins_ml.core.masking import masked
from watkins_ml.core.names import file_name
from watkins_ml.core.server_names import check_experiment
from watkins_ml.tracking.address import REGISTRY, VARIABLE, checked
from watkins_ml.tracking.embedded import (
    EMBEDDED,
    artifact_folder,
    database_file,
    embedded_uri,
    is_embedded,
    open_embedded_store,
    quieten,
)
from watkins_ml.tracking.faults import NOT_MLFLOW, Fault, TrackingError, deleted

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow's own defaults wait for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")  # it drops what it cannot send
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def tracking_uri() -> str:
    """The server of MLFLOW_TRACKING_URI, else the embedded SQLite store in ./mlflow/."""
    return os.environ.get(VARIABLE, "").strip() or embedded_uri()


def registry_uri() -> str | None:
    """The server of MLFLOW_REGISTRY_URI where registered models are kept, if it is another; raises as `checked`."""
    return checked(uri, REGISTRY) if (uri := os.environ.get(REGISTRY, "").strip()) else None


def check_address() -> None:
    """Refuse an address that can never work, before a command has done anything; raises as `address.checked`."""
    checked(tracking_uri())
    registry_uri()


def stored_address(uri: str, run: Path) -> str:
    """How a run directory remembers a server: without password, and an embedded store by the way to it from there.

    Both may be moved together, so an absolute path would not name the store any more.
    """
    if not is_embedded(uri):
        return masked(uri)
    return f"sqlite:{os.path.relpath(database_file(uri), run.resolve())}"


def is_same_server(uri: str, before: str, run: Path) -> bool:
    """Whether a run directory that remembers the server `before` may mean the one at `uri`.

    Of embedded stores it always may: they can be moved, and earlier versions kept their absolute paths. Whether the
    store has the run is then to be asked of it.
    """
    if is_embedded(uri):
        return is_embedded(before)
    return masked(before) == stored_address(uri, run)


def client() -> MlflowClient:
    """An MLflow client for `tracking_uri()`; also makes it the default of MLflow's own functions."""
    import mlflow

    quieten()
    uri = checked(tracking_uri())
    opened = open_embedded_store(uri) if is_embedded(uri) else uri
    mlflow.set_tracking_uri(opened)
    if opened != uri:  # MLflow writes it into the environment, where `tracking_uri` looks
        os.environ[VARIABLE] = uri
    registry = registry_uri()
    mlflow.set_registry_uri(registry or opened)
    if registry is None:  # MLflow writes this one too, and then it would stand for the user's own
        os.environ.pop(REGISTRY, None)
    return mlflow.MlflowClient(opened, registry or opened)


def experiment_id(client: MlflowClient, name: str, tags: dict[str, str] | None = None) -> str:
    """Get or create an experiment, a new one with tags; another worker may create it in between.

    Raises:
        UserError: the name, which a run directory from elsewhere may give, is none.
    """
    from mlflow.exceptions import MlflowException

    check_experiment(name, "tracking.experiment")
    uri = tracking_uri()
    location = (artifact_folder(uri) / file_name(name)).as_uri() if is_embedded(uri) else None
    for _ in range(2):
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(deleted("experiment", found.experiment_id, uri))
        try:
            number = found.experiment_id if found else client.create_experiment(name, location, tags)
            if not number:  # any program that answers `{}` to everything
                raise TrackingError(Fault(NOT_MLFLOW, "correct the host or the port"))
            return number
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise TrackingError(Fault(f"experiment {name} exists there but cannot be read"))


def check_port(host: str, port: int) -> None:
    """Raise a UserError if a server could not listen there; MLflow's would say so in its log and end with 0."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=kind).close()
    except OSError as error:
        why = f"cannot listen there ({error.strerror})"
        if error.errno == errno.EADDRINUSE:
            why = "another server listens there; give another --port"
        raise UserError(f"--host {host} --port {port}: {why}") from None


def server_command(host: str, port: int, workers: int = 1) -> list[str]:
    """The `mlflow server` command; `server_environment` tells it the database."""
    return [
        sys.executable, "-m", "mlflow", "server",
        "--artifacts-destination", str(EMBEDDED.resolve() / "artifacts"),
        "--host", host, "--port", str(port), "--workers", str(workers),
    ]  # fmt: skip


def server_environment(backend: str | None) -> dict[str, str]:
    """What `server_command` needs for the embedded store or another backend; arguments are visible to all users."""
    return {"MLFLOW_BACKEND_STORE_URI": backend or embedded_uri(), "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
