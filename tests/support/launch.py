"""Commands of several processes, started by torch's own launcher as a user would, or forked as it would start them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support import ROOT, forked
from tests.support.children import Command

NOBODY = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
"""The environment of a training that nobody tracks."""


class Launched:
    """One launcher with its processes; what they say is in `output`."""

    def __init__(
        self, folder: Path, *arguments: object, count: int = 2, nodes: tuple = (), fork: bool = False,
        **environment: str,
    ):  # fmt: skip
        """With `fork` neither the launcher nor its processes import their libraries; then `pid` knows none."""
        self.output = folder / f"output-{time.monotonic_ns()}.txt"
        where = nodes or ("--standalone",)
        command = [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node", count, *arguments]
        with open(self.output, "w") as terminal:
            start, more = subprocess.Popen, {"preexec_fn": _hear_signals}
            if fork:
                start, more = forked.Popen, {"fresh": True}
                environment |= forked.children_too() | {"PYTHONPATH": str(ROOT)}
            self.process = start(
                [str(part) for part in command], cwd=folder, env=_untracked() | environment, stdout=terminal,
                stderr=subprocess.STDOUT, start_new_session=True, **more,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def lines(self) -> list[str]:
        """The lines in which our processes say how the command ended."""
        return [line for line in self.said.splitlines() if line.startswith("watkins: ")]

    def wait(self, timeout: float = 240) -> int:
        """The launcher's exit status; one that hangs is an error."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"still running after {timeout} s; it said:\n{self.said}") from None

    def pid(self, rank: int) -> int:
        """The process of a rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (found,) = [
            int(child) for child in children if f"RANK={rank}" in Path(f"/proc/{child}/environ").read_text().split("\0")
        ]
        return found

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)


class Forked:
    """`watkins` (or `main`) in the processes that a launcher would start, one a folder, without its imports."""

    def __init__(self, folders: Sequence[Path], *arguments: object, main=None, **environment: str):
        from torch.distributed import TCPStore

        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        count = str(len(folders))
        machines = str(len(set(folders)))
        common = {
            "TORCHELASTIC_RUN_ID": "forked", "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0",
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self._store.port), "WORLD_SIZE": count,
            "GROUP_WORLD_SIZE": machines, "LOCAL_WORLD_SIZE": str(len(folders) // len(set(folders))),
        }  # fmt: skip
        self.commands = [
            Command(
                folder, *arguments, uri=NOBODY["MLFLOW_TRACKING_URI"], main=main, RANK=str(rank),
                LOCAL_RANK=str(folders[:rank].count(folder)), **NOBODY | common | environment,
            )
            for rank, folder in enumerate(folders)
        ]  # fmt: skip

    def wait(self, timeout: float = 120) -> list[int]:
        """The exit statuses by rank; a process that hangs is an error, and none outlives this."""
        try:
            return [command.wait(timeout) for command in self.commands]
        finally:
            for command in self.commands:
                command.kill_after(0)

    @property
    def said(self) -> str:
        return "".join(command.said for command in self.commands)

    @property
    def lines(self) -> list[str]:
        """The lines in which the processes say how the command ended."""
        return [line for line in self.said.splitlines() if line.startswith("watkins: ")]


@contextmanager
def two_machines(folders: tuple[Path, Path], port: int, *arguments: object, **environment) -> Iterator[list[Launched]]:
    """Two launchers that meet at a port of this machine, with one process each; rank 0 is in the first folder."""
    launched = []
    for rank, folder in enumerate(folders):
        meet = ("--nnodes", 2, "--node-rank", rank, "--master-addr", "127.0.0.1", "--master-port", port)
        launched.append(Launched(folder, *arguments, count=1, nodes=meet, fork=True, **environment))
    try:
        yield launched
    finally:
        for each in launched:
            each.stop()


def _untracked() -> dict[str, str]:
    """The environment without the stores that MLflow has written into it for other tests."""
    return {
        name: value for name, value in os.environ.items() if name not in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    }


def _hear_signals() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
