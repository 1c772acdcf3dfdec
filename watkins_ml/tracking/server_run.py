"""Which run on a server is a run directory's: found by its uid, the one that the launch named, or made now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from watkins_ml.tracking.descriptions import EXPERIMENT_NOTE
from watkins_ml.tracking.launch import NOTE_TAG
from watkins_ml.tracking.records import RunFacts, Start
from watkins_ml.tracking.server import experiment_id

UID_TAG = "watkins.uid"
PARENT_TAG = "mlflow.parentRunId"
_CREATING_RUN = threading.Lock()
"""A cross-validation and its folds are sent by threads of one process, which must not both create the parent."""


class ServerRun:
    """Begins a run on a server, once however often it is asked to; `say` gets what a user should know, once each."""

    def __init__(self, client: MlflowClient, uri: str, say: Callable[[str], None]):
        self.client, self.uri, self.say = client, uri, say

    def begin(self, entry: Start, facts: RunFacts) -> str:
        """The id of the run that the first entry of a journal begins."""
        launch = facts.launch
        given = self._given(launch.run_id or launch.parent_run_id)
        experiment = given.info.experiment_id if given else self._experiment(entry, launch.experiment_id)
        shared = facts.is_study or facts.folds is not None  # a part of it may just be creating it
        with _CREATING_RUN if facts.folds is not None or facts.crossval else nullcontext():
            mine = given if launch.run_id else None
            run_id = self._get_or_create(experiment, entry.uid, entry.name, entry.time_ms, shared, mine)
            if mine is not None and run_id == mine.info.run_id:  # its scheduler may have given it a name
                self.client.update_run(run_id, status="RUNNING", name=launch.name)
            if parent := entry.parent:  # of a trial or fold: from another machine it may not have been sent yet
                now = int(time.time() * 1000)
                whole = self._get_or_create(experiment, parent.uid, parent.name, now, shared=True)
                self.client.set_tag(run_id, PARENT_TAG, whole)
        return run_id

    def _given(self, run_id: str | None) -> Run | None:
        """The run that the launch named, unless it is not on this server: then there will be a new one."""
        try:
            return None if run_id is None else self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.say(f"MLFLOW_RUN_ID: {self.uri} has no run {run_id}; this is a new run there")
            return None

    def _experiment(self, entry: Start, number: str | None) -> str:
        """The number of the run's experiment: that which the launch named if it is there, else by its name."""
        try:
            if number is not None and self.client.get_experiment(number).lifecycle_stage == "active":
                return number
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
        if number is not None:
            self.say(f"MLFLOW_EXPERIMENT_ID: {self.uri} has no experiment {number}; the run is in {entry.experiment}")
        return experiment_id(self.client, entry.experiment, {NOTE_TAG: EXPERIMENT_NOTE})

    def _get_or_create(
        self, experiment: str, uid: str, name: str, time_ms: int, shared: bool, given: Run | None = None
    ) -> str:
        """The MLflow run of this uid, or the one `given` if it is nobody's yet.

        Where two machines create one at the same moment, both take the older one.
        """

        def find() -> list[str]:
            oldest_first = ["attributes.start_time ASC", "attributes.run_id ASC"]
            found = self.client.search_runs([experiment], f"tags.`{UID_TAG}` = '{uid}'", order_by=oldest_first)
            return [run.info.run_id for run in found]

        if found := find():
            return found[0]
        if given is not None and _is_free(given):
            self.client.set_tag(given.info.run_id, UID_TAG, uid)
            return given.info.run_id
        if given is not None:
            self.say(
                f"MLFLOW_RUN_ID: {given.info.run_id} has ended, is deleted or another training's; this is a new run"
            )
        mine = self.client.create_run(experiment, start_time=time_ms, run_name=name, tags={UID_TAG: uid}).info.run_id
        if shared:
            time.sleep(1.0)  # until another process that found nothing either has created its run
            if mine != (oldest := find()[0]):  # not deleted: an account that may log may not delete
                self.client.set_tag(mine, UID_TAG, f"superseded {uid}")
                self.client.set_terminated(mine, "KILLED")
                return oldest
        return mine


def _is_free(run: Run) -> bool:
    """Whether a run waits to be gone on with; a run directory from elsewhere must not write into any other."""
    waits = run.info.lifecycle_stage == "active" and run.info.status in ("RUNNING", "SCHEDULED")
    return waits and UID_TAG not in run.data.tags
