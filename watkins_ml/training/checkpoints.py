"""Checkpoints: one self-contained `.pt` each (loaded with weights_only), its facts to read in `.json` beside it."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from watkins_ml.core.console import err
from watkins_ml.core.distributed import SingleProcess
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_json, write_tensors
from watkins_ml.core.tensor_files import why

FACTS = "facts"


class Checkpoint(NamedTuple):
    """What an exact continuation needs: tensors (and containers of them), and facts that JSON can say."""

    tensors: dict[str, Any]
    facts: dict[str, Any]


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `path` whole or not at all; the facts are inside too, so that the pair can never disagree."""
    write_tensors(path, {FACTS: json.dumps(checkpoint.facts, allow_nan=False), **checkpoint.tensors})
    write_json(path.with_suffix(".json"), checkpoint.facts)


def save_last(folder: Path, checkpoint: Checkpoint) -> None:
    """Write `last.pt` and keep the one before as `previous.pt`: at every moment one of them is sound."""
    fresh = folder / "next.pt"
    save_checkpoint(fresh, checkpoint)
    if (folder / "last.pt").exists():
        os.replace(folder / "last.pt", folder / "previous.pt")
    os.replace(fresh, folder / "last.pt")
    os.replace(fresh.with_suffix(".json"), folder / "last.json")


def drop_previous(folder: Path) -> None:
    """Remove the spare checkpoint of a run that has its result."""
    (folder / "previous.pt").unlink(missing_ok=True)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest sound one of `last.pt` and `previous.pt`; None where there is none, so that training starts over."""
    for path in (folder / "last.pt", folder / "previous.pt"):
        if path.exists():
            try:
                return load_checkpoint(path)
            except UserError as error:
                err.print(f"{error}; going back to the one before", style="yellow")
    return None


def broadcast_checkpoint(checkpoint: Checkpoint | None, group: SingleProcess) -> Checkpoint | None:
    """The first process's checkpoint in all processes, for only its machine need have the run directory."""
    tensors = group.broadcast_tensors(checkpoint and {FACTS: json.dumps(checkpoint.facts), **checkpoint.tensors})
    return None if tensors is None else Checkpoint(tensors, json.loads(tensors.pop(FACTS)))


def load_checkpoint(path: Path) -> Checkpoint:
    """Tensors and facts of a checkpoint, on the CPU.

    Raises:
        UserError: missing, torn or damaged.
    """
    try:
        content = path.read_bytes()
        if damaged := zipfile.ZipFile(io.BytesIO(content)).testzip():  # torch itself does not look at the checksums
            raise ValueError(f"wrong checksum of {damaged}")
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return Checkpoint(tensors, json.loads(tensors.pop(FACTS)))
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(f"{path}: damaged checkpoint ({why(error)})") from None
