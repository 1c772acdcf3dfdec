"""The seal of a prepared folder: `dataset.json`, taken away before anything changes and written last.

A folder without it is never trained on.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import shown_csv, write_csv, write_json, write_text
from watkins_ml.core.locks import readers_of
from watkins_ml.dataset.layout import DataFolder, read_prepared, windows_beside
from watkins_ml.dataset.split import SIDES
from watkins_ml.dataset.targets import decode, main_labels

LAYOUT = "spectrograms/SPECIES/CUT"
"""Stands beside the frontend's digest, so that spectrograms in the places of earlier versions are made anew."""
WRITTEN = (".pt", ".windows", ".partial")
"""Kinds of files that are written below `spectrograms/`; others are not touched."""


def break_seal(folder: DataFolder) -> None:
    """Take `dataset.json` away, before anything changes that a reader may be reading.

    Raises:
        UserError: somebody reads the folder now.
    """
    if readers := readers_of(folder.root):
        raise UserError(
            f"{folder.root}: {readers[0]} is reading it, and would find it changed; wait until that has ended and run "
            "the same command again, which goes on from here, or give another --out"
        )
    folder.summary.unlink(missing_ok=True)


def use_frontend(folder: DataFolder, settings: FrontendSettings) -> None:
    """Make sure that every spectrogram in the folder is of this frontend and in its place, dropping all others.

    Raises:
        UserError: there are files that are not of `watkins prepare`, which always leaves the marker.
    """
    marker, wanted = folder.spectrograms / ".frontend", f"{settings.digest()} {LAYOUT}"
    if marker.exists() and marker.read_text() == wanted:
        return
    there = [path for path in folder.spectrograms.glob("*") if not path.name.startswith(".")]
    if there and not marker.exists() and not folder.summary.exists():
        raise UserError(f"{there[0]}: is not of `watkins prepare`, which would delete it; give another --out")
    break_seal(folder)
    remove_all_but(folder, set())
    write_text(marker, wanted)


def remove_all_but(folder: DataFolder, wanted: set[Path]) -> None:
    """Remove spectrograms and windows that are of no recording, and what a killed run left half-written."""
    found = sorted(folder.spectrograms.rglob("*"), reverse=True)  # what is in a folder before the folder
    for path in found:
        if path.is_dir() and not path.is_symlink():
            with suppress(OSError):  # not empty
                path.rmdir()
        elif path.suffix in WRITTEN and path not in wanted:
            path.unlink()


def is_sealed_as(folder: DataFolder, summary: dict[str, Any]) -> bool:
    try:
        return folder.rejected.exists() and read_prepared(folder.root).summary == summary
    except UserError:  # unfinished or damaged
        return False


def seal(
    folder: DataFolder,
    used: Iterable[Path],
    annotations: pd.DataFrame,
    classes: list[str],
    places: list[Path],
    rejected: pd.DataFrame,
    side: pd.Series,
    summary: dict[str, Any],
) -> None:
    """Write the tables; `dataset.json` is the last of them.

    Args:
        used: all spectrograms that stay, also those that are left out of the tables and wait where they are.
        annotations: a row a recording or window; with `targets` where these may hold any number of species.
        places: the spectrogram of each row of `annotations`.
    """
    break_seal(folder)
    wanted = set(used)
    remove_all_but(folder, wanted | set(map(windows_beside, wanted)))
    write_csv(folder.annotations, annotations)
    write_text(folder.rejected, shown_csv(rejected))  # for people alone
    write_json(folder.classes, {str(label): name for label, name in enumerate(classes)})
    columns = ["path", "species", "label", "tape", "spectrogram"]
    if "targets" in annotations:
        columns.append("targets")
        labels = main_labels(decode(annotations["targets"], len(classes)) == 1)
    else:
        labels = annotations["species"].map(classes.index).to_numpy()
    table = annotations.assign(
        label=labels, spectrogram=[place.relative_to(folder.root).as_posix() for place in places]
    )
    for name in SIDES:
        write_csv(folder.side(name), table.loc[side == name, columns])
    write_json(folder.summary, summary)
