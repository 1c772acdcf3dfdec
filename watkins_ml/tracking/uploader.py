"""Sends a run's journal to MLflow in the background, never raising into the training."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from watkins_ml.core.console import err
from watkins_ml.core.wording import plural
from watkins_ml.tracking.faults import diagnose
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.upload import Upload

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

QUIET_SECONDS = 3.0
"""Seconds of silent waiting for the tracker at the end of a run."""
TRANSIENT, PERMANENT = "transient", "permanent"
"""What the user has been warned of."""


class Uploader:
    """A thread that sends a run's journal while the run goes on; its faults are reported once, never raised."""

    def __init__(self, run: RunDirectory, system_metrics: bool = False):
        self.upload = Upload(run)
        self._system_metrics = system_metrics
        self._monitor: SystemMetricsMonitor | None = None
        self._wake, self._closing = threading.Event(), threading.Event()
        self._warned: str | None = None
        self._thread = threading.Thread(target=self._loop, name="uploader", daemon=True)
        run.on_record = self._wake.set

    def __enter__(self) -> Uploader:
        self.start()
        return self

    def start(self) -> None:
        self._wake.set()  # so that the run is in the UI before its first epoch ends
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self.close()
        self.join()

    def close(self) -> None:
        """Nothing more will be recorded; the rest is sent in the background."""
        self._closing.set()
        self._wake.set()

    def join(self) -> None:
        """Wait for the rest of the upload, so that a finished command means a complete MLflow run."""
        try:
            self._thread.join(timeout=QUIET_SECONDS)
            if self._thread.is_alive():
                err.print(f"Sending the rest to {self.upload.uri} (Ctrl-C leaves it to `watkins sync`)")
                self._thread.join()
        except KeyboardInterrupt:
            pass
        if self._monitor is not None:
            self._monitor.finish()
        for message in self.upload.messages:
            err.print(message)
        if missing := self.upload.missing:
            root, entries = self.upload.run.root, plural(missing, "journal entry", "journal entries")
            err.print(
                f"{entries} of {root} did not reach {self.upload.uri}; send the rest with: watkins sync {root}",
                style="yellow",
            )
        elif self._warned:
            err.print(f"Tracking server {self.upload.uri} has now received the whole run")

    def _loop(self) -> None:
        pause = 1.0
        while True:
            self._wake.wait()
            self._wake.clear()
            last = self._closing.is_set()
            try:
                self.upload.send()
                self._watch_system()
                pause = 1.0
            except Exception as error:  # whatever the tracker raises, the training goes on
                self._warn(error)
                if not last:
                    self._closing.wait(pause)
                    self._wake.set()
                    pause = min(2 * pause, 60.0)
            if last:
                return

    def _watch_system(self) -> None:
        """Start MLflow's own monitor of CPU, memory and GPU once the MLflow run exists."""
        if self._system_metrics and self._monitor is None and "run_id" in self.upload.state:
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.upload.run_id)
            self._monitor.start()

    def _warn(self, error: Exception) -> None:
        """Report the first fault, and once more where a permanent one follows a transient one."""
        if self._warned == PERMANENT:
            return
        fault = diagnose(error, self.upload.uri)
        if not (fault.transient and self._warned):
            then = "what is missing there is sent as soon as it answers again"
            if not fault.transient:
                then = f"waiting does not help here, but nothing is lost: everything is in {self.upload.run.root}"
            message = f"Tracking server {self.upload.uri} failed ({fault}). The training goes on; {then}"
            err.print(message, style="yellow")
        self._warned = TRANSIENT if fault.transient else PERMANENT
