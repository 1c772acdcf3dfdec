"""What the frozen stages of a network give, computed once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FeatureStore:
    """A folder of outputs of frozen stages, bounded in size."""

    folder: Path
    data_digest: str
    limit_gb: float
    """What the whole folder may take; 0 keeps nothing."""
