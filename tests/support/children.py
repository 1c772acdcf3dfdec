"""`watkins` commands in processes of their own that can be killed, without paying for the imports each time."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["watkins_ml.runs.train", "watkins_ml.cli", "watkins_ml.evaluation.report", "mlflow.pyfunc", "sklearn.metrics"]
)


@dataclass(frozen=True)
class KillAt:
    """Die by SIGKILL just before the n-th time that something becomes durable (a flush or a rename)."""

    number: int

    def install(self) -> None:
        count = 0

        def deadly(operation: Callable) -> Callable:
            def call(*arguments, **named):
                nonlocal count
                count += 1
                if count == self.number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*arguments, **named)

            return call

        os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)


@dataclass(frozen=True)
class DiskFull:
    """From the n-th checkpoint on the kernel refuses files of more than 100 kB."""

    checkpoint: int

    def install(self) -> None:
        from watkins_ml.training import loop

        original, count = loop.save_last, 0

        def save(*arguments) -> None:
            nonlocal count
            count += 1
            if count == self.checkpoint:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
            original(*arguments)

        loop.save_last = save


class Command:
    """A running `watkins` command (or `main` of another program); its terminal output is in `output`."""

    def __init__(
        self, folder: Path, *arguments: object, uri: str | None = None, fault=None,
        main: Callable[[], None] | None = None, **environment: str,
    ):  # fmt: skip
        self.output = folder / f"output-{time.monotonic_ns()}.txt"
        words = ["watkins", *map(str, arguments)]
        uri = uri or os.environ.get("MLFLOW_TRACKING_URI")  # the fork server has the environment that it began with
        self.process = CONTEXT.Process(target=_run, args=(folder, words, uri, fault, main, environment, self.output))
        self.process.start()

    def kill_after(self, seconds: float) -> bool:
        """SIGKILL after so long; False if the command had ended by itself."""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        return self.process.exitcode == -signal.SIGKILL

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still, as under a debugger."""
        self.send(signal.SIGSTOP)
        yield
        self.send(signal.SIGCONT)

    def wait(self, timeout: float = 300) -> int:
        """The exit status; a command that hangs is an error."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            raise AssertionError(f"still running after {timeout} s; it said:\n{self.said}")
        return self.process.exitcode

    @property
    def said(self) -> str:
        return self.output.read_text() if self.output.exists() else ""


def wait_for_epochs(folder: Path, count: int) -> None:
    history, deadline = folder / "run" / "history.csv", time.monotonic() + 120
    while time.monotonic() < deadline:
        if history.exists() and history.read_text().count("\n") > count:
            return
        time.sleep(0.02)
    raise AssertionError(f"no {count} epochs in two minutes")


def hear_signals() -> None:
    """As in a terminal: a shell's background job is deaf to SIGINT, and one under `nohup` to SIGHUP."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _run(folder: Path, words: list[str], uri: str | None, fault, main, environment: dict, output: Path) -> None:
    hear_signals()
    os.chdir(folder)
    os.environ |= environment
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = uri
    terminal = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(terminal, 1)
    os.dup2(terminal, 2)
    import torch

    from tests.support.pictures import blank, drawing
    from watkins_ml import cli

    torch.set_num_threads(1)
    if fault is not None:
        fault.install()
    sys.argv = words
    with drawing(blank):
        (main or cli.main)()
    sys.exit(0)


def work_without_pictures(*arguments) -> None:
    """What a worker process of a study does, on one core and without drawing anything."""
    import torch

    from tests.support.pictures import blank, drawing
    from watkins_ml.tuning.worker import work

    torch.set_num_threads(1)
    with drawing(blank):
        work(*arguments)
