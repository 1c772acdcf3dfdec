"""What the registered model takes: a table in which each row is one recording, as a file's bytes, a path or samples."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pandas as pd
import soundfile
import torch
from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT as BEHIND_HTTP
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import AnyType, Map

from watkins_ml.audio.files import FileFrontend
from watkins_ml.audio.opening import AudioError, open_audio
from watkins_ml.core.errors import UserError

FORMS = ("audio", "path", "waveform")
COLUMNS = (*FORMS, "sample_rate")
NO_COLUMN = "the table has none of the columns audio, path and waveform; give one of them"
MOST_MIB = 64
"""Of one recording: a file's bytes, or samples at four bytes each."""
MOST_SAMPLES = 1 << 28
"""Of one file over all its channels: some megabytes of FLAC can unpack to hours of next to nothing."""
MOST_CHANNELS = 64

# "any" and optional, since MLflow's own types allow no empty cell in a binary, array or integer column, decode base64
# that is none without a word, and name no row in their errors; the types are checked below
INPUTS = Schema([ColSpec(AnyType(), name, required=False) for name in COLUMNS])
OUTPUTS = Schema(
    [
        ColSpec(DataType.string, "species"),
        ColSpec(DataType.double, "probability"),
        ColSpec(Map(DataType.double), "probabilities"),
        ColSpec(DataType.double, "novelty"),
    ]
)


class ServingError(MlflowException):
    """An error whose message alone is sent to a client over HTTP.

    MLflow's scoring server writes the table in front of the message, which `str` of the exception is without.
    """

    def serialize_as_json(self) -> str:
        self.message = str(self)
        return super().serialize_as_json()


class TableError(ServingError):
    """A table that cannot be used; over HTTP status 400."""

    def __init__(self, sentence: str):
        super().__init__(sentence, INVALID_PARAMETER_VALUE)


class Budget(Protocol):
    """Limits how much of a table is used; raises TableError where row `number` is too much."""

    def spend(self, number: int, seconds: float = 0.0, windows: int = 0) -> None: ...


def table_windows(
    frontend: FileFrontend, table: pd.DataFrame, budget: Budget | None = None, first: int = 0
) -> Iterator[torch.Tensor]:
    """The windows of each row's recording, (n, 1, n_mels, frames), one after the other.

    A row has one of `audio` (bytes of an audio file, or a string of them in base64), `path` (only in the process that
    loaded the model), and `waveform` with `sample_rate` in Hz: numbers of full scale ±1, shape (samples,) or
    (samples, channels). The other cells are absent, None or NaN.

    Args:
        budget: is charged for each row's sound before it is decoded, and for its windows before the network gets them.
        first: the number of the first row, where the table is a part of one.

    Raises:
        TableError: no such column, no rows, or a row that cannot be used, which is named (counted from 0).
    """
    if not set(FORMS) & set(table.columns):
        raise TableError(NO_COLUMN)
    if table.empty:
        raise TableError("the table has no rows; give one for each recording")
    for number, row in enumerate(table.to_dict("records"), start=first):
        try:
            source, seconds = _source(row)
            if budget is not None:
                budget.spend(number, seconds=seconds)
            windows = frontend.file_windows(source)
        except AudioError as error:
            raise TableError(f"row {number} holds no usable audio ({error}); mend it or leave it out") from None
        except UserError as error:
            raise TableError(f"row {number}: {error}") from None
        if budget is not None:
            budget.spend(number, windows=len(windows))
        yield windows


def _source(row: dict[str, object]) -> tuple[Path | BinaryIO, float]:
    """What the frontend reads for one row, and how many seconds of sound that is (0 where that is not known before).

    Raises:
        UserError: cells of a wrong kind or size.
    """
    given = {name: cell for name, cell in row.items() if not (pd.api.types.is_scalar(cell) and pd.isna(cell))}
    forms = [name for name in FORMS if name in given]
    if len(forms) != 1:
        raise UserError(f"has {' and '.join(forms) or 'no recording'}; give exactly one of audio, path and waveform")
    if "audio" in given:
        return _file(given["audio"])
    if "path" in given:
        return _path(given["path"]), 0.0
    return _recorded(given["waveform"], given.get("sample_rate"))


def _file(audio: object) -> tuple[BinaryIO, float]:
    if isinstance(audio, str):
        _check_size(len(audio) * 3 // 4)
        try:
            audio = base64.b64decode("".join(audio.split()), validate=True)
        except (binascii.Error, ValueError):
            raise UserError("audio is a string, but not base64; encode the bytes of the audio file") from None
    if not isinstance(audio, bytes | bytearray):
        raise UserError(f"audio is of type {type(audio).__name__}; give the bytes of one audio file a row")
    if not audio:
        raise AudioError("empty: no bytes")
    _check_size(len(audio))
    file, seconds = io.BytesIO(audio), 0.0
    try:
        with open_audio(file) as sound:
            seconds = max(sound.frames, 0) / sound.samplerate
            if sound.frames * sound.channels > MOST_SAMPLES:
                raise UserError(f"audio unpacks to over {MOST_SAMPLES:,} samples; cut it into shorter files")
    except soundfile.LibsndfileError:
        pass  # the frontend gives the reason
    file.seek(0)
    return file, seconds


def _path(path: object) -> Path:
    if BEHIND_HTTP.get():  # whoever may send requests must not learn what files this machine has
        raise UserError("a server reads no paths; send the bytes of the file as audio, in base64")
    if not isinstance(path, str | os.PathLike):
        raise UserError(f"path is of type {type(path).__name__}; give one string a row")
    return Path(path)


def _recorded(waveform: object, sample_rate: object) -> tuple[BinaryIO, float]:
    """The WAV file that the waveform was read from, so that files and waveforms take the same code."""
    if (
        not isinstance(sample_rate, int | float)
        or isinstance(sample_rate, bool)
        or not 1 <= sample_rate < 2**31
        or sample_rate != int(sample_rate)
    ):
        raise UserError("a waveform needs a sample_rate in Hz, a whole number from 1")
    try:
        samples = np.asarray(waveform)
    except ValueError:  # lists of unequal lengths
        samples = np.empty(0, dtype=object)
    if samples.dtype.kind not in "fiu" or samples.ndim not in (1, 2):
        raise UserError("waveform is not a list of numbers; give samples, or for several channels a list a sample")
    _check_size(4 * samples.size)
    if samples.size == 0:
        raise AudioError("empty: no samples")
    if samples.ndim == 2 and samples.shape[1] > MOST_CHANNELS:
        raise UserError(f"waveform has {samples.shape[1]} channels; its shape is (samples, channels), not the reverse")
    file = io.BytesIO()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, which the decoder refuses
        samples = samples.astype(np.float32)
    soundfile.write(file, samples, int(sample_rate), format="WAV", subtype="FLOAT")
    file.seek(0)
    return file, len(samples) / sample_rate


def _check_size(count: int) -> None:
    if count > MOST_MIB << 20:
        raise UserError(f"the recording has {count / 2**20:.1f} MiB, more than {MOST_MIB}; cut it into shorter ones")
