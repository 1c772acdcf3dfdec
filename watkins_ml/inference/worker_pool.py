"""A pool of threads, each with one core, whose results come in the order of what they were given."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool:
    """As many threads as torch would use (`OMP_NUM_THREADS` sets that), one fewer where the network is on a GPU.

    On the CPU a thread makes the spectrograms of a few windows and puts them through the network by itself: threads
    that share every layer wait for each other, and large batches leave the caches.
    """

    def __init__(self, network: torch.nn.Module):
        on_cpu = next(network.parameters()).device.type == "cpu"
        self.threads = max(1, torch.get_num_threads() - (not on_cpu))
        self.batch_size = 4 if on_cpu else 32
        """Windows that go through the network at once."""
        self.device_lock: AbstractContextManager = nullcontext() if on_cpu else threading.Lock()
        """Held while the network computes: a GPU takes one batch after the other, so that its memory is that of one."""

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
        """Each item with its result; items are read only a few ahead."""
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            pending: deque[tuple[Item, Future[Result]]] = deque()
            for item in items:
                pending.append((item, pool.submit(work, item)))
                while pending and (len(pending) > self.threads + 1 or pending[0][1].done()):
                    done, future = pending.popleft()
                    yield done, future.result()
            for done, future in pending:
                yield done, future.result()
