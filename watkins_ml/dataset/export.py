"""Prepared spectrograms in the layout of the original study, for programs that read that."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from watkins_ml.core.errors import UsageError
from watkins_ml.core.files import disk_errors
from watkins_ml.core.names import file_name
from watkins_ml.dataset.layout import DataFolder, PreparedData


def check_export(target: Path, audio_dir: Path, out: Path) -> None:
    """Raise a UsageError unless `target` is a new or empty folder outside the recordings and the spectrograms."""
    for place in (audio_dir, DataFolder(out).spectrograms):
        if target.resolve().is_relative_to(place.resolve()):
            raise UsageError(f"--export-sides {target}: lies inside {place}; give another folder")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--export-sides {target}: is there already; delete it, or give a new folder")


def export_spectrograms(data: PreparedData, target: Path) -> int:
    """Write `target`/SIDE/SPECIES/CUT.pt, a float tensor (1, n_mels, frames) each; returns how many.

    They are hard links where the disk has them, else copies. `watkins prepare` writes new files rather than into old
    ones, so that what was exported stays as it is.

    Raises:
        UserError: the disk is full or cannot be written.
    """
    count = 0
    with disk_errors(f"cannot export spectrograms to {target}", "mend that, delete the folder and export again"):
        for side, frame in data.sides.items():
            for name, species in zip(frame["spectrogram"], frame["species"], strict=True):
                source = data.folder.root / name
                place = target / side / file_name(species) / source.name
                place.parent.mkdir(parents=True, exist_ok=True)
                try:
                    os.link(source, place)
                except OSError:
                    shutil.copyfile(source, place)
                count += 1
    return count
