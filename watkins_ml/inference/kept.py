"""A folder of answers: what was said of each recording, kept so that a long job can go on and thresholds can change."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from watkins_ml.errors import UsageError, UserError, first_line
from watkins_ml.files import disk_errors, printable, write_bytes, write_json
from watkins_ml.inference.judge import NOVELTY, PLACE, Judged, Listening, file_state
from watkins_ml.models.bundle import Classifier

ABOUT, NOTE = b"watkins_ml", b"watkins_ml_note"


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
        """What the files of a recording are called: its own name, shortened, and a mark of the place it lies in."""
        stem = re.sub(r"[^\w.() -]", "_", printable(Path(path.stem)))[:50]
        return f"{stem}-{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:8]}"

    def read(self, path: Path) -> Judged | None:
        """What was said of a recording; None if that is missing or damaged, or the recording has changed since."""
        try:
            table = pq.read_table(self._file(path))
            state, note = json.loads(table.schema.metadata[ABOUT]), table.schema.metadata.get(NOTE, b"")
            columns = PLACE, [f"p_{name}" for name in self.classes]
            places, said = (np.stack([table[name].to_numpy() for name in names], axis=1) for names in columns)
            novelties = table[NOVELTY].to_numpy()
            if state != file_state(path):
                return None
        except (OSError, KeyError, TypeError, ValueError, pa.ArrowException):
            return None
        return Judged(path, places, novelties, said, note=note.decode(errors="replace"), state=state)

    def write(self, recording: Judged) -> None:
        """Keep what was said of a recording that could be read to its end; any other is tried again next time."""
        if recording.problem or recording.state is None:
            return
        table = pa.Table.from_pandas(recording.table(self.classes), preserve_index=False)
        content = io.BytesIO()
        about = {ABOUT: json.dumps(recording.state)} | ({NOTE: recording.note} if recording.note else {})
        pq.write_table(table.replace_schema_metadata(about), content, compression="zstd")
        with self._disk_errors():
            write_bytes(self._file(recording.path), content.getvalue())

    def _disk_errors(self) -> AbstractContextManager:
        return disk_errors(f"cannot write to {self.folder}", "make room or choose another --out")

    def _file(self, path: Path) -> Path:
        return self.folder / "windows" / f"{self.name(path)}.parquet"
