"""Where everything lies in a prepared data folder, and how to read it back."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.audio.any_settings import AnySettings
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.confined import inside, leads_out, plain_file
from watkins_ml.core.errors import ResourceError, UserError
from watkins_ml.core.files import read_csv
from watkins_ml.core.names import file_name, normal, opened
from watkins_ml.core.text import shown
from watkins_ml.core.wording import plural
from watkins_ml.dataset.split import SIDES
from watkins_ml.dataset.targets import LABELS, SPECIES, decode, row_a_species

METADATA_COLUMNS = ("site", "latitude", "longitude", "date", "fold", "scientific_name", "family", "note")
"""What `prepare --metadata` adds to the annotations, as text, empty where unknown."""
WINDOW_COLUMNS = ("recording", "start_s", "end_s", "channel")
"""What the annotations have besides where a row is a window of a longer recording: its path, seconds, and the channel
(0: all, mixed)."""
LARGEST_TABLE, LARGEST_JSON = 1_000_000_000, 64_000_000
"""Bytes; a million recordings stay below."""
TEXT_COLUMNS = dict.fromkeys(
    ("path", "species", "cut_id", "tape", "spectrogram", "recording", "targets", *METADATA_COLUMNS), str
)


@dataclass(frozen=True)
class DataFolder:
    """Paths inside one prepared data folder."""

    root: Path

    @property
    def summary(self) -> Path:
        """`dataset.json`, written last: the folder is complete exactly when it is there."""
        return self.root / "dataset.json"

    @property
    def annotations(self) -> Path:
        return self.root / "annotations" / "audio_annotations.csv"

    @property
    def rejected(self) -> Path:
        return self.root / "annotations" / "rejected.csv"

    @property
    def classes(self) -> Path:
        return self.root / "annotations" / "classes.json"

    @property
    def scan_journal(self) -> Path:
        return self.root / "annotations" / ".scan.jsonl"

    @property
    def spectrograms(self) -> Path:
        return self.root / "spectrograms"

    @property
    def frontends(self) -> Path:
        """What other frontends than that of `spectrograms` made of the recordings, each in a folder of its own."""
        return self.root / "frontends"

    def side(self, name: str) -> Path:
        return self.root / "annotations" / f"{name}.csv"

    def spectrogram(self, species: str, cut_id: str) -> Path:
        """Wherever the split puts it; earlier versions had a folder for each side, so readers go by the tables."""
        return self.spectrograms / file_name(species) / f"{file_name(cut_id)}.pt"


def windows_beside(spectrogram: Path) -> Path:
    """Where the windows of a recording lie that is longer than one: a tensor (n, 1, n_mels, frames).

    No other recording's spectrogram can have this name, as all end in `.pt`.
    """
    return spectrogram.with_suffix(".windows")


def recording_of(path: str) -> str:
    """The recording of a window: `sea.wav` of `sea.wav#t=1.000,2.000`."""
    return path.rpartition("#t=")[0]


class Seal:
    """The `dataset.json` that a reader began with.

    Whoever prepares a folder anew takes the seal away before anything else changes. What was read while the seal
    stood, asked for after the reading, is therefore of the data that the reader began with.
    """

    def __init__(self, folder: DataFolder):
        self._folder = folder
        self._stamp, content = self._read()
        self.summary: dict[str, Any] = json.loads(content)

    def _read(self, known: tuple[int, ...] = ()) -> tuple[tuple[int, ...], bytes]:
        """What tells this file from a later one, and its content, which is left unread where it is `known`."""
        with open(self._folder.summary, "rb") as file:  # opening asks a network's server, which stat may not
            status = os.fstat(file.fileno())
            stamp = status.st_ino, status.st_size, status.st_mtime_ns
            return stamp, b"" if stamp == known else file.read()

    def check(self) -> None:
        """Raise a UserError if the folder has been prepared anew, or is being prepared, since this seal was read."""
        try:
            stamp, content = self._read(self._stamp)
            if stamp == self._stamp:
                return
            if json.loads(content)["data_digest"] == self.summary["data_digest"]:
                self._stamp = stamp  # with another metadata table, for one
                return
        except (OSError, ValueError, TypeError, KeyError):
            if not self._folder.annotations.exists():
                raise ResourceError(
                    f"{self._folder.root}: no longer there; if it is on a disk of its own, mount that again"
                ) from None
        raise ResourceError(
            f"{self._folder.root}: prepared anew since this command began to read it (data digest "
            f"{self.summary['data_digest']}); prepare it as it was and go on, or begin again with what is there now"
        )


@dataclass(frozen=True)
class PreparedData:
    """What `watkins prepare` left in a folder, without the spectrograms themselves."""

    folder: DataFolder
    summary: dict[str, Any]
    classes: list[str]
    """Species by label."""
    sides: dict[str, pd.DataFrame]
    """train, val and test: path, species, label, tape, spectrogram, cut_id, sample_rate, duration_s, windows, and
    those of METADATA_COLUMNS that a metadata table gave, of windows WINDOW_COLUMNS, and `targets` where `task` is
    LABELS."""
    seal: Seal | None = field(default=None, compare=False, repr=False)
    """None only where the tables were not read from a folder."""
    own_input: AnySettings | None = None
    """Of the tensors that `sides` name, where a model needs others than the spectrograms (see `own_input`)."""
    as_prepared: PreparedData | None = field(default=None, compare=False, repr=False)
    """The same with the spectrograms, which are shown to people; None: this is it."""

    def check(self) -> None:
        """To be called after each reading of a file: raises as `Seal.check`."""
        if self.seal is not None:
            self.seal.check()

    @property
    def digest(self) -> str:
        return self.summary["data_digest"]

    @property
    def protocol(self) -> str:
        return self.summary["split"]

    @property
    def frontend(self) -> FrontendSettings:
        """Of the spectrograms."""
        return FrontendSettings.stored(self.summary["frontend"])

    @property
    def input(self) -> AnySettings:
        """Of the tensors that `sides` name: those that a network gets."""
        return self.own_input or self.frontend

    @property
    def audio_dir(self) -> Path:
        """Where the recordings lie.

        As seen from this folder, if they were moved or copied together with it, else where they were when prepared.
        """
        beside = self.folder.root.resolve() / opened(self.summary.get("audio_dir_from_here", ""))
        together = "audio_dir_from_here" in self.summary and beside.is_dir()
        return Path(os.path.normpath(beside)) if together else Path(opened(self.summary["audio_dir"]))

    def recording(self, path: str) -> Path:
        """Where the file of a `path` in `sides` lies, or the longer recording that it is a window of."""
        return self.audio_dir / opened(recording_of(path) if self.of_windows else path)

    @property
    def of_windows(self) -> bool:
        """Whether a row is a window of a longer recording, named `RECORDING#t=START,END` in seconds."""
        return "windowing" in self.summary

    @property
    def task(self) -> str:
        """`targets.SPECIES` or `targets.LABELS`."""
        return self.summary.get("task", SPECIES)

    def row_a_species(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Rows of sides with one species each: of a row with several as many rows, of one with none none."""
        if self.task == SPECIES:
            return frame
        table = row_a_species(frame, self.classes)
        return table[table["species"].isin(self.classes)]

    def strata(self, frame: pd.DataFrame) -> list[str]:
        """By which species each row is divided into folds: of those in it the rarest; BACKGROUND if none is."""
        if self.task == SPECIES:
            return list(frame["species"])
        names = [*self.classes, BACKGROUND]
        return [names[label] for label in frame["label"]]  # NO_LABEL is the last

    def species(self) -> pd.DataFrame:
        """A row a species: its cuts and tapes on all sides, and why the split cannot test it (empty where it can)."""
        everything = self.row_a_species(pd.concat(self.sides.values(), ignore_index=True))
        table = everything.groupby("species").agg(cuts=("path", "size"), tapes=("tape", "nunique"))
        reasons = self.summary["species_not_tested"]
        return table.assign(not_tested=[reasons.get(name, "") for name in table.index]).reset_index()


