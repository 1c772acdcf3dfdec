"""A training step captured once as a CUDA graph and replayed, so that a GPU does not wait for Python.

Without it a small network is bound by launching a thousand kernels one by one in each step (Nvidia and PyTorch,
Accelerating PyTorch with CUDA Graphs, 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[..., torch.Tensor]

WARM_UP = 3
"""Steps run eagerly before one is captured; libraries choose kernels and allocate memory in them."""


class CudaGraphed:
    """A step on GPU tensors, called like the step itself. Its output is valid until the next call.

    A graph holds Python numbers as constants, so the step is captured anew when `settings`, which returns all of them
    that may change between steps, returns another value. A batch of another shape (the last of an epoch) runs eagerly.
    """

    def __init__(self, step: Step, settings: Callable[[], object]):
        self._step, self._settings = step, settings
        self._stream = torch.cuda.Stream()  # the default one cannot be captured
        self._shapes: list[torch.Size] = []
        self._steps = 0
        """Run on batches of these shapes."""
        self._graph: torch.cuda.CUDAGraph | None = None
        self._output: torch.Tensor | None = None

    def __call__(self, *batch: torch.Tensor) -> torch.Tensor:
        shapes = [each.shape for each in batch]
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            return self._step(*batch)
        self._steps += 1
        if self._steps <= WARM_UP:
            return self._warm_up(*batch)
        if self._graph is None or self._captured_settings != self._settings():
            self._capture(batch)
        for static, each in zip(self._batch, batch, strict=True):
            static.copy_(each)
        assert self._graph is not None and self._output is not None
        self._graph.replay()
        return self._output

    def _warm_up(self, *batch: torch.Tensor) -> torch.Tensor:
        here = torch.cuda.current_stream()
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            output = self._step(*batch)
        here.wait_stream(self._stream)
        return output

    def _capture(self, batch: tuple[torch.Tensor, ...]) -> None:
        self._graph = self._output = None  # frees the memory of an earlier graph
        self._batch = [each.clone() for each in batch]
        self._captured_settings = self._settings()
        self._graph = torch.cuda.CUDAGraph()
        # other threads fetch the next batches meanwhile, which must not invalidate the capture
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            self._output = self._step(*self._batch)
