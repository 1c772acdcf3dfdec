"""The files of a run directory: which MLflow keeps too, and how large files from an untrusted source may be."""

from __future__ import annotations

import os
from pathlib import Path

from watkins_ml.core.confined import plain_file, plain_files

CHECKPOINTS = "checkpoints"
ARTIFACTS = ("config.yaml", "history.csv", "timing.csv", "refit.csv", "run.json", "reports", "preds", "misclassified",
             "galleries", "plots", CHECKPOINTS)  # fmt: skip
"""What of a run directory MLflow keeps among the run's artifacts."""
MB = 1_000_000
LARGEST = {"run.json": 4 * MB, "config.yaml": 4 * MB, "upload.json": MB, "journal.jsonl": 512 * MB,
           "history.csv": 64 * MB, "timing.csv": 64 * MB, "reports/metrics.json": 4 * MB}  # fmt: skip
"""Bytes of the files that are read whole; those of a hundred thousand epochs are smaller."""
LARGEST_TABLE = 256 * MB
"""Bytes of any other table."""


def check_confined(root: Path) -> None:
    """Refuse a run directory with parts outside of it or without a size limit: it may be from an untrusted source.

    Raises:
        UserError: names the link, the pipe or device, or the file that is larger than this program writes any.
    """
    for name in (*LARGEST, *ARTIFACTS, "model"):
        if os.path.lexists(root / name):
            for path in plain_files(root, name, root):
                entry = path.relative_to(root).as_posix()
                others = LARGEST_TABLE if path.suffix in (".csv", ".json", ".npy") else float("inf")
                plain_file(root, entry, root, LARGEST.get(entry, others))
