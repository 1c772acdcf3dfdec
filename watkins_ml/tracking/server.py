"""Which MLflow server a command talks to, and how a local one is started."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from pathlib import Path

from filelock import FileLock

from watkins_ml.tracking.address import VARIABLE, checked
from watkins_ml.tracking.faults import STRANGER, Fault, TrackingError, deleted

EMBEDDED = Path("mlflow")
"""Folder of the embedded store, used where MLFLOW_TRACKING_URI names no server."""

os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # MLflow's own defaults wait for minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_ENABLE_ASYNC_LOGGING", "false")  # it drops what it cannot send
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


def embedded_uri(folder: Path = EMBEDDED) -> str:
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def tracking_uri() -> str:
    """The server of MLFLOW_TRACKING_URI, else the embedded SQLite store in ./mlflow/."""
    return os.environ.get(VARIABLE, "").strip() or embedded_uri()


def check_address() -> None:
    """Refuse an address that can never work, before a command has done anything; raises as `address.checked`."""
    checked(tracking_uri())


def is_embedded(uri: str) -> bool:
    return uri.startswith("sqlite:")


def artifact_folder(uri: str) -> Path:
    """Where an embedded store keeps artifacts: beside its database file."""
    return Path(uri.removeprefix("sqlite:///")).resolve().parent / "artifacts"


def _quieten() -> None:
    """Leave out hints for people who call MLflow themselves."""
    warnings.filterwarnings("ignore", module="mlflow")
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


def make_embedded_store(uri: str) -> None:
    """Create the database of an embedded store whole or not at all; MLflow refuses for ever one that is half made."""
    database = Path(uri.removeprefix("sqlite:///").partition("?")[0])
    artifact_folder(uri).mkdir(parents=True, exist_ok=True)
    if database.exists():
        return
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    _quieten()
    with FileLock(database.with_name(".making.lock")):
        if database.exists():  # another process was faster
            return
        workshop = database.with_name(".making")
        shutil.rmtree(workshop, ignore_errors=True)
        workshop.mkdir()
        store = SqlAlchemyStore(f"sqlite:///{workshop / database.name}", artifact_folder(uri).as_uri())
        store.engine.dispose()
        os.replace(workshop / database.name, database)
        shutil.rmtree(workshop)


def client():
    """An MLflow client for `tracking_uri()`; also makes it the default of MLflow's own functions."""
    import mlflow

    _quieten()
    uri = checked(tracking_uri())
    if is_embedded(uri):
        make_embedded_store(uri)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    return mlflow.MlflowClient(uri, uri)


def experiment_id(client, name: str) -> str:
    """Get or create an experiment; another worker may create it in between."""
    from mlflow.exceptions import MlflowException

    uri = tracking_uri()
    location = (artifact_folder(uri) / name).as_uri() if is_embedded(uri) else None
    for _ in range(2):
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise TrackingError(deleted("experiment", found.experiment_id, uri))
        try:
            number = found.experiment_id if found else client.create_experiment(name, artifact_location=location)
            if not number:  # any program that answers `{}` to everything
                raise TrackingError(Fault(STRANGER, "correct the host or the port"))
            return number
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
    raise TrackingError(Fault(f"experiment {name} exists there but cannot be read"))


def server_command(host: str, port: int, backend: str | None, workers: int = 1) -> list[str]:
    """The `mlflow server` command for the embedded store or another backend."""
    folder = EMBEDDED.resolve()
    return [
        sys.executable, "-m", "mlflow", "server",
        "--backend-store-uri", backend or embedded_uri(),
        "--artifacts-destination", str(folder / "artifacts"),
        "--host", host, "--port", str(port), "--workers", str(workers),
    ]  # fmt: skip
