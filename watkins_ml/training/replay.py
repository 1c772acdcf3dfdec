"""A training step recorded once as a CUDA graph and replayed, so that a GPU does not wait for Python.

Without it a small network is bound by the thousand kernels that Python starts one by one in each step (Nvidia and
PyTorch, Accelerating PyTorch with CUDA Graphs, 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[..., torch.Tensor]

WARM_UP = 3
"""Steps that are taken as they are before one is recorded; libraries choose kernels and take memory in them."""


class Replayed:
    """A step on tensors of a GPU, to be called like it. What it gives is valid until the next call.

    The recording holds numbers as they were, so a step is recorded anew when `settings`, which returns all that may
    change between steps, returns something else. A batch of another shape (the last of an epoch) is not replayed.
    """

    def __init__(self, step: Step, settings: Callable[[], object]):
        self._step, self._settings = step, settings
        self._stream = torch.cuda.Stream()  # nothing may be recorded on the default one
        self._shapes: list[torch.Size] = []
        self._steps = 0
        """Taken on batches of these shapes."""
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
        shapes = [each.shape for each in batch]
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            return self._step(*batch)
        self._steps += 1
        if self._steps <= WARM_UP:
            return self._aside(*batch)
        if self._graph is None or self._recorded_with != self._settings():
            self._record(batch)
        for kept, each in zip(self._batch, batch, strict=True):
            kept.copy_(each)
        self._graph.replay()
        return self._output

    def _aside(self, *batch: torch.Tensor) -> torch.Tensor:
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            output = self._step(*batch)
        here.wait_stream(self._stream)
        return output

    def _record(self, batch: tuple[torch.Tensor, ...]) -> None:
        self._graph = self._output = None  # gives the memory of an earlier one back
        self._batch = [each.clone() for each in batch]
        self._recorded_with = self._settings()
        self._graph = torch.cuda.CUDAGraph()
        # other threads meanwhile fetch the next batches, which must not end the recording
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._output = self._step(*self._batch)
