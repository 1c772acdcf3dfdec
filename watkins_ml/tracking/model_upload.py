"""A run's bundle as a logged model on the server, and as a version in the registry; each is made once."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from watkins_ml.models.bundle_files import DESCRIPTION, bundle_digest
from watkins_ml.serving.packing import save_model
from watkins_ml.tracking import registry

BUNDLE_TAG = "watkins.bundle"
"""Tag of a logged model: the digest of the bundle that it holds."""


def log_model(client: MlflowClient, run_id: str, bundle: Path, digest: str) -> str:
    """The URI of the model on the server that was made of this bundle, logged now if it is not there whole."""
    run = client.get_run(run_id)
    found = client.search_logged_models([run.info.experiment_id], filter_string=f"source_run_id = '{run_id}'")
    model = next((each for each in found if _is_of(each, digest)), None) or client.create_logged_model(
        run.info.experiment_id, name="model", source_run_id=run_id, params=run.data.params
    )
    client.set_logged_model_tags(model.model_id, {BUNDLE_TAG: digest})
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory(prefix="watkins-") as folder:
            save_model(bundle, Model(model.artifact_location, run_id, model_id=model.model_id), folder)
            client.log_model_artifacts(model.model_id, folder)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return model.model_uri


def _is_of(model: LoggedModel, digest: str) -> bool:
    """Whether a logged model is, or will be when it is whole, of the bundle with this digest."""
    if model.status != LoggedModelStatus.READY:  # not in use yet, so an incomplete upload is replaced
        return True
    if tagged := model.tags.get(BUNDLE_TAG):
        return tagged == digest
    from mlflow.artifacts import download_artifacts  # of an earlier version, which left no tag

    with tempfile.TemporaryDirectory(prefix="watkins-") as folder:
        there = Path(download_artifacts(artifact_uri=model.model_uri, dst_path=folder))
        return any(bundle_digest(each.parent) == digest for each in there.glob(f"artifacts/*/{DESCRIPTION}"))


def register_model(client: MlflowClient, run_id: str, model_uri: str, name: str, tags: dict[str, str]) -> ModelVersion:
    """The version of a logged model in the registry, created now if there is none."""
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    model_id = model_uri.removeprefix("models:/")
    found = [each for each in client.search_model_versions(f"name='{name}'") if each.run_id == run_id]
    mine = [each for each in found if model_uri in (each.source, f"models:/{each.model_id}")]
    version = next((each for each in mine if registry.REPLACED not in each.tags), None)
    earlier = [each for each in found if each is not version]
    if version is None:
        tags = tags | registry.inherited(client, earlier)
        version = client.create_model_version(name, model_uri, run_id=run_id, tags=tags, model_id=model_id)
    registry.replace(client, earlier, version)
    # a server links the model's page to its version by itself, an embedded store does not
    link = json.dumps([{"name": name, "version": int(version.version)}])
    client.set_logged_model_tags(model_id, {"mlflow.modelVersions": link})
    return client.get_model_version(name, version.version)
