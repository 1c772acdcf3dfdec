"""Checkpoints: tensors in `.pt` (loaded with weights_only), facts a person can read in `.json` beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from watkins_ml.errors import UserError, first_line
from watkins_ml.files import write_json, write_tensors


def save_checkpoint(path: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Write `path` (tensors) and its `.json` sibling, each atomically; the tensors seal the pair."""
    write_json(path.with_suffix(".json"), facts)
    write_tensors(path, tensors)


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and facts of a checkpoint.

    Raises:
        UserError: a part is missing or damaged.
    """
    try:
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        return torch.load(path, map_location="cpu", weights_only=True), facts
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such checkpoint") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise UserError(f"{path}: damaged checkpoint ({first_line(error)})") from None
