"""Threads that judge side by side, each with one core; what they find comes back in the order of what was given."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

Item, Found = TypeVar("Item"), TypeVar("Found")


class Workers:
    """As many threads as torch would use (`OMP_NUM_THREADS` sets that), one fewer where the network is on a GPU.

    On the CPU a thread makes the spectrograms of a few windows and puts them through the network by itself: threads
    that share every layer wait for each other, and large batches leave the caches.
    """

    def __init__(self, network: torch.nn.Module):
        on_cpu = next(network.parameters()).device.type == "cpu"
        self.threads = max(1, torch.get_num_threads() - (not on_cpu))
        self.batch = 4 if on_cpu else 32
        """Windows that go through the network at once."""
        self.turn: AbstractContextManager = nullcontext() if on_cpu else threading.Lock()
        """Held while the network works: a GPU takes one batch after the other, so that its memory is that of one."""

    def in_order(self, work: Callable[[Item], Found], items: Iterable[Item]) -> Iterator[tuple[Item, Found]]:
        """Each item with what `work` makes of it; items are read only a few ahead."""
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            under_way: deque[tuple[Item, Future[Found]]] = deque()
            for item in items:
                under_way.append((item, pool.submit(work, item)))
                while under_way and (len(under_way) > self.threads + 1 or under_way[0][1].done()):
                    done, future = under_way.popleft()
                    yield done, future.result()
            for done, future in under_way:
                yield done, future.result()
