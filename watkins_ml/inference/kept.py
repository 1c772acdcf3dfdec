"""A folder of answers: what was said of each recording, kept so that a long job can go on and thresholds can change."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError, UserError, first_line
from watkins_ml.core.files import disk_errors, printable, write_bytes, write_json
from watkins_ml.inference.annotations import SINGLE, file_of
from watkins_ml.inference.judge import NOVELTY, PLACE, Judged, Listening, file_state
from watkins_ml.models.bundle import Classifier

DAMAGE = (KeyError, TypeError, ValueError, pa.ArrowException)
WHOLE, PARTLY = "windows", "partly"
ABOUT = b"watkins_ml"
"""Where a file of `windows/` says which recording it is about, in JSON."""
LAYOUT = 2
"""Of the files; raised where earlier ones cannot be gone on with."""


class Kept:
    """`windows/<name>.parquet` for each recording judged so far, and `predict.json`: by which model, and how cut.

    What could not be read to its end is in `partly/` instead, and is judged again with the next command that names it.

    The folder is added to: its tables are of all recordings that it keeps, whichever command judged them.

    Raises:
        UsageError: the folder was begun with another model or other windows.
        UserError: it cannot be read or written, now or later.
    """

    def __init__(self, folder: Path, classifier: Classifier, model: str, listening: Listening):
        self.folder, self.classes = folder, classifier.classes
        settings = {"layout": LAYOUT, "model_digest": classifier.digest(), **asdict(listening)}
        begun = self._begun()
        for key, value in settings.items():
            if begun and begun.get(key) != value:
                what = "by an earlier version" if key == "layout" else f"with {key} {begun.get(key)}, now {value}"
                raise UsageError(f"{folder} was begun {what}; give another --out")
        self._about = {"tables": None} | begun | {"model": model, "temperature": classifier.temperature, **settings}
        self._write_about()

    def _begun(self) -> dict[str, Any]:
        file = self.folder / "predict.json"
        if not file.exists():
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{file}: damaged ({first_line(error)}); give another --out") from None

    def _write_about(self) -> None:
        with self._disk_errors():
            write_json(self.folder / "predict.json", self._about)

    @contextmanager
    def tables_as(self, wanted: dict[str, Any]) -> Iterator[bool]:
        """While tables are written by some thresholds; gives whether those that are there follow the same ones.

        Only once all are written does the folder say that they do.
        """
        same = self._about["tables"] == wanted
        if not same:
            self._about["tables"] = None
            self._write_about()
        with self._disk_errors():
            yield same
        if not same:
            self._about["tables"] = wanted
            self._write_about()

    def name(self, path: Path) -> str:
        """What the files of a recording are called: its own name, shortened, and a mark of the place it lies in."""
        stem = re.sub(r"[^\w.() -]", "_", printable(Path(path.stem)))[:50]
        return f"{stem}-{hashlib.sha256(os.fsencode(self._way_to(path))).hexdigest()[:8]}"

    def _way_to(self, path: Path) -> str:
        """From this folder to a recording: it stays the same when both are moved or copied together."""
        try:
            return os.path.relpath(path.resolve(), self.folder.resolve())
        except ValueError:  # on another drive of Windows
            return str(path.resolve())

    def read(self, path: Path) -> Judged | None:
        """What was said of a recording; None if that is missing or damaged, or it has changed since."""
        try:
            _, judged = self._read(self._file(self.name(path)))
            if judged.state != file_state(path):
                return None
        except (OSError, *DAMAGE):
            return None
        return replace(judged, path=path)

    def others(self, names: Collection[str]) -> Iterator[tuple[str, Path, Judged]]:
        """The recordings that earlier commands judged: name, place and what was said, but for those of some names."""
        for file in sorted(file for part in (WHOLE, PARTLY) for file in (self.folder / part).glob("*.parquet")):
            if file.stem in names:
                continue
            try:
                about, judged = self._read(file)
                place = self._place(about)
            except (OSError, *DAMAGE):
                err.print(f"{file}: damaged, so its recording is missing from the tables until it is judged again")
                continue
            yield file.stem, place, judged

    def _place(self, about: dict[str, Any]) -> Path:
        """Where a recording lies: as seen from here, if it was moved together with this folder, else where it was."""
        beside = Path(os.path.normpath(self.folder.resolve() / about.get("from_here", about["place"])))
        return beside if beside.exists() else Path(about["place"])

    def _read(self, file: Path) -> tuple[dict[str, Any], Judged]:
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[ABOUT])
        columns = PLACE, [f"p_{name}" for name in self.classes]
        places, said = (np.stack([table[name].to_numpy() for name in names], axis=1) for names in columns)
        facts = {key: about[key] for key in ("problem", "note", "state", "rate")}
        return about, Judged(Path(about["path"]), places, table[NOVELTY].to_numpy(), said, **facts)

    def write(self, recording: Judged) -> None:
        """Keep what was said of a recording, or of a part of it; what could not be read at all changes nothing."""
        if recording.state is None or not len(recording.places):
            return
        path, name = recording.path, self.name(recording.path)
        about = {"path": str(path), "place": str(path.absolute()), "from_here": self._way_to(path)}
        about |= {key: getattr(recording, key) for key in ("problem", "note", "state", "rate")}
        table = pa.Table.from_pandas(recording.table(self.classes), preserve_index=False)
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({ABOUT: json.dumps(about)}), content, compression="zstd")
        with self._disk_errors():
            for format in SINGLE:  # of what the recording was before
                file_of(self.folder, format, name).unlink(missing_ok=True)
            self._file(name, not recording.problem).unlink(missing_ok=True)
            write_bytes(self._file(name, bool(recording.problem)), content.getvalue())

    def _disk_errors(self) -> AbstractContextManager:
        return disk_errors(f"cannot write to {self.folder}", "make room or choose another --out")

    def _file(self, name: str, partly: bool = False) -> Path:
        return self.folder / (PARTLY if partly else WHOLE) / f"{name}.parquet"
