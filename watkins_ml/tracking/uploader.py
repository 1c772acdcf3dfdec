"""Ships a run directory's journal to MLflow, in the background, never raising into the training."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import LoggedModelStatus

from watkins_ml.console import err
from watkins_ml.errors import first_line
from watkins_ml.files import write_json
from watkins_ml.tracking import registry
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client, experiment_id, tracking_uri

UID_TAG = "watkins.uid"
ARTIFACTS = ("config.yaml", "history.csv", "timing.csv", "run.json", "reports", "preds", "misclassified",
             "galleries", "plots", "checkpoints")  # fmt: skip
SERVED_MODEL = Path(__file__).with_name("served_model.py")


class Shipment:
    """Sends what the server has not received yet; calling it again changes nothing.

    `upload.json` in the run directory remembers the server, the MLflow run and how many journal
    entries it has. Every step can be repeated after a kill: MLflow keeps equal metrics, parameters
    and tags once, and runs and model versions are looked up before they are created.
    """

    def __init__(self, run: RunDirectory):
        self.run = run
        self.state_file = run.root / "upload.json"
        self.uri = tracking_uri()
        state = json.loads(self.state_file.read_text()) if self.state_file.exists() else {}
        self.state = state if state.get("tracking_uri") == self.uri else {"tracking_uri": self.uri, "sent": 0}
        self.messages: list[str] = []

    def send(self) -> None:
        """Ship all entries that are in the journal now; raises whatever MLflow raises."""
        entries = self.run.entries()
        if len(entries) <= self.state["sent"]:
            return
        self.client = client()
        for number, entry in enumerate(entries):
            if number < self.state["sent"]:
                continue
            getattr(self, f"_send_{entry['kind']}")(entry)
            self.state["sent"] = number + 1
            write_json(self.state_file, self.state)

    @property
    def run_id(self) -> str:
        return self.state["run_id"]

    def _send_start(self, entry: dict[str, Any]) -> None:
        experiment = experiment_id(self.client, entry["experiment"])
        found = self.client.search_runs([experiment], f"tags.`{UID_TAG}` = '{entry['uid']}'", max_results=1)
        if found:
            run_id = found[0].info.run_id
        else:
            run_id = self.client.create_run(
                experiment, start_time=entry["time_ms"], run_name=entry["name"], tags={UID_TAG: entry["uid"]}
            ).info.run_id
        self.state["run_id"] = run_id
        self.run.update_facts(mlflow_run_id=run_id, tracking_uri=self.uri)

    def _send_params(self, entry: dict[str, Any]) -> None:
        from mlflow.entities import Param

        self.client.log_batch(self.run_id, params=[Param(key, str(value)) for key, value in entry["values"].items()])

    def _send_tags(self, entry: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in entry["values"].items()])

    def _send_metrics(self, entry: dict[str, Any]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(key, value, entry["time_ms"], entry["step"]) for key, value in entry["values"].items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _send_datasets(self, entry: dict[str, Any]) -> None:
        import mlflow
        from mlflow.entities import DatasetInput, InputTag

        inputs = []
        for side in ("train", "val", "test"):
            source = Path(entry["data_dir"]) / "annotations" / f"{side}.csv"
            if source.exists():
                table = pd.read_csv(source)
                data = mlflow.data.from_pandas(table, source=str(source), name=f"{side}", digest=entry["digest"])
                inputs.append(DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", side)]))
        self.client.log_inputs(self.run_id, inputs)

    def _send_artifacts(self, entry: dict[str, Any]) -> None:
        for name in ARTIFACTS:
            path = self.run.root / name
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), name)
            elif path.exists():
                self.client.log_artifact(self.run_id, str(path))

    def _send_model(self, entry: dict[str, Any]) -> None:
        """Log the model once, register a version of it once, and let it claim the champion alias."""
        if "model_uri" not in self.state:
            self.state["model_uri"] = self._logged_model() or log_model(self.run, self.run_id)
            write_json(self.state_file, self.state)
        name = entry["register_as"]
        if name is None:
            return
        version = self._registered_version(name, entry["tags"])
        self.run.update_facts(registered_model=name, model_version=int(version.version))
        self.messages.append(registry.promote_if_better(self.client, version).reason)

    def _logged_model(self) -> str | None:
        """The URI of a model that this run has on the server already."""
        for output in self.client.get_run(self.run_id).outputs.model_outputs:
            model = self.client.get_logged_model(output.model_id)
            if model.status == LoggedModelStatus.READY:
                return model.model_uri
        return None

    def _registered_version(self, name: str, tags: dict[str, str]):
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        for found in self.client.search_model_versions(f"name='{name}'"):
            if found.run_id == self.run_id:
                return self.client.get_model_version(name, found.version)
        model_id = self.state["model_uri"].removeprefix("models:/")
        created = self.client.create_model_version(
            name, self.state["model_uri"], run_id=self.run_id, tags=tags, model_id=model_id
        )
        return self.client.get_model_version(name, created.version)

    def _send_end(self, entry: dict[str, Any]) -> None:
        self.client.set_terminated(self.run_id, entry["status"], entry["time_ms"])


def log_model(run: RunDirectory, run_id: str) -> str:
    """Log a run's bundle as an MLflow model that takes audio; returns its URI."""
    import mlflow
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Map

    from watkins_ml import __version__

    example = run.model / "example.wav"
    server = client()
    tracked = server.get_run(run_id)
    logged = server.create_logged_model(  # Model.log alone would put it into the experiment Default
        tracked.info.experiment_id, name="model", source_run_id=run_id, params=tracked.data.params
    )
    info = Model.log(
        artifact_path=None,
        name="model",
        model_id=logged.model_id,
        flavor=mlflow.pyfunc,
        run_id=run_id,
        python_model=str(SERVED_MODEL),
        artifacts={"bundle": str(run.model)},
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.binary, "audio")]),
            outputs=Schema(
                [
                    ColSpec(DataType.string, "species"),
                    ColSpec(DataType.double, "probability"),
                    ColSpec(Map(DataType.double), "probabilities"),
                ]
            ),
        ),
        input_example=pd.DataFrame({"audio": [example.read_bytes()]}),
        pip_requirements=[f"watkins-ml=={__version__}"],
    )
    return info.model_uri


