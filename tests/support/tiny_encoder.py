"""A pretrained encoder small enough for tests: the energy of a waveform in a few bands, as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE, WINDOW_S, SIZE = 8_000, 0.1, 12
WINDOW = round(RATE * WINDOW_S)
SECTION = [
    f"model.size={SIZE}",
    f"model.sample_rate={RATE}",
    f"model.window_s={WINDOW_S}",
    "model.seconds=0.4",
    "model.speeds=[1.0, 0.5]",
]
"""Overrides of `experiments/encoder.yaml`, beside `model.encoder`."""


def write_tiny_encoder(file: Path, window: int = WINDOW, size: int = SIZE, gain: float = 1.0) -> Path:
    """Write an encoder with two outputs, `classes` (1, 2) and `embedding` (1, size), of a waveform (1, window)."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    block = 100
    time = np.arange(block) / RATE
    bands = np.stack([np.cos(2 * np.pi * RATE / 2 / size * (number + 0.5) * time) for number in range(size)], axis=1)
    constants = {
        "blocks": np.array([1, window // block, block]),
        "bands": bands.astype(np.float32) * np.float32(gain),
        "axes": np.array([1]),
        "last": np.ones((size, 2), np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["waveform", "blocks"], ["frames"]),
        helper.make_node("MatMul", ["frames", "bands"], ["amplitudes"]),
        helper.make_node("Mul", ["amplitudes", "amplitudes"], ["powers"]),
        helper.make_node("ReduceMean", ["powers", "axes"], ["embedding"], keepdims=0),
        helper.make_node("MatMul", ["embedding", "last"], ["classes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, [1, window])],
        [
            helper.make_tensor_value_info("classes", TensorProto.FLOAT, [1, 2]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [1, size]),
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, str(file))
    return file
