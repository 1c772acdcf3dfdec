"""A cache of window scores on disk: a long job can resume, and thresholds can change without scoring again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from watkins_ml.core.console import err
from watkins_ml.core.errors import UsageError, UserError, first_line
from watkins_ml.core.files import disk_errors, printable, write_bytes, write_json
from watkins_ml.inference.detections import DetectionOptions
from watkins_ml.inference.formats import SINGLE, file_of
from watkins_ml.inference.recordings import file_state
from watkins_ml.inference.scores import WindowScores
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import Classifier

DAMAGE = (KeyError, TypeError, ValueError, pa.ArrowException)
WHOLE, PARTLY = "windows", "partly"
SPAN, NOVELTY = ["channel", "start_s", "end_s"], "novelty"
"""The first columns of a file; p_<species> follow, all in float32, NaN where there is no sound."""
METADATA = b"watkins_ml"
"""Where a file says in JSON which recording it is about."""
FACTS = ("problem", "note", "state", "rate")
"""Fields of WindowScores that are in the metadata."""
NEW = ("thresholds", "peaks")
"""Options that earlier versions did not have, and do not name where they are off."""
LAYOUT = 2
"""Version of the files; raised where earlier ones cannot be continued."""


class ScoreCache:
    """`windows/<name>.parquet` for each recording, and `predict.json`: by which model, and how they were cut.

    What could not be read to its end is in `partly/` instead, and is scored again with the next command that names it.

    Raises:
        UsageError: the folder was written with another model or other windows.
        UserError: it cannot be read or written, now or later.
    """

    def __init__(self, folder: Path, classifier: Classifier, model: str, options: WindowOptions):
        self.folder, self.classes = folder, classifier.classes
        settings = {"layout": LAYOUT, "model_digest": classifier.digest(), **asdict(options)}
        earlier = self._read_description()
        for key, value in settings.items():
            if earlier and earlier.get(key) != value:
                what = "by an earlier version" if key == "layout" else f"with {key} {earlier.get(key)}, now {value}"
                raise UsageError(f"{folder} was written {what}; give another --out")
        facts = {"model": model, "temperature": classifier.temperature}
        self._description = {"tables": None} | earlier | facts | settings
        self._write_description()

    def get_or_compute(
        self, files: list[Path], compute: Callable[[list[Path]], Iterator[WindowScores]]
    ) -> Iterator[WindowScores]:
        """The stored scores of files, then those of new and changed ones, which are stored one by one."""
        missing = []
        for path in files:
            if scores := self.read(path):
                yield scores
            else:
                missing.append(path)
        for scores in compute(missing):
            self.write(scores)
            yield scores

    def read(self, path: Path) -> WindowScores | None:
        """The scores of a recording; None if they are missing or damaged, or it has changed since."""
        try:
            _, scores = self._read(self._file(self.name(path)))
            return replace(scores, path=path) if scores.state == file_state(path) else None
        except (OSError, *DAMAGE):
            return None

    def write(self, scores: WindowScores) -> None:
        """Store the scores of a recording, or of a part of it; what could not be read at all changes nothing."""
        if scores.state is None or not len(scores.spans):
            return
        path, name = scores.path, self.name(scores.path)
        metadata = {"path": str(path), "place": str(path.absolute()), "from_here": self._way_to(path)}
        metadata |= {key: getattr(scores, key) for key in FACTS}
        frame = pd.DataFrame(scores.spans, columns=SPAN).astype({"channel": int})
        frame[NOVELTY] = scores.novelty
        probabilities = pd.DataFrame(scores.probabilities, columns=[f"p_{species}" for species in self.classes])
        table = pa.Table.from_pandas(pd.concat([frame, probabilities], axis=1), preserve_index=False)
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(metadata)}), content, compression="zstd")
        with self._disk_errors():
            for format in SINGLE:  # of what the recording was before
                file_of(self.folder, format, name).unlink(missing_ok=True)
            self._file(name, not scores.problem).unlink(missing_ok=True)
            write_bytes(self._file(name, bool(scores.problem)), content.getvalue())

    def others(self, names: Collection[str]) -> Iterator[tuple[str, Path, WindowScores]]:
        """The recordings of earlier commands, but for those of some names: name, location and scores."""
        for file in sorted(file for part in (WHOLE, PARTLY) for file in (self.folder / part).glob("*.parquet")):
            if file.stem in names:
                continue
            try:
                metadata, scores = self._read(file)
                location = self._location(metadata)
            except (OSError, *DAMAGE):
                err.print(f"{file}: damaged, so its recording is missing from the tables until it is scored again")
                continue
            yield file.stem, location, scores

    @contextmanager
    def writing_tables(self, options: DetectionOptions) -> Iterator[bool]:
        """While tables are written; gives whether those that are there were written with the same options.

        Only once all are written does the folder say that they were.
        """
        settings = asdict(options) | {"species": sorted(options.species), "max_novelty": str(options.max_novelty)}
        settings = {key: value for key, value in settings.items() if key not in NEW or value}
        same = self._description["tables"] == settings
        if not same:
            self._description["tables"] = None
            self._write_description()
        with self._disk_errors():
            yield same
        if not same:
            self._description["tables"] = settings
            self._write_description()

    def name(self, path: Path) -> str:
        """What the files of a recording are called: its own name, shortened, and a digest of where it lies."""
        stem = re.sub(r"[^\w.() -]", "_", printable(Path(path.stem)))[:50]
        return f"{stem}-{hashlib.sha256(os.fsencode(self._way_to(path))).hexdigest()[:8]}"

    def _way_to(self, path: Path) -> str:
        """From this folder to a recording: it stays the same when both are moved or copied together."""
        try:
            return os.path.relpath(path.resolve(), self.folder.resolve())
        except ValueError:  # on another drive of Windows
            return str(path.resolve())

    def _location(self, metadata: dict[str, Any]) -> Path:
        """Where a recording lies: as seen from here, if it was moved together with this folder, else where it was."""
        beside = Path(os.path.normpath(self.folder.resolve() / metadata.get("from_here", metadata["place"])))
        return beside if beside.exists() else Path(metadata["place"])

    def _read(self, file: Path) -> tuple[dict[str, Any], WindowScores]:
        table = pq.read_table(file)
        metadata = json.loads(table.schema.metadata[METADATA])
        columns = SPAN, [f"p_{species}" for species in self.classes]
        spans, probabilities = (np.stack([table[name].to_numpy() for name in names], axis=1) for names in columns)
        facts = {key: metadata[key] for key in FACTS}
        return metadata, WindowScores(Path(metadata["path"]), spans, table[NOVELTY].to_numpy(), probabilities, **facts)

    def _file(self, name: str, partly: bool = False) -> Path:
        return self.folder / (PARTLY if partly else WHOLE) / f"{name}.parquet"

    def _read_description(self) -> dict[str, Any]:
        file = self.folder / "predict.json"
        if not file.exists():
            return {}
        try:
            return dict(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{file}: damaged ({first_line(error)}); give another --out") from None

    def _write_description(self) -> None:
        with self._disk_errors():
            write_json(self.folder / "predict.json", self._description)

    def _disk_errors(self) -> AbstractContextManager:
        return disk_errors(f"cannot write to {self.folder}", "make room or choose another --out")
