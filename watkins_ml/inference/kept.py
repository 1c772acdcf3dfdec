"""A folder of answers: what was said of each recording, kept so that a long job can go on and thresholds can change."""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watkins_ml.errors import UsageError, UserError, first_line
from watkins_ml.files import disk_errors, write_bytes, write_json
from watkins_ml.inference.judge import PLACE, Judged, Listening
from watkins_ml.models.bundle import Classifier

ABOUT = b"watkins_ml"


class Kept:
    """`windows/<name>.parquet` for each recording judged so far, and `predict.json`: by which model, and how cut.

    Raises:
        UsageError: the folder was begun with another model or other windows.
        UserError: it cannot be read or written, now or later.
    """

    def __init__(self, folder: Path, classifier: Classifier, model: str, listening: Listening):
        self.folder, self.classes = folder, classifier.classes
        settings = {"model_digest": classifier.digest(), **asdict(listening)}
        file = folder / "predict.json"
        if file.exists():
            try:
                begun = dict(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError) as error:
                raise UserError(f"{file}: damaged ({first_line(error)}); give another --out") from None
            for key, value in settings.items():
                if begun.get(key) != value:
                    raise UsageError(f"{folder} was begun with {key} {begun.get(key)}, now {value}; give another --out")
        with self._disk_errors():
            write_json(file, {"model": model, **settings})

    def name(self, path: Path) -> str:
        """What the files of a recording are called: its own name, and a mark of the folder it lies in."""
        return f"{path.stem}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"

    def holds(self, path: Path) -> bool:
        """Whether a recording was judged to its end and has not changed since."""
        try:
            about = json.loads(pq.read_schema(self._file(path)).metadata[ABOUT])
            return about["file"] == _state(path)
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
            return False  # none, or damaged: judged again

    def read(self, path: Path) -> Judged:
        """What was said of a recording that the folder `holds`."""
        table = pq.read_table(self._file(path))
        places = list(zip(*(table[name].to_pylist() for name in PLACE), strict=True))
        values = np.stack([table[f"p_{name}"].to_numpy() for name in self.classes], axis=1)
        problem = json.loads(table.schema.metadata[ABOUT])["problem"]
        return Judged(path, places, [None if np.isnan(row).any() else row for row in values], problem)

    def write(self, recording: Judged) -> None:
        table = pa.Table.from_pandas(recording.table(self.classes), preserve_index=False)
        about: dict[str, Any] = {"file": _state(recording.path), "problem": recording.problem}
        content = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({ABOUT: json.dumps(about)}), content, compression="zstd")
        with self._disk_errors():
            write_bytes(self._file(recording.path), content.getvalue())

    def _disk_errors(self) -> AbstractContextManager:
        return disk_errors(f"cannot write to {self.folder}", "make room and run the same command again")

    def _file(self, path: Path) -> Path:
        return self.folder / "windows" / f"{self.name(path)}.parquet"


def _state(path: Path) -> list[int]:
    """Size and time of a file, by which a changed one is noticed."""
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]
