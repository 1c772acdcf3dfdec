"""Stands between MLflow's scoring server and the served model: whatever is sent, the answer is a table or a sentence.

MLflow parses a body before the model sees it. It answers some that it cannot parse with a traceback and the paths of
its machine, others with status 500, puts no bound to their size, and goes on judging when it has told the client that
it gave up. It has no hook for that, so `guard` replaces the one function that it calls for each request.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any

from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT as TIMEOUT

from watkins_ml.serving.audio_table import COLUMNS, NO_COLUMN, Refused, Sentence

MOST_ROWS = 256
"""Of one request: recordings."""
MOST_SECONDS = 6 * 3600
"""Of one request: sound, in all its recordings together."""
MOST_WINDOWS = 512
"""Of one request: spectrograms that are judged; a recording is judged by up to 16."""
FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
TABLE = f"the body is no JSON object with exactly one of {', '.join(FORMATS)}, and in it a table with a row a recording"
_TURN = threading.Lock()
csv.field_size_limit(1 << 30)


class Request:
    """What one request has used of the time, the sound and the windows that it may; a `Budget`."""

    def __init__(self):
        self.patience = float(TIMEOUT.get())
        self.end = time.monotonic() + self.patience
        self.seconds, self.windows = 0.0, 0

    def spend(self, number: int, seconds: float = 0.0, windows: int = 0) -> None:
        """Count what row `number` adds; raises Refused where that is too much, or nobody waits any more."""
        self.seconds += seconds
        self.windows += windows
        if self.seconds > MOST_SECONDS:
            raise Refused(f"row {number}: the recordings so far last over {MOST_SECONDS:,} s; send fewer at once")
        if self.windows > MOST_WINDOWS:
            raise Refused(f"row {number}: the recordings so far fill over {MOST_WINDOWS} windows; send fewer at once")
        if time.monotonic() > self.end:
            raise self._late()

    def _late(self) -> Refused:
        """For nobody, and the log: MLflow has told the client by now that it gave up."""
        return Refused(f"judging took longer than {self.patience:g} s; send fewer recordings at once")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Judge while no other request does: together they would take more memory, and none of them less time."""
        if not _TURN.acquire(timeout=max(0.0, self.end - time.monotonic())):
            raise self._late()
        try:
            yield
        finally:
            _TURN.release()


REQUEST: ContextVar[Request | None] = ContextVar("REQUEST", default=None)
"""The request that this thread answers; None where the model was loaded by whoever asks it."""


def guard(kind: type) -> None:
    """Answer requests for models of this kind here, if this process has MLflow's scoring server."""
    server = sys.modules.get("mlflow.pyfunc.scoring_server")
    theirs = getattr(server, "invocations", None)
    if theirs is None:
        return

    @wraps(theirs)
    def invocations(data: bytes, content_type: str | None, model: Any, input_schema: Any) -> Any:
        if not isinstance(model.unwrap_python_model(), kind):
            return theirs(data, content_type, model, input_schema)
        before = REQUEST.set(Request())
        try:
            media, _, parameters = re.sub(r'[\s"]', "", content_type or "").lower().partition(";")
            if media not in READERS or parameters not in ("", "charset=utf-8"):
                said = f"this server only supports {' and '.join(READERS)}, in UTF-8"
                return server.InvocationsResponse(said, 415, "text/plain")
            table = {"dataframe_records": READERS[media](data)}
            return theirs(table, "application/json", model, input_schema)
        except Sentence:
            raise
        except Exception:  # of MLflow's own checks; what they say is long and about their code
            logging.getLogger(__name__).warning("a table that MLflow did not take", exc_info=True)
            raise Refused(TABLE) from None
        finally:
            REQUEST.reset(before)

    server.invocations = invocations


def _json_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a table in any of MLflow's four forms, of each only what the model knows."""
    try:
        body = json.loads(data)
    except RecursionError:
        raise Refused("the body is no JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise Refused(f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        said = "a number has too many digits" if "digits" in str(error) else "it is not UTF-8"
        raise Refused(f"the body is no JSON that can be read: {said}") from None
    found = [each for each in FORMATS if isinstance(body, dict) and each in body]
    if len(found) != 1:
        raise Refused(TABLE)
    table = body[found[0]]
    if found[0] == "dataframe_split":
        return _split_rows(table)
    if found[0] == "inputs" and isinstance(table, dict):
        return _column_rows(table)
    if not isinstance(table, list):
        raise Refused(TABLE)
    return _known(_counted(table))


def _split_rows(table: Any) -> list[dict[str, Any]]:
    names, rows = (table.get(key) if isinstance(table, dict) else None for key in ("columns", "data"))
    if not isinstance(names, list) or not isinstance(rows, list):
        raise Refused(TABLE)
    places = {name: place for place, name in enumerate(names) if isinstance(name, str) and name in COLUMNS}
    for number, row in enumerate(_counted(rows)):
        if not isinstance(row, list) or len(row) != len(names):
            raise Refused(f"row {number} of dataframe_split is no list of {len(names)} cells, one for each of columns")
    return _known([{name: row[place] for name, place in places.items()} for row in rows])


def _column_rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """A column a key, as a list of cells, or a single cell in a table of one row."""
    columns = {name: cells for name, cells in table.items() if name in COLUMNS}
    lists = {len(_counted(cells)) for cells in columns.values() if isinstance(cells, list)}
    if columns and not lists:
        return [columns]
    if len(lists) > 1 or any(not isinstance(cells, list) for cells in columns.values()):
        raise Refused("the columns of inputs have different lengths; give each a cell for every recording")
    return _known([dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)])


def _csv_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a CSV table; only `audio` in base64 makes sense there."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = [row for row, _ in zip(reader, range(MOST_ROWS + 1), strict=False)]
    except UnicodeDecodeError:
        raise Refused("the body is no CSV in UTF-8") from None
    except csv.Error as error:
        raise Refused(f"the body is no CSV: {error}") from None
    return _known([{name: cell or None for name, cell in row.items()} for row in _counted(rows)])


def _counted(rows: list[Any]) -> list[Any]:
    if not rows:
        raise Refused("the table has no rows; give one for each recording")
    if len(rows) > MOST_ROWS:
        raise Refused(f"the table has more than {MOST_ROWS} rows; send fewer recordings a request")
    return rows


def _known(rows: list[Any]) -> list[dict[str, Any]]:
    known = [{name: row[name] for name in COLUMNS if name in row} if isinstance(row, dict) else {} for row in rows]
    if not any(known):
        raise Refused(NO_COLUMN)
    return known


READERS = {"application/json": _json_rows, "text/csv": _csv_rows}
