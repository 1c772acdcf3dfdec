"""A MODEL argument (run directory, bundle folder, `models:/…`, `runs:/…`) to files on this machine."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from watkins_ml.core import names
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import check_temporary_files, disk_errors
from watkins_ml.core.metric_names import on_server
from watkins_ml.models.bundle import Classifier, load_bundle
from watkins_ml.models.bundle_files import DESCRIPTION, THRESHOLDS, THRESHOLDS_TAG
from watkins_ml.models.thresholds import Thresholds, parse_thresholds, write_thresholds
from watkins_ml.tracking.faults import TrackingError, diagnose
from watkins_ml.tracking.server import client, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

REPORT_ARTIFACTS = ("config.yaml", "history.csv", "run.json", "reports", "preds", "plots", "galleries")


def load_classifier(model: str) -> Classifier:
    """Load the model that a MODEL argument names; the thresholds of a registered version are those of its tag.

    Raises:
        UserError: nothing there, or the server does not answer.
    """
    if is_uri(model):
        check_temporary_files()
    place = pinned(model)  # so that thresholds and weights are of one version
    with bundle_directory(place) as bundle:
        classifier = load_bundle(bundle, model if is_uri(model) else None)
    name, number = _version(place)
    if not number:
        return classifier
    with tracker_errors(model):
        text = client().get_model_version(name, number).tags.get(THRESHOLDS_TAG)
    thresholds = (
        parse_thresholds(text, f"{model}: tag {THRESHOLDS_TAG}", classifier.classes) if text else classifier.thresholds
    )
    return replace(classifier, thresholds=thresholds)


def save_thresholds(model: str, thresholds: Thresholds) -> str:
    """Keep thresholds with a model: beside its files, or as a tag of its registered version; where they are now.

    Raises:
        UserError: neither, or it cannot be written.
    """
    place = pinned(model)
    name, number = _version(place)
    if number:
        with tracker_errors(model):
            client().set_model_version_tag(name, number, THRESHOLDS_TAG, thresholds.text())
        return f"tag {THRESHOLDS_TAG} of {name} version {number}"
    if is_uri(model):
        raise UserError(f"{model}: thresholds are kept with a run directory or a registered version (models:/NAME/3)")
    with bundle_directory(model) as folder, disk_errors(f"cannot write thresholds to {folder}", "make room there"):
        write_thresholds(folder, thresholds)
        return str(folder / THRESHOLDS)


def record_detection(model: str, metrics: dict[str, float], tags: dict[str, str]) -> str | None:
    """Log metrics to the run behind a MODEL on the server, and tag a registered version; the run's id.

    Nothing of a run directory: what is sent of it is in its journal.
    """
    if not is_uri(model):
        return None
    place = pinned(model)
    name, number = _version(place)
    with tracker_errors(model):
        from mlflow.entities import Metric

        server, now = client(), int(1000 * time.time())
        if run_id := _run_id(server, place):
            server.log_batch(run_id, metrics=[Metric(on_server(key), value, now, 0) for key, value in metrics.items()])
        for key, value in tags.items() if number else ():
            server.set_model_version_tag(name, number, key, value)
    return run_id


def _version(model: str) -> tuple[str, str]:
    """Name and number of a registered version as `pinned` gives it; empty texts for any other MODEL."""
    name, _, number = model.removeprefix("models:/").rpartition("/")
    return (name, number) if model.startswith("models:/") and number.isdigit() else ("", "")


@contextmanager
def bundle_directory(model: str) -> Iterator[Path]:
    """The folder of the trained model that a MODEL argument names, or a copy; raises as `load_classifier`."""
    if not is_uri(model):
        path = Path(model)
        if not path.is_dir():
            raise UserError(f"{model}: no such run directory; a registered model is written models:/NAME@champion")
        yield path if (path / DESCRIPTION).exists() else path / "model"
        return
    check_temporary_files()
    with tempfile.TemporaryDirectory(prefix="watkins-") as folder:
        with tracker_errors(model):
            bundle = _downloaded(model, folder)
        yield bundle


def _downloaded(model: str, folder: str) -> Path:
    import mlflow

    client()
    uri = model if not model.startswith("runs:/") or "/" in model[len("runs:/") :] else f"{model}/model"
    downloaded = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
    bundles = sorted(downloaded.rglob(DESCRIPTION))
    if not bundles:
        raise UserError(f"{model}: holds no watkins_ml model")
    return bundles[0].parent


@contextmanager
def run_directory(model: str) -> Iterator[Path]:
    """The run directory behind a MODEL: itself, or a downloaded copy without checkpoints.

    Raises:
        UserError: nothing there, or the server does not answer.
    """
    if not is_uri(model):
        if not (Path(model) / "run.json").exists():
            raise UserError(f"{model}: not a run directory (it has no run.json)")
        yield Path(model)
        return
    check_temporary_files()
    with tempfile.TemporaryDirectory(prefix="watkins-") as folder:
        with tracker_errors(model):
            server = client()
            if (run_id := _run_id(server, model)) is None:
                raise UserError(f"{model}: was not logged by a run; name a run directory or another version")
            target = Path(folder) / names.file_name(names.spelled(server.get_run(run_id).info.run_name or run_id))
            target.mkdir()
            present = {artifact.path for artifact in server.list_artifacts(run_id)}
            for name in REPORT_ARTIFACTS:
                if name in present:
                    server.download_artifacts(run_id, name, str(target))
        yield target


def pinned(model: str) -> str:
    """A MODEL with the version that its alias stands for now, since the alias moves on; any other as it is.

    Raises:
        UserError: no such model, or the server does not answer.
    """
    name, at, alias = model.removeprefix("models:/").partition("@")
    if not model.startswith("models:/") or not at:
        return model
    with tracker_errors(model):
        return f"models:/{name}/{client().get_model_version_by_alias(name, alias).version}"


def file_name(model: str) -> str:
    """A MODEL as the name of a file."""
    return names.file_name(re.sub(r"[^\w.@-]+", "-", model.removeprefix("models:/")).strip("-."))


def is_uri(model: str) -> bool:
    """Whether a MODEL is on the tracking server, and no folder."""
    return model.startswith(("models:/", "runs:/"))


def _run_id(server: MlflowClient, model: str) -> str | None:
    if model.startswith("runs:/"):
        return model[len("runs:/") :].split("/")[0]
    name = model[len("models:/") :]
    if "@" in name:
        return server.get_model_version_by_alias(*name.split("@", 1)).run_id
    if "/" in name:
        return server.get_model_version(*name.split("/", 1)).run_id
    return server.get_logged_model(name).source_run_id


@contextmanager
def tracker_errors(model: str) -> Iterator[None]:
    """Say in one sentence whether a MODEL is not there, or what is wrong with the server that was asked for it."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, TrackingError, SQLAlchemyError, OSError, ValueError, TypeError, ImportError) as error:
        uri = tracking_uri()
        fault = diagnose(error, uri)
        if fault.transient or fault.remedy:
            raise UserError(f"{model}: {uri} failed ({fault})") from None
        hint = ", and `watkins promote` makes a version champion" * model.endswith("@champion")
        raise UserError(f"{model}: not found on {uri} ({fault}); `watkins models` lists what there is{hint}") from None
