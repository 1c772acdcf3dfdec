"""What a run's result depends on beside its configuration, and the first entries of its journal, which say so."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

from watkins_ml.config import ExperimentConfig
from watkins_ml.core.names import spelled
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.split import leak_stamp
from watkins_ml.models.bundle_files import LICENCE
from watkins_ml.models.registry import licence_of
from watkins_ml.tracking.launch import NOTE_TAG
from watkins_ml.tracking.records import RunFacts

LIBRARIES = ("torch", "torchvision", "torchaudio", "mlflow", "numpy", "scikit-learn")
TRIAL_FOLDER = re.compile(r"trial-(\d+)")
DECISIVE = ("device", "processes", "threads", "version.torch")
"""Where these are equal, the same configuration and seed give the same history to the last digit."""


def environment(config: ExperimentConfig, data: PreparedData, command: str) -> dict[str, str]:
    """Data, code, device, host and versions, as tags of the tracked run."""
    import torch

    from watkins_ml.core.device import choose_device
    from watkins_ml.core.distributed import current

    device, commit = choose_device(config.train.device), _git_commit()
    stamp = leak_stamp(data.protocol)
    tags = {
        "git_commit": commit,
        "data_digest": data.digest,
        "split_protocol": data.protocol,
        "task": data.task,
        "model_family": config.model.name,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{device.type} ({platform.machine()})",
        "processes": str(current().world_size),
        "threads": str(torch.get_num_threads()),
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "mlflow.user": os.environ.get("USER") or os.environ.get("USERNAME") or "unknown",
        "mlflow.source.name": command,
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit.removesuffix("-dirty"),
    }
    if (licence := licence_of(config.model)) is not None:
        tags[LICENCE] = licence
    if stamp:
        tags |= stamp | {NOTE_TAG: stamp["leaky_reference"]}  # the note opens the run's page
    return tags | {f"version.{name}": version(name) for name in LIBRARIES}


def opening_entries(
    name: str,
    facts: RunFacts,
    config: ExperimentConfig,
    data: PreparedData,
    params: dict[str, Any],
    tags: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """Content by kind of the entries that open a journal, in their order; `params` and `tags` beside the run's own."""
    launch = facts.launch
    start: dict[str, Any] = {"name": launch.name or name, "uid": facts.uid}
    start["experiment"] = launch.experiment or config.tracking.experiment
    for kind, number, whole in (("study", "trial", facts.study), ("crossval", "fold", facts.crossval)):
        if whole is not None:
            of = f" of {whole.total}" if whole.total else ""
            # a trial that goes on elsewhere has another number, and the folder of the first
            part = found[1].lstrip("0") or "0" if (found := TRIAL_FOLDER.fullmatch(name)) else getattr(whole, number)
            start |= {"name": f"{number} {part}{of}, {whole.name}"}
            start |= {"parent": {"uid": whole.uid, "name": whole.name}}
            tags = tags | {f"watkins.{kind}": whole.name, f"watkins.{number}": str(getattr(whole, number))}
    tags = launch.tags | environment(config, data, facts.command) | tags
    if (note := launch.tags.get(NOTE_TAG)) and note != tags[NOTE_TAG]:  # the split's warning stands there too
        tags[NOTE_TAG] = f"{note}\n\n{tags[NOTE_TAG]}"
    return {
        "start": start,
        "params": {"values": config.flat() | params},
        "tags": {"values": tags},
        "datasets": {"digest": data.digest, "sides": _datasets(data)},
    }


def _datasets(data: PreparedData) -> dict[str, Any]:
    """Source and size of each side for MLflow; kept here, for the folder may be gone when the journal is sent."""
    folder, has_tables = data.folder, "fold" not in data.summary  # the sides of a fold stand in no table of their own
    return {
        side: {
            "source": spelled((folder.side(side) if has_tables else folder.annotations).resolve()),
            "rows": len(frame),
        }
        for side, frame in data.sides.items()
    }


def _git_commit() -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
