"""Distributed training: rank and world size of this process, its shard of the work, and the collectives it needs.

`torchrun` starts the processes, on one machine or on many. A single process has the same interface, so that no caller
has to check whether there is a process group.
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
"""How long to wait for a process that does not answer; one that has ended is noticed at once."""


class ProcessLostError(UserError):
    """Another process of the training has ended, or does not answer."""


class SingleProcess:
    """The only process of a training: every collective returns its input."""

    rank, world_size = 0, 1
    local_world_size = 1
    """Number of processes on this machine."""
    local_rank: int | None = None
    """Rank among the processes on this machine, and so the number of its GPU; None leaves the choice to torch."""
    command = "watkins"
    """How a command is started the way this process was."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, the process that tracks, writes and prints."""
        return self.rank == 0

    def shard(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """This process's rows of a batch that all processes hold; there may be none where a batch is small."""
        return tensors

    def scale_loss(self, loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Scale this shard's mean loss, over recordings of a total `weight`, for the gradients that are averaged.

        The average over the processes is then the gradient of the whole batch's mean loss.
        """
        return loss

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        return tensor

    def owns_batch(self, number: int) -> bool:
        """Whether this process computes the batch of this number when a network is evaluated.

        Batches are assigned whole, since the last bits of an output depend on what else is in the batch.
        """
        return True

    def gather(self, parts: list[torch.Tensor | int]) -> torch.Tensor:
        """The outputs of all processes, (rows, columns) on the CPU, in the order of the batches.

        Args:
            parts: for each batch its rows (n, columns) or, where another process owns it, only n.
        """
        return torch.cat([part for part in parts if isinstance(part, torch.Tensor)]).cpu()

    def broadcast(self, content: Any = None) -> Any:
        """The content that rank 0 passes, of JSON's types; the other processes pass nothing."""
        return content

    def broadcast_tensors(self, content: dict[str, Any] | None = None) -> dict[str, Any] | None:
        """The same for tensors and containers of them, which arrive on the CPU."""
        return content

    def barrier(self) -> None:
        """Wait for all processes."""

    def claim_error_report(self) -> bool:
        """Whether this process is the first to ask, and so the one that prints the error that ended the command."""
        return True

    def ignore_signals(self) -> None:
        """Ignore the launcher's signals while the record is closed: it ends all processes once one has ended."""


class ProcessGroup(SingleProcess):
    """This process as one of several; made by `init_process_group`."""

    def __init__(self, store: dist.Store, rank: int, world_size: int):
        self.rank, self.world_size, self._store = rank, world_size, store
        self.local_rank = int(os.environ["LOCAL_RANK"])
        self.batch_size = 0
        """Rows of the batch that was sharded last."""
        self.local_world_size = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["GROUP_WORLD_SIZE"])
        where = "--standalone" if nodes == 1 else f"--nnodes {nodes} --rdzv-backend c10d --rdzv-endpoint HOST:PORT"
        self.command = f"torchrun {where} --nproc-per-node {self.local_world_size} -m watkins_ml"

    def rows(self) -> slice:
        """This process's rows of the batch: consecutive ones, one more for the first ranks if they do not divide."""
        each, more = divmod(self.batch_size, self.world_size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def shard(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self.batch_size = len(tensors[0])
        return tuple(tensor[self.rows()] for tensor in tensors)

    def scale_loss(self, loss: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return loss * (weight * self.world_size / self.all_reduce(weight))

    def all_reduce(self, tensor: torch.Tensor) -> torch.Tensor:
        summed = tensor.detach().clone()
        dist.all_reduce(summed)
        return summed

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensors of all processes, stacked by rank."""
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(parts, tensor)
        return torch.stack(parts)

    def owns_batch(self, number: int) -> bool:
        return number % self.world_size == self.rank

    def gather(self, parts: list[torch.Tensor | int]) -> torch.Tensor:
        own = [part for part in parts if isinstance(part, torch.Tensor)]
        columns = torch.tensor([own[0].shape[1] if own else 0])
        dist.all_reduce(columns, dist.ReduceOp.MAX)
        rows = [torch.zeros(part, int(columns)) if isinstance(part, int) else part.cpu() for part in parts]
        gathered = torch.cat(rows)
        dist.all_reduce(gathered)  # each row is one process's, and zero with the others
        return gathered

    def broadcast(self, content: Any = None) -> Any:
        return json.loads(self._broadcast(json.dumps(content).encode() if self.is_first else b""))

    def broadcast_tensors(self, content: dict[str, Any] | None = None) -> dict[str, Any] | None:
        buffer = io.BytesIO()
        if self.is_first:
            torch.save(content, buffer)
        return torch.load(io.BytesIO(self._broadcast(buffer.getvalue())), map_location="cpu", weights_only=True)

    def _broadcast(self, content: bytes) -> bytes:
        size = torch.tensor([len(content)])
        dist.broadcast(size, 0)
        data = torch.frombuffer(bytearray(content), dtype=torch.uint8) if self.is_first else None
        data = torch.empty(int(size), dtype=torch.uint8) if data is None else data
        dist.broadcast(data, 0)
        return data.numpy().tobytes()

    def barrier(self) -> None:
        self.all_reduce(torch.zeros(1))

    def claim_error_report(self) -> bool:
        try:
            return self._store.add("error reports", 1) == 1
        except dist.DistError:  # the launcher that keeps the store is gone too
            return True

    def ignore_signals(self) -> None:
        for name in ("SIGTERM", "SIGINT", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


SINGLE_PROCESS = SingleProcess()
_current: SingleProcess = SINGLE_PROCESS


def current() -> SingleProcess:
    """This process, as one of its group."""
    return _current


def refuse(command: str) -> None:
    """Refuse, once, a command that was started by `torchrun` though several processes cannot share it.

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
def init_process_group() -> Iterator[SingleProcess]:
    """Join the process group where `torchrun` started this process; only rank 0 prints.

    Where an error ends the block in all processes, only the first one to meet it reports it.
    """
    global _current
    if not _launched():
        yield _current
        return
    store, rank, world_size = next(iter(dist.rendezvous("env://", timeout=TIMEOUT)))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=TIMEOUT)
    _current = group = ProcessGroup(store, rank, world_size)
    err.quiet = out.quiet = not group.is_first
    try:
        with detect_process_loss():
            yield group
    except BaseException as error:
        if not group.claim_error_report() and not os.environ.get("WATKINS_DEBUG"):
            raise SystemExit(2 if isinstance(error, UsageError) else 1) from None
        raise
    dist.destroy_process_group()


@contextmanager
def detect_process_loss() -> Iterator[None]:
    """Tell the loss of another process from an error of this one; after any error, ignore the launcher's signals.

    Raises:
        ProcessLostError: another process has ended or does not answer.
    """
    try:
        yield
    except BaseException as error:
        _current.ignore_signals()
        if isinstance(error, RuntimeError) and _is_loss(error):
            raise ProcessLostError(
                "another process of this training has ended, or has not answered for "
                f"{TIMEOUT.total_seconds() / 60:g} minutes"
            ) from error
        raise


def _is_loss(error: RuntimeError) -> bool:
    """gloo raises plain RuntimeErrors."""
    return _current.world_size > 1 and (isinstance(error, dist.DistError) or "gloo" in str(error))
