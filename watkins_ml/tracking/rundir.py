"""The run directory: the local, complete record of one run, and the journal that MLflow's copy is made from."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout

from watkins_ml.config import ExperimentConfig, load_stored
from watkins_ml.core import metric_names
from watkins_ml.core.errors import ResourceError, UsageError, UserError
from watkins_ml.core.files import write_json, write_text
from watkins_ml.core.masking import masked
from watkins_ml.core.wording import differences
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.split import leak_stamp
from watkins_ml.dataset.targets import SPECIES
from watkins_ml.models.bundle_files import LICENCE
from watkins_ml.models.registry import licence_of
from watkins_ml.tracking import journal
from watkins_ml.tracking.environment import DECISIVE, environment, opening_entries
from watkins_ml.tracking.records import TRAIN, Entry, Epoch, Launch, RunFacts, Values
from watkins_ml.tracking.run_files import ARTIFACTS, CHECKPOINTS


class StillTrainingError(ResourceError):
    """Another process holds `RunDirectory.training()`."""


class RunDirectory:
    """One run on disk. `record` appends to the journal; an `Upload` reads from there.

    A process that trains, or closes the record of a training that was killed, holds `training()`; the kernel releases
    that lock however the process ends.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.name = self.root.name
        self.checkpoints = self.root / "checkpoints"
        self.model = self.root / "model"
        """The trained model as a bundle: weights and JSON, see `watkins_ml.models.bundle`."""
        self.history, self.timing = self.root / "history.csv", self.root / "timing.csv"
        self.metrics = self.root / "reports" / "metrics.json"
        self.journal, self.facts_file = self.root / "journal.jsonl", self.root / "run.json"
        self._facts_lock = FileLock(self.root / ".facts.lock")
        self.on_record = lambda: None
        """Called after each journal entry; an `Uploader` sets it, to be woken."""

    @classmethod
    def create(
        cls,
        root: Path | None,
        config: ExperimentConfig,
        data: PreparedData,
        command: str = TRAIN,
        launch: Launch | None = None,
        **part_of: Any,
    ) -> RunDirectory:
        """Start a new run directory with its configuration, facts and first journal entries.

        `part_of` is `study` or `crossval`: the uid and name of the study that the run is a trial of, and the
        trial's number; or of the cross-validation, and the fold.
        """
        if root is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            root = Path("runs") / f"{config.model.name}-{stamp}-{uuid.uuid4().hex[:4]}"
        run = cls(root)
        if run.root.exists() and (not run.root.is_dir() or any(run.root.iterdir())):
            raise UsageError(f"--run-dir {root}: exists and is not empty; name a new folder")
        try:
            run.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise ResourceError(f"cannot write the run directory {root}: {error.strerror}") from None
        run.write_facts(config, data, launch or Launch(), uid=uuid.uuid4().hex, command=command, **part_of)
        run.open_journal(config, data)
        return run

    def write_facts(self, config: ExperimentConfig, data: PreparedData, launch: Launch, **facts: Any) -> None:
        """The configuration and `run.json`, which makes the folder a run directory; `facts` has uid and command."""
        write_text(self.root / "config.yaml", config.to_yaml())
        counts = data.summary["counts"]
        if (licence := licence_of(config.model)) is not None:
            facts[LICENCE] = licence
        if said := launch.model_dump(exclude_defaults=True):
            facts["launch"] = said
        if (which := config.tracking.log_checkpoints) != "best":
            facts["log_checkpoints"] = which
        self.update_facts(
            name=self.name,
            family=config.model.name,
            experiment=launch.experiment or config.tracking.experiment,
            data_digest=data.digest,
            split_protocol=data.protocol,
            **({"task": data.task} if data.task != SPECIES else {}),
            status="RUNNING",
            species=counts["species"],
            **{side: counts[side] for side in ("train", "val", "test")},
            **facts,
        )

    def open_journal(
        self, config: ExperimentConfig, data: PreparedData, params: dict[str, Any] | None = None, **tags: str
    ) -> None:
        """The first entries; a resumed run adds those that a very early kill has left out.

        The record of a study or a cross-validation gives its settings as `params` and `tags` beside its recipe's.
        """
        opening = opening_entries(self.name, self.facts, config, data, params or {}, tags)
        present = {entry.kind for entry in self.entries()}
        for kind, content in opening.items():
            if kind not in present:
                self.record(kind, **content)

    def assert_same(self, config: ExperimentConfig) -> None:
        """Refuse to go on with a configuration that is not the run's own.

        Raises:
            UserError: not a run directory.
            UsageError: the configuration differs; names every differing key.
        """
        if changed := self.changes(config):
            raise UsageError(f"--resume {self.root}: the configuration differs ({'; '.join(changed)}); start a new run")

    def changes(self, config: ExperimentConfig) -> list[str]:
        """In which keys a configuration is not the run's own, with both values; raises where this is no run."""
        _ = self.facts
        return differences(load_stored(self.root / "config.yaml").flat(), config.flat())

    @contextmanager
    def training(self, wait: float = 0) -> Iterator[None]:
        """Be the only process that trains here; `wait` is how many seconds another one has to end.

        Raises:
            StillTrainingError: another one does.
        """
        lock = FileLock(self.root / ".training.lock")
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise StillTrainingError(f"{self.root}: another process is training this run; stop it first") from None
        try:
            yield
        finally:
            lock.release()

    @property
    def facts(self) -> RunFacts:
        """What `run.json` says."""
        try:
            return RunFacts.model_validate(json.loads(self.facts_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, RecursionError):
            raise UserError(f"{self.root}: not a run directory (its run.json is missing or damaged)") from None

    def update_facts(self, **changes: Any) -> None:
        """Change `run.json`; the training, the uploader's thread and `watkins sync` may all do so."""
        with self._facts_lock:
            facts = (self.facts.model_dump(exclude_unset=True) if self.facts_file.exists() else {}) | changes
            if "tracking_uri" in facts:  # earlier versions wrote it with its password
                facts["tracking_uri"] = masked(str(facts["tracking_uri"]))
            RunFacts.model_validate(facts)
            write_json(self.facts_file, facts)

    def record(self, kind: str, **content: Any) -> None:
        """Append one entry to the journal, on the disk before this returns."""
        journal.append(self.journal, kind, content)
        self.on_record()

    def record_once(self, kind: str, **content: Any) -> None:
        """`record`, unless a resumed run comes to an entry that the journal has already."""
        same_kind = (entry.model_dump(exclude_unset=True) for entry in self.entries() if entry.kind == kind)
        if not any(content.items() <= entry.items() for entry in same_kind):
            self.record(kind, **content)

    def entries(self) -> list[Entry]:
        """The journal so far; raises as `journal.read`."""
        return journal.read(self.journal)

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        """Keep one epoch: in the journal for the tracker, and as a row of history and one of timing.

        An epoch that a resumed run repeats with the same result stands in the journal already and keeps its times.
        """
        known = self._epochs().get(int(metrics["epoch"]))
        if known is None or known.metrics != metrics:
            self.record("epoch", step=metrics["epoch"], metrics=metrics, timing=timing)
        else:
            timing = known.timing
        _append_row(self.history, metrics)
        _append_row(self.timing, timing)

    def _epochs(self) -> dict[int, Epoch]:
        """The journal's epochs by number."""
        return {entry.step: entry for entry in self.entries() if isinstance(entry, Epoch)}

    def resume(self, config: ExperimentConfig, data: PreparedData, last: dict[str, Any] | None) -> None:
        """Reset the record to the checkpoint that training resumes from; `last`: its facts, None for the start.

        A kill may have come between any two writes of the attempt before, so each is made again or found done.
        """
        epoch, before = 0 if last is None else last["epoch"], self._epochs()
        self.history.unlink(missing_ok=True)
        self.timing.unlink(missing_ok=True)
        for number, known in sorted(before.items()):
            if number < epoch:
                _append_row(self.history, known.metrics)
                _append_row(self.timing, known.timing)
        if last is not None:  # a kill may have come between the checkpoint and its record
            self.epoch(last["metrics"], last["timing"])
        self.open_journal(config, data)
        self.update_facts(status="RUNNING")
        self.record("resume", epoch=epoch)

    def changed_environment(self, config: ExperimentConfig, data: PreparedData) -> list[str]:
        """What has changed since the run began and can change the last digits of its history (see DECISIVE)."""
        tags = (entry.values for entry in self.entries() if isinstance(entry, Values) and entry.kind == "tags")
        before, now = next(tags, {}), environment(config, data, TRAIN)
        return differences(*({key: each[key] for key in DECISIVE if key in before} for each in (before, now)))

    def finish(self, status: str) -> None:
        """Close the record with FINISHED, FAILED or KILLED; checkpoints are shared only when there is a result."""
        self.update_facts(status=status)
        which = self.facts.log_checkpoints if status == "FINISHED" else "none"
        kept = [name for name in ARTIFACTS if which == "all" or name != CHECKPOINTS]
        kept += [f"{CHECKPOINTS}/best.{end}" for end in ("pt", "json")] if which == "best" else []
        self.record("artifacts", paths=[name for name in kept if (self.root / name).exists()])
        self.record("end", status=status)

    def close_if_dead(self) -> str | None:
        """Finish the record of a training whose process was killed; returns its new status, None if it had ended.

        The caller holds `training()`.
        """
        entries = self.entries()
        if not entries or entries[-1].kind == "end":
            return None
        status = self.facts.status
        self.finish("KILLED" if status == "RUNNING" else status)
        return self.facts.status

    def write_metrics(self, metrics: dict[str, float]) -> None:
        """Keep the final metrics in `reports/metrics.json`, after a sentence where the split leaks."""
        write_json(self.metrics, leak_stamp(self.facts.split_protocol or "") | metrics)

    def read_metrics(self) -> dict[str, float]:
        """The numbers in `reports/metrics.json`; raises a UserError where it is missing or damaged."""
        try:
            content = json.loads(self.metrics.read_text(encoding="utf-8"))
            return metric_names.renamed({key: value for key, value in content.items() if not isinstance(value, str)})
        except (OSError, ValueError, AttributeError):
            raise UserError(f"{self.metrics}: missing or damaged; take it from MLflow or another copy") from None

    def read_history(self) -> pd.DataFrame:
        return pd.read_csv(self.history, float_precision="round_trip")


def _append_row(path: Path, row: dict[str, float]) -> None:
    """One CSV row, with the header before the first; numbers in full so that equal means equal.

    A table that an earlier version began keeps the columns it has.
    """
    with open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        columns = file.readline().rstrip("\n").split(",") if path.stat().st_size else list(row)
        header = "" if path.stat().st_size else ",".join(columns) + "\n"
        file.write(header + ",".join(repr(row[column]) for column in columns) + "\n")
