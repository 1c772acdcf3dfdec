"""The run directory: the local, complete record of one run, and the journal that MLflow's copy is made from."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import threading
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from watkins_ml.config import ExperimentConfig
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.errors import UsageError, UserError
from watkins_ml.files import write_json, write_text

LIBRARIES = ("torch", "torchvision", "torchaudio", "mlflow", "numpy", "scikit-learn")


class RunDirectory:
    """One run on disk. `record` appends to the journal; whoever ships it reads from there."""

    def __init__(self, root: Path):
        self.root = Path(root)
        self._facts_lock = threading.Lock()
        self.on_record = lambda: None
        """Called after each journal entry; an uploader hangs itself in here."""

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained model as a bundle: weights and JSON, see `watkins_ml.inference.bundle`."""
        return self.root / "model"

    @property
    def history(self) -> Path:
        return self.root / "history.csv"

    @property
    def timing(self) -> Path:
        return self.root / "timing.csv"

    @property
    def metrics(self) -> Path:
        return self.root / "reports" / "metrics.json"

    @property
    def journal(self) -> Path:
        return self.root / "journal.jsonl"

    @property
    def facts_file(self) -> Path:
        return self.root / "run.json"

    @classmethod
    def create(cls, root: Path | None, config: ExperimentConfig, data: PreparedData) -> RunDirectory:
        """Start a new run directory with its configuration, facts and first journal entries."""
        if root is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            root = Path("runs") / f"{config.model.name}-{stamp}-{uuid.uuid4().hex[:4]}"
        run = cls(root)
        if run.root.exists() and (not run.root.is_dir() or any(run.root.iterdir())):
            raise UsageError(f"--run-dir {root}: exists and is not empty; name a new folder")
        try:
            run.checkpoints.mkdir(parents=True)
        except OSError as error:
            raise UserError(f"cannot write the run directory {root}: {error.strerror}") from None
        write_text(run.root / "config.yaml", config.to_yaml())
        counts = data.summary["counts"]
        run.update_facts(
            name=run.name,
            uid=uuid.uuid4().hex,
            family=config.model.name,
            experiment=config.tracking.experiment,
            data_digest=data.digest,
            split_protocol=data.protocol,
            status="RUNNING",
            species=counts["species"],
            **{side: counts[side] for side in ("train", "val", "test")},
        )
        run.record("start", name=run.name, uid=run.facts["uid"], experiment=config.tracking.experiment)
        run.record("params", values=config.flat())
        run.record("tags", values=_tags(config, data))
        run.record("datasets", data_dir=str(data.folder.root.resolve()), digest=data.digest)
        return run

    @property
    def facts(self) -> dict[str, Any]:
        """What `run.json` says: name, model family, data digest, split protocol, status, counts."""
        try:
            return json.loads(self.facts_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UserError(f"{self.root}: not a run directory (its run.json is missing or damaged)") from None

    def update_facts(self, **changes: Any) -> None:
        """Change `run.json`; the training and the uploader's thread may both do so."""
        with self._facts_lock:
            facts = self.facts if self.facts_file.exists() else {}
            write_json(self.facts_file, facts | changes)

    def record(self, kind: str, **content: Any) -> None:
        """Append one entry to the journal, on the disk before this returns."""
        entry = {"kind": kind, "time_ms": int(time.time() * 1000), **content}
        with open(self.journal, "ab+") as journal:
            _cut_torn_line(journal)
            journal.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            journal.flush()
            os.fsync(journal.fileno())
        self.on_record()

    def entries(self) -> list[dict[str, Any]]:
        """The journal so far; a line torn by a kill is not an entry."""
        lines = self.journal.read_bytes().split(b"\n")[:-1]
        return [json.loads(line) for line in lines]

    def epoch(self, metrics: dict[str, float], timing: dict[str, float]) -> None:
        """Keep one epoch: a row of history, a row of timing, one batch of metrics for the tracker."""
        _append_row(self.history, metrics)
        _append_row(self.timing, timing)
        values = {name: value for name, value in (metrics | timing).items() if name != "epoch"}
        self.record("metrics", step=int(metrics["epoch"]), values=values)

    def finish(self, status: str) -> None:
        """Close the record with FINISHED, FAILED or KILLED."""
        self.update_facts(status=status)
        self.record("end", status=status)

    def read_history(self) -> pd.DataFrame:
        return pd.read_csv(self.history)


def _cut_torn_line(journal: BinaryIO) -> None:
    """Remove what a full disk or a kill left of an entry, lest the next one be glued to it."""
    journal.seek(0)
    content = journal.read()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        journal.truncate(whole)


def _append_row(path: Path, row: dict[str, float]) -> None:
    """One CSV row, with the header before the first; numbers in full so that equal means equal."""
    header = "" if path.exists() else ",".join(row) + "\n"
    with open(path, "a", encoding="utf-8") as file:
        file.write(header + ",".join(repr(value) for value in row.values()) + "\n")


def _tags(config: ExperimentConfig, data: PreparedData) -> dict[str, str]:
    import torch

    from watkins_ml.device import choose_device

    device = choose_device(config.train.device)
    tags = {
        "git_commit": _git_commit(),
        "data_digest": data.digest,
        "split_protocol": data.protocol,
        "model_family": config.model.name,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "host": socket.gethostname(),
        "python": platform.python_version(),
    }
    return tags | {f"version.{name}": version(name) for name in LIBRARIES}


def _git_commit() -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
