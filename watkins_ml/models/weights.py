"""Weights files that users name in `model.weights`."""

from __future__ import annotations

from pathlib import Path

import torch

from watkins_ml.core.errors import UserError
from watkins_ml.core.tensor_files import why


def load_weights(path: Path, known: str) -> dict[str, torch.Tensor]:
    """The state dict of a file, on the CPU; no pickled code is run.

    Args:
        known: what else `model.weights` may be, beside none.

    Raises:
        UserError: no such file, or it is none that can be loaded safely.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device has no end
        raise UserError(f"model.weights {path}: not a file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"model.weights {path}: no such file (or write {known} or none)") from None
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        raise UserError(f"model.weights {path}: not a weights file that can be loaded safely ({why(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"model.weights {path}: expected a state dict of tensors")
    return state
