"""The files of a trained model, for whoever compares or copies them without loading the model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from watkins_ml.audio.ensemble_settings import MOST_MEMBERS
from watkins_ml.core.errors import UserError

DESCRIPTION, WEIGHTS, NOVELTY, EXAMPLE = "model.json", "weights.pt", "novelty.pt", "example.wav"
ENCODERS = ("encoder.tflite", "encoder.onnx")
"""A pretrained encoder that is in no package; a model has at most one, or one in the folder of each member."""
MEMBERS = tuple(f"member-{number}" for number in range(1, MOST_MEMBERS + 1))
"""Folders with what the frontends of an ensemble's members need, in the order of these frontends."""
PARTS = (
    DESCRIPTION,
    WEIGHTS,
    NOVELTY,
    EXAMPLE,
    *ENCODERS,
    *(f"{each}/{name}" for each in MEMBERS for name in ENCODERS),
)
"""The files of a bundle; models of earlier versions have no novelty."""
THRESHOLDS = "thresholds.json"
"""Beside these, and no part of the model: from which probability on a species is detected; see `thresholds`."""
THRESHOLDS_TAG = "watkins.thresholds"
"""Tag of a registered version with the same text."""
LICENCE = "licence"
"""A fact of a model and of its run, and a tag of both: of what they have from elsewhere."""
REFIT = "refit"
"""A fact of a model: it has been trained on the validation recordings too (`train.refit`)."""


def bundle_digest(folder: Path) -> str | None:
    """Fingerprint of the files of a bundle; None where there is none, or none that is whole."""
    if not (folder / DESCRIPTION).exists():
        return None
    digest = hashlib.sha256()
    for part in PARTS:
        if (folder / part).exists():
            digest.update(f"{part} {hashlib.sha256((folder / part).read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def copy_bundle(folder: Path, target: Path) -> str | None:
    """Copy the files of a bundle and its thresholds, and nothing else that lies there, into a new folder; its digest.

    Raises:
        UserError: one of them is a link, which may lead to what its owner does not mean to share.
    """
    target.mkdir()
    for part in (*PARTS, THRESHOLDS):
        if any((folder / place).is_symlink() for place in (part, Path(part).parts[0])):
            raise UserError(f"{folder / part}: is a link; put the file itself there")
        if (folder / part).is_file():
            (target / part).parent.mkdir(exist_ok=True)
            (target / part).write_bytes((folder / part).read_bytes())
    return bundle_digest(target)