def read_table(path: Path) -> pd.DataFrame:
    """A table of annotations; names stay text, also where a species is called `NA` or a tape `00012`.

    Species, cut ids and tapes come in their normal form, which earlier versions did not write.
    """
    table = read_csv(path, dtype=TEXT_COLUMNS, keep_default_na=False)
    names = [column for column in ("species", "cut_id", "tape") if column in table]
    return table.assign(**{column: table[column].map(normal) for column in names})


def _check_paths(folder: DataFolder, side: str, frame: pd.DataFrame) -> None:
    """Refuse a table that names recordings or spectrograms elsewhere; recordings themselves may be links."""
    recordings = map(recording_of, frame["path"]) if "recording" in frame else ()
    for path in (*map(opened, frame["path"]), *map(opened, recordings), *frame["spectrogram"]):
        if leads_out(path):
            raise UserError(f"{folder.side(side)}: {shown(path)!r} leads out of the folder; nothing outside is read")
    for parent in {os.path.dirname(name) for name in frame["spectrogram"]} - {""}:
        inside(folder.root, parent, folder.side(side))


def read_prepared(root: Path) -> PreparedData:
    """Open a prepared data folder.

    Raises:
        UserError: the folder is missing, or a `watkins prepare` there has not finished.
    """
    folder = DataFolder(Path(root))
    if not folder.summary.exists():
        state = "not finished" if folder.root.exists() else "missing"
        raise UserError(f"{root}: prepared data are {state}; run `watkins prepare AUDIO_DIR --out {root}`")
    for file in (folder.summary, folder.classes, folder.annotations, *map(folder.side, SIDES)):
        if os.path.lexists(file):
            most = LARGEST_TABLE if file.suffix == ".csv" else LARGEST_JSON
            plain_file(folder.root, file.relative_to(folder.root).as_posix(), root, most)
    try:
        seal = Seal(folder)
        summary = seal.summary
        names = json.loads(folder.classes.read_text(encoding="utf-8"))
        details = read_table(folder.annotations)
        if "windows" not in details:
            raise ValueError("made by an earlier version, without the windows of long recordings")
        given = [name for name in (*WINDOW_COLUMNS, *METADATA_COLUMNS) if name in details]
        details = details[["path", "cut_id", "sample_rate", "duration_s", "windows", *given]]
        sides = {name: read_table(folder.side(name)).merge(details, on="path", validate="1:1") for name in SIDES}
        classes = [normal(names[str(label)]) for label in range(len(names))]
        if len(set(classes)) < len(classes):
            raise ValueError("made by an earlier version, with one species in two forms of Unicode")
        for name, frame in sides.items():
            _check_paths(folder, name, frame)
            if len(frame) != summary["counts"][name]:
                raise ValueError(f"{name} has {len(frame)} of {plural(summary['counts'][name], 'recording')}")
            if summary.get("task") == LABELS:
                decode(frame["targets"], len(classes))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{root}: damaged data folder ({error}); run `watkins prepare` again") from None
    seal.check()
    return PreparedData(folder, summary, classes, sides, seal)
