"""The processes of one training: which of them this is, its part of the work, and what they tell each other.

`torchrun` starts them, on one machine or on many. A process that is alone answers every question as a group of one
would, so that nobody has to ask whether there is a group.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed as dist

from watkins_ml.core.console import err, out
from watkins_ml.core.errors import UsageError, UserError

TIMEOUT = timedelta(minutes=10)
"""A process that is dead is noticed at once; one that is silent, or whose machine is gone, after so long."""


class LostError(UserError):
    """Another process of the training has ended, or is silent."""


class Alone:
    """The only process of a training."""

    rank, count = 0, 1
    here = 1
    """How many of them are on this machine."""
    local_rank: int | None = None
    """Which of the processes on this machine, and so which of its GPUs; None: whichever torch takes."""
    command = "watkins"
    """How a command is started the way this process was."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that tracks, writes and prints."""
        return self.rank == 0

    def share(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """This process's rows of what all have of one batch; there may be none where a batch is small."""
        return tensors

    def share_of(self, loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """A mean loss over recordings of some weight, so scaled that the mean gradient is that of the whole batch."""
        return loss

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        return tensor

    def deals(self, number: int) -> bool:
        """Whether the batch of this number is this process's to judge.

        Batches are dealt whole: the last bits of what a network gives depend on what else is in the batch.
        """
        return True

    def merge(self, parts: list[torch.Tensor | int]) -> torch.Tensor:
        """What all processes made of their batches, (rows, columns) on the CPU, in the order of the batches.

        Args:
            parts: for each batch its rows (n, columns) or, where another process has them, only n.
        """
        return torch.cat(parts).cpu()

    def told(self, content: Any = None) -> Any:
        """What the first process says, in JSON's types; the others only listen."""
        return content

    def told_tensors(self, content: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The same for tensors and containers of them, which arrive on the CPU."""
        return content

    def barrier(self) -> None:
        """Wait until all have come here."""

    def speaks(self) -> bool:
        """Whether this process may say how the command ended: the first to ask, lest each repeats it."""
        return True

    def ignore_signals(self) -> None:
        """Close the record in peace: the launcher ends whoever is left when one process has ended."""


class Group(Alone):
    """This process among several; made by `joined`."""

    def __init__(self, store: dist.Store, rank: int, count: int):
        self.rank, self.count, self._store = rank, count, store
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.batch = 0
        """Rows of the batch that is shared out."""
        self.here = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["GROUP_WORLD_SIZE"])
        where = "--standalone" if nodes == 1 else f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        self.command = f"torchrun {where} --nproc-per-node {self.here} -m watkins_ml"

    def rows(self) -> slice:
        """Which rows of the batch are this process's: consecutive ones, the first processes having one more."""
        each, more = divmod(self.batch, self.count)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def share(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.batch = len(tensors[0])
        return tuple(tensor[self.rows()] for tensor in tensors)

    def share_of(self, loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return loss * (weight * self.count / self.total(weight))

    def total(self, tensor: torch.Tensor) -> torch.Tensor:
        summed = tensor.detach().clone()
        dist.all_reduce(summed)
        return summed

    def gathered(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, stacked by rank."""
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def deals(self, number: int) -> bool:
        return number % self.count == self.rank

    def merge(self, parts: list[torch.Tensor | int]) -> torch.Tensor:
        mine = [part for part in parts if isinstance(part, torch.Tensor)]
        columns = torch.tensor([mine[0].shape[1] if mine else 0])
        dist.all_reduce(columns, dist.ReduceOp.MAX)
        rows = [torch.zeros(part, int(columns)) if isinstance(part, int) else part.cpu() for part in parts]
        merged = torch.cat(rows)
        dist.all_reduce(merged)  # each row is one process's, and zero with the others
        return merged

    def told(self, content: Any = None) -> Any:
        return json.loads(self._told(json.dumps(content).encode() if self.is_first else b""))

    def told_tensors(self, content: dict[str, Any] | None = None) -> dict[str, Any] | None:
        buffer = io.BytesIO()
        if self.is_first:
            torch.save(content, buffer)
        return torch.load(io.BytesIO(self._told(buffer.getvalue())), map_location="cpu", weights_only=True)

    def _told(self, content: bytes) -> bytes:
        size = torch.tensor([len(content)])
        dist.broadcast(size, 0)
        letters = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_first else None
        letters = torch.empty(int(size), dtype=torch.uint8) if letters is None else letters
        dist.broadcast(letters, 0)
        return letters.numpy().tobytes()

    def barrier(self) -> None:
        self.total(torch.zeros(1))

    def speaks(self) -> bool:
        try:
            return self._store.add("spoken", 1) == 1
        except dist.DistError:  # the launcher that keeps the store is gone too
            return True

    def ignore_signals(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


ALONE = Alone()
_current = ALONE


def current() -> Alone:
    """The group that this process belongs to."""
    return _current


def refuse(command: str) -> None:
    """A command that several processes cannot share says so once, under `torchrun`.

    Raises:
        UsageError: in the first process; the others only exit.
    """
    if _launched():
        if os.environ["RANK"] != "0":
            sys.exit(2)
        raise UsageError(f"{command}: only `train` can be shared by processes of torchrun; start it without torchrun")


def _launched() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ["WORLD_SIZE"]) > 1


@contextmanager
def joined() -> Iterator[Alone]:
    """Be one of the processes that `torchrun` started, if it did; all but the first are silent.

    What ends the block with an error in all processes, each for its own reason, is said by the first that knows.
    """
    global _current
    if not _launched():
        yield _current
        return
    store, rank, count = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=TIMEOUT)
    _current = group = Group(store, rank, count)
    err.quiet = out.quiet = not group.is_first
    try:
        with noticing_losses():
            yield group
    except BaseException as error:
        if not group.speaks() and not os.environ.get("WATKINS_DEBUG"):
            raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
        raise
    dist.destroy_process_group()


@contextmanager
def noticing_losses() -> Iterator[None]:
    """Tell the end of another process from an error of this one; then, or after any error, close in peace.

    Raises:
        LostError: another process has ended or is silent.
    """
    try:
        yield
    except BaseException as error:
        _current.ignore_signals()
        if isinstance(error, RuntimeError) and _is_loss(error):
            raise LostError(
                "another process of this training has ended, or has not answered for "
                f"{TIMEOUT.total_seconds() / 60:g} minutes"
            ) from error
        raise


def _is_loss(error: RuntimeError) -> bool:
    """gloo's errors are of no kind of their own."""
    return _current.count > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))