class Uploader:
    """A thread that ships a run's journal while the run goes on; its faults are told once, never raised."""

    def __init__(self, run: RunDirectory, system_metrics: bool = False):
        self.shipment = Shipment(run)
        self._system_metrics, self._monitor = system_metrics, None
        self._wake, self._closing, self._warned = threading.Event(), threading.Event(), False
        self._thread = threading.Thread(target=self._loop, name="uploader", daemon=True)
        run.on_record = self._wake.set

    def __enter__(self) -> Uploader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for what is still under way, so that a finished command means a complete MLflow run."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        if self._monitor is not None:
            self._monitor.finish()
        for message in self.shipment.messages:
            err.print(message)

    def _loop(self) -> None:
        pause = 1.0
        while True:
            self._wake.wait()
            self._wake.clear()
            last = self._closing.is_set()
            try:
                self.shipment.send()
                self._watch_system()
                pause = 1.0
            except Exception as error:  # whatever the tracker does, the training goes on
                self._warn(error)
                if not last:
                    self._closing.wait(pause)
                    self._wake.set()
                    pause = min(2 * pause, 60.0)
            if last:
                return

    def _watch_system(self) -> None:
        """Start MLflow's own monitor of CPU, memory and GPU once the MLflow run exists."""
        if self._system_metrics and self._monitor is None and "run_id" in self.shipment.state:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.shipment.run_id)
            self._monitor.start()

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            err.print(
                f"Tracking server {self.shipment.uri} failed ({first_line(error)}). The run goes on and is complete in "
                f"{self.shipment.run.root}; send it later with: watkins sync {self.shipment.run.root}",
                style="yellow",
            )
