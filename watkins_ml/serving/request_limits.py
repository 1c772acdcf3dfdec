"""Parses and limits HTTP requests before MLflow does: for any request the response is a table or one sentence.

MLflow parses a body before the model sees it. It answers some that it cannot parse with a traceback and the paths of
its machine, others with status 500, sets no limit to their size, and goes on predicting after it has sent the client a
timeout. It has no hook for that, so `limit_requests` replaces the one function that it calls for each request.
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

from watkins_ml.serving.audio_table import COLUMNS, NO_COLUMN, ServingError, TableError

MOST_ROWS = 256
"""Of one request: recordings."""
MOST_SECONDS = 6 * 3600
"""Of one request: sound, in all its recordings together."""
MOST_WINDOWS = 512
"""Of one request: spectrograms; a recording has up to 16."""
FORMATS = ("dataframe_records", "dataframe_split", "inputs", "instances")
TABLE = f"the body is no JSON object with exactly one of {', '.join(FORMATS)}, and in it a table with a row a recording"
_LOCK = threading.Lock()
csv.field_size_limit(1 << 30)


class Request:
    """What one request has used of its limits of time, sound and windows; a `Budget`."""

    def __init__(self) -> None:
        self.timeout = float(TIMEOUT.get())
        self.end = time.monotonic() + self.timeout
        self.seconds, self.windows = 0.0, 0

    def spend(self, number: int, seconds: float = 0.0, windows: int = 0) -> None:
        """Count what row `number` adds; raises TableError beyond a limit or after the timeout."""
        self.seconds += seconds
        self.windows += windows
        if self.seconds > MOST_SECONDS:
            raise TableError(f"row {number}: the recordings so far last over {MOST_SECONDS:,} s; send fewer at once")
        if self.windows > MOST_WINDOWS:
            raise TableError(
                f"row {number}: the recordings so far fill over {MOST_WINDOWS} windows; send fewer at once"
            )
        if time.monotonic() > self.end:
            raise self._timed_out()

    def _timed_out(self) -> TableError:
        """For the log: by now MLflow has sent the client its own error."""
        return TableError(f"the prediction took longer than {self.timeout:g} s; send fewer recordings at once")

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Compute one request at a time: several at once would take more memory and no less time."""
        if not _LOCK.acquire(timeout=max(0.0, self.end - time.monotonic())):
            raise self._timed_out()
        try:
            yield
        finally:
            _LOCK.release()


REQUEST: ContextVar[Request | None] = ContextVar("REQUEST", default=None)
"""The request that this thread handles; None where the model is called in the process that loaded it."""


def limit_requests(model_class: type) -> None:
    """Handle requests for models of this class here, if this process runs MLflow's scoring server."""
    server: Any = sys.modules.get("mlflow.pyfunc.scoring_server")
    original = getattr(server, "invocations", None)
    if original is None:
        return

    @wraps(original)
    def invocations(data: bytes, content_type: str | None, model: Any, input_schema: Any) -> Any:
        if not isinstance(model.unwrap_python_model(), model_class):
            return original(data, content_type, model, input_schema)
        before = REQUEST.set(Request())
        try:
            media, _, parameters = re.sub(r'[\s"]', "", content_type or "").lower().partition(";")
            if media not in READERS or parameters not in ("", "charset=utf-8"):
                message = f"this server only supports {' and '.join(READERS)}, in UTF-8"
                return server.InvocationsResponse(message, 415, "text/plain")
            table = {"dataframe_records": READERS[media](data)}
            return original(table, "application/json", model, input_schema)
        except ServingError:
            raise
        except Exception:  # of MLflow's own checks, whose messages are long and about its code
            logging.getLogger(__name__).warning("a table that MLflow refused", exc_info=True)
            raise TableError(TABLE) from None
        finally:
            REQUEST.reset(before)

    server.invocations = invocations


def _json_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a table in any of MLflow's four forms, of each only what the model knows."""
    try:
        body = json.loads(data)
    except RecursionError:
        raise TableError("the body is no JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise TableError(f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except ValueError as error:
        cause = "a number has too many digits" if "digits" in str(error) else "it is not UTF-8"
        raise TableError(f"the body is no JSON that can be read: {cause}") from None
    found = [each for each in FORMATS if isinstance(body, dict) and each in body]
    if len(found) != 1:
        raise TableError(TABLE)
    table = body[found[0]]
    if found[0] == "dataframe_split":
        return _split_rows(table)
    if found[0] == "inputs" and isinstance(table, dict):
        return _column_rows(table)
    if not isinstance(table, list):
        raise TableError(TABLE)
    return _known(_counted(table))


def _split_rows(table: Any) -> list[dict[str, Any]]:
    names, rows = (table.get(key) if isinstance(table, dict) else None for key in ("columns", "data"))
    if not isinstance(names, list) or not isinstance(rows, list):
        raise TableError(TABLE)
    places = {name: place for place, name in enumerate(names) if isinstance(name, str) and name in COLUMNS}
    for number, row in enumerate(_counted(rows)):
        if not isinstance(row, list) or len(row) != len(names):
            raise TableError(
                f"row {number} of dataframe_split is no list of {len(names)} cells, one for each of columns"
            )
    return _known([{name: row[place] for name, place in places.items()} for row in rows])


def _column_rows(table: dict[str, Any]) -> list[dict[str, Any]]:
    """A column a key, as a list of cells, or a single cell in a table of one row."""
    columns = {name: cells for name, cells in table.items() if name in COLUMNS}
    lists = {len(_counted(cells)) for cells in columns.values() if isinstance(cells, list)}
    if columns and not lists:
        return [columns]
    if len(lists) > 1 or any(not isinstance(cells, list) for cells in columns.values()):
        raise TableError("the columns of inputs have different lengths; give each a cell for every recording")
    return _known([dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)])


def _csv_rows(data: bytes) -> list[dict[str, Any]]:
    """The rows of a CSV table; only `audio` in base64 makes sense there."""
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows = [row for row, _ in zip(reader, range(MOST_ROWS + 1), strict=False)]
    except UnicodeDecodeError:
        raise TableError("the body is no CSV in UTF-8") from None
    except csv.Error as error:
        raise TableError(f"the body is no CSV: {error}") from None
    return _known([{name: cell or None for name, cell in row.items()} for row in _counted(rows)])


def _counted(rows: list[Any]) -> list[Any]:
    if not rows:
        raise TableError("the table has no rows; give one for each recording")
    if len(rows) > MOST_ROWS:
        raise TableError(f"the table has more than {MOST_ROWS} rows; send fewer recordings a request")
    return rows


def _known(rows: list[Any]) -> list[dict[str, Any]]:
    known = [{name: row[name] for name in COLUMNS if name in row} if isinstance(row, dict) else {} for row in rows]
    if not any(known):
        raise TableError(NO_COLUMN)
    return known


READERS = {"application/json": _json_rows, "text/csv": _csv_rows}
