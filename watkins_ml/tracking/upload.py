"""Sends a run directory's journal to MLflow: each entry once, whichever process sends it and after any interruption."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from watkins_ml.core.confined import inside, plain_files
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_json
from watkins_ml.core.metric_names import BEST_VAL, CONTROL, TEST, on_server
from watkins_ml.core.server_names import check_model
from watkins_ml.models.bundle_files import bundle_digest, copy_bundle
from watkins_ml.tracking import records, registry
from watkins_ml.tracking.descriptions import describe
from watkins_ml.tracking.faults import NOT_MLFLOW, Fault, TrackingError, deleted
from watkins_ml.tracking.model_upload import log_model, register_model
from watkins_ml.tracking.records import KINDS, Artifacts, Datasets, End, Entry, Epoch, Metrics, Resume, Start, Values
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client, is_same_server, stored_address, tracking_uri
from watkins_ml.tracking.server_run import UID_TAG, ServerRun

RESUMED_TAG = "watkins.resumed_after_epoch"
SPLIT_SCHEMA = [
    {"name": name, "type": "long" if name == "label" else "string", "required": True}
    for name in ("path", "species", "label", "tape", "spectrogram")
]
MOST_PARAMS = 100
"""That MLflow takes at once."""


class Upload:
    """Sends what the server has not received yet; calling it again changes nothing.

    `upload.json` in the run directory remembers the server, the MLflow run and how many journal
    entries it has. Every step can be repeated after a kill: MLflow keeps equal metrics, parameters
    and tags once, and runs, models and versions are looked up before they are created. Only one
    process at a time sends a run.
    """

    def __init__(self, run: RunDirectory):
        self.run = run
        self.state_file = run.root / "upload.json"
        self.uri = tracking_uri()
        self.server = stored_address(self.uri, run.root)
        self.state = self._read_state()
        self.messages: list[str] = []
        self._lock = FileLock(run.root / ".upload.lock")
        self._known_there = False

    def send(self) -> int:
        """Send all entries that are in the journal now and say how many; raises whatever MLflow raises."""
        with self._lock:
            self.state = self._read_state()  # another process may have been sending meanwhile
            entries = self.run.entries()
            self.client = client()
            self._find_run()
            before, model = self.state["sent"], _last_model(entries)
            for number in range(before, len(entries)):
                if entries[number].kind != "model" or number == model:  # an earlier one is overtaken
                    self._send(entries[number])
                self._save_state(sent=number + 1)
            if model is not None and model < before:
                self._resend_model(entries[model])
            return len(entries) - before

    @property
    def run_id(self) -> str:
        return self.state["run_id"]

    @property
    def missing(self) -> int:
        """How many journal entries the server has not received."""
        return len(self.run.entries()) - self._read_state()["sent"]

    def _read_state(self) -> dict[str, Any]:
        try:
            state = json.loads(self.state_file.read_text(encoding="utf-8"))
            if not isinstance(state["sent"], int):
                raise ValueError
        except (OSError, ValueError, TypeError, KeyError):  # none yet, or torn: sending again changes nothing
            state = {}
        if not is_same_server(self.uri, str(state.get("tracking_uri", "")), self.run.root):
            state = {"sent": 0}
        return state | {"tracking_uri": self.server}

    def _save_state(self, **changes: Any) -> None:
        self.state |= changes
        write_json(self.state_file, self.state)

    def _find_run(self) -> None:
        """Start again if the server has no such run: its store was deleted, restored from a backup, or is another."""
        if self._known_there or "run_id" not in self.state:
            return
        try:
            found = self.client.get_run(self.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            found = None
        if found is None or found.data.tags.get(UID_TAG) != self.run.facts.uid:
            self.state = {"tracking_uri": self.server, "sent": 0}
            return
        if not found.info.run_id:
            raise TrackingError(Fault(NOT_MLFLOW, "correct the host or the port"))
        if found.info.lifecycle_stage == "deleted":
            experiment = self.client.get_experiment(found.info.experiment_id)
            if experiment.lifecycle_stage == "deleted":  # and all runs with it
                raise TrackingError(deleted("experiment", experiment.experiment_id, self.uri))
            fault = deleted("run", self.run_id, self.uri)
            raise TrackingError(replace(fault, remedy=f"{fault.remedy}, or delete {self.state_file} to send it anew"))
        self._known_there = True

    def _send(self, entry: Entry) -> None:
        sender = getattr(self, f"_send_{entry.kind}", None) if entry.kind in KINDS else None
        if sender is None:
            raise UserError(f"{self.run.journal}: has an entry '{entry.kind}', which needs a newer watkins_ml")
        sender(entry)

    def _send_start(self, entry: Start) -> None:
        run_id = ServerRun(self.client, self.uri, self._say).begin(entry, self.run.facts)
        self.state |= {"run_id": run_id, "sections": True}
        self.run.update_facts(mlflow_run_id=run_id, tracking_uri=self.server)

    def _say(self, message: str) -> None:
        """Once, however often the journal's first entry has to be sent again."""
        if message not in self.messages:
            self.messages.append(message)

    def _send_resume(self, entry: Resume) -> None:
        self.client.update_run(self.run_id, status="RUNNING")
        if entry.epoch is not None:
            self.client.set_tag(self.run_id, RESUMED_TAG, str(entry.epoch))

    def _send_params(self, entry: Values) -> None:
        given = self.run.facts.launch.run_id is not None  # a scheduler's own parameters cannot be changed
        known = self.client.get_run(self.run_id).data.params if given else {}
        params = [Param(key, str(value)) for key, value in entry.values.items() if key not in known]
        for first in range(0, len(params), MOST_PARAMS):
            self.client.log_batch(self.run_id, params=params[first : first + MOST_PARAMS])

    def _send_tags(self, entry: Values) -> None:
        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in entry.values.items()])

    def _send_epoch(self, entry: Epoch) -> None:
        self._log_metrics(
            entry, {key: value for key, value in (entry.metrics | entry.timing).items() if key != "epoch"}
        )

    def _send_metrics(self, entry: Metrics) -> None:
        self._log_metrics(entry, entry.values)

    def _log_metrics(self, entry: Epoch | Metrics, values: dict[str, float]) -> None:
        """Under the names that the first ones were sent by: those of earlier versions have no sections."""
        named = on_server if self.state.get("sections") else str
        metrics = [Metric(named(key), value, entry.time_ms, entry.step) for key, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def _log_scores(self, model_uri: str) -> None:
        """Give the logged model the final metrics of its run, each with the side of the data that it is of."""
        entries = self.run.entries()
        final = next((entry for entry in reversed(entries) if isinstance(entry, Metrics)), None)
        data = next((entry for entry in entries if isinstance(entry, Datasets)), None)
        if final is None or data is None or not self.state.get("sections"):
            return
        model_id, scores = model_uri.removeprefix("models:/"), []
        for key, value in final.values.items():
            sides = {TEST: "test", CONTROL: "test", BEST_VAL: "val"}
            side = next((side for start, side in sides.items() if key.startswith(start)), None)
            of = {} if side is None else {"dataset_name": side, "dataset_digest": data.digest}
            scores.append(Metric(on_server(key), value, final.time_ms, final.step, model_id=model_id, **of))
        self.client.log_batch(self.run_id, metrics=scores)

    def _send_datasets(self, entry: Datasets) -> None:
        inputs, schema = [], json.dumps({"mlflow_colspec": SPLIT_SCHEMA})
        for name, side in entry.sides.items():
            source, profile = json.dumps({"uri": side.source}), json.dumps({"num_rows": side.rows})
            data = Dataset(name, entry.digest, "local", source, schema, profile)
            inputs.append(DatasetInput(data, [InputTag("mlflow.data.context", name)]))
        self.client.log_inputs(self.run_id, inputs)

    def _send_artifacts(self, entry: Artifacts) -> None:
        for name in entry.paths:
            path = inside(self.run.root, name, self.run.journal)
            for _ in plain_files(self.run.root, name, self.run.journal):
                pass  # each may be sent
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), name)
            else:
                self.client.log_artifact(self.run_id, str(path), name.rpartition("/")[0] or None)

    def _send_model(self, entry: records.Model) -> None:
        """Log the model as it is on the disk, register a version of it, and let that claim the alias, each once."""
        with tempfile.TemporaryDirectory(prefix="watkins-") as folder:
            digest = copy_bundle(self.run.model, bundle := Path(folder) / "bundle")
            if digest is None:
                raise UserError(f"{self.run.model}: no trained model here (model.json is missing)")
            self._save_state(model_uri=log_model(self.client, self.run_id, bundle, digest))
        self._log_scores(self.state["model_uri"])
        if (name := entry.register_as) is not None:
            check_model(name, self.run.journal)
            version = register_model(self.client, self.run_id, self.state["model_uri"], name, entry.tags)
            describe(self.client, version, self.run)
            self.run.update_facts(registered_model=name, model_version=int(version.version))
            self.messages.append(registry.promote_if_better(self.client, version).reason)
        self._save_state(bundle=digest)

    def _resend_model(self, entry: Entry) -> None:
        """Send the model again where the run's own is not what was sent, as earlier versions did from a study."""
        before = self.state.get("model_uri")
        if bundle_digest(self.run.model) not in (None, self.state.get("bundle")):
            self._send(entry)
            if before not in (None, self.state["model_uri"]):
                self.messages.append(f"{self.run.root}: the model sent before was not the run's own; it was sent again")

    def _send_end(self, entry: End) -> None:
        if entry.status == "RUNNING":  # a study that continues, or has ended, on another machine
            return
        self.client.set_terminated(self.run_id, entry.status, entry.time_ms)


def _last_model(entries: list[Entry]) -> int | None:
    """The place in the journal of the entry that tells what became of the run's model."""
    return max((number for number, entry in enumerate(entries) if entry.kind == "model"), default=None)
