"""The process behind `forked`: it has the large libraries and forks itself into each command that it is asked for.

`python fork_server.py FOLDER` listens at FOLDER/libraries and, with the modules of `watkins_ml` as well, at
FOLDER/watkins. Both processes import only when they are first asked, and end when their standard input does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import logging
import os
import pkgutil
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LIBRARIES = (
    "torch", "torchvision", "mlflow", "mlflow.pyfunc", "mlflow.server.fastapi_app", "mlflow.cli", "pandas", "optuna",
    "sklearn.metrics", "matplotlib.figure", "scipy.signal", "soundfile", "uvicorn", "yaml", "typer", "pydantic",
)  # fmt: skip
OPTIONAL = ("timm", "uvicorn.protocols.http.auto", "uvicorn.lifespan.on", "mlflow.store.tracking.sqlalchemy_store")
CHILDREN = "WATKINS_TEST_FORKED_PYTHON"
"""The variable with a stand-in for the interpreter, by which a program starts others; see `forked.stand_in`."""
BLANK = "WATKINS_TEST_BLANK_PICTURES"
ROOT = Path(__file__).resolve().parents[2]


def import_libraries() -> None:
    for name in LIBRARIES:
        importlib.import_module(name)
    for name in OPTIONAL:
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    import torch

    torch.set_num_threads(1)


def import_watkins() -> None:
    sys.path.insert(0, str(ROOT))
    import watkins_ml

    for module in pkgutil.walk_packages(watkins_ml.__path__, "watkins_ml."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    del sys.path[0]


class Asked:
    """A command in a process of ours, and the connection of who asked for it."""

    def __init__(self, connection: socket.socket):
        self.connection = connection
        message, self.files, _, _ = socket.recv_fds(connection, 1 << 20, 3)
        while not message.endswith(b"\n"):
            message += connection.recv(1 << 20)
        self.wanted: dict = json.loads(message)

    def become(self) -> list[str]:
        """In the child: take on everything that was asked for except the program, of which the words are returned."""
        if self.wanted["session"]:
            os.setsid()
        for number, file in enumerate(self.files):
            os.dup2(file, number)
            os.close(file)
        os.chdir(self.wanted["cwd"])
        os.environ.clear()
        os.environ.update(self.wanted["env"])
        for name, limit in self.wanted["limits"].items():
            resource.setrlimit(int(name), (limit, limit))
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        open_streams()
        return self.wanted["words"]


def open_streams() -> None:
    """As the interpreter does when it starts, in the encoding of PYTHONIOENCODING."""
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "").partition(":")
    how = {"encoding": encoding or "utf-8", "closefd": False}
    before = sys.stderr
    sys.stdin = sys.__stdin__ = open(0, errors=errors or "strict", **how)
    sys.stdout = sys.__stdout__ = open(1, "w", errors=errors or "strict", **how)
    sys.stderr = sys.__stderr__ = open(2, "w", errors="backslashreplace", buffering=1, **how)
    for reference in logging._handlerList:
        if isinstance(handler := reference(), logging.StreamHandler) and handler.stream is before:
            handler.stream = sys.stderr


def serve(folder: Path) -> list[str]:
    """Answer for ever; returns in every child, with the words of its command."""
    listeners = {name: socket.socket(socket.AF_UNIX) for name in ("libraries", "watkins")}
    for name, listener in listeners.items():
        listener.bind(str(folder / name))
        listener.listen(64)
    print("ready", flush=True)
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    running: dict[int, Asked] = {}
    imported = False
    while True:
        ready, _, _ = select.select([wake, 0, *listeners.values()], [], [])
        if wake in ready:
            os.read(wake, 4096)
            tell_ended(running)
        if 0 in ready:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        for name in [name for name, listener in listeners.items() if listener in ready]:
            if not imported:
                import_libraries()
                imported = True
            if len(listeners) == 2 and name == "watkins":
                if os.fork():
                    listeners.pop(name).close()
                    continue
                listeners.pop("libraries").close()
                signal.set_wakeup_fd(-1)
                for end in (wake, woken):
                    os.close(end)
                wake, woken = os.pipe()
                for end in (wake, woken):
                    os.set_blocking(end, False)
                signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
                running = {}
                import_watkins()
                gc.collect()
                gc.freeze()
            asked = Asked(listeners[name].accept()[0])
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                for end in (wake, woken):
                    os.close(end)
                for each in (*listeners.values(), asked.connection, *(one.connection for one in running.values())):
                    each.close()
                return asked.become()
            for file in asked.files:
                os.close(file)
            running[pid] = asked
            asked.connection.sendall(f"{pid}\n".encode())


def tell_ended(running: dict[int, Asked]) -> None:
    while True:
        try:
            pid, status, used = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        if pid in running:
            connection = running.pop(pid).connection
            try:
                connection.sendall(f"{status} {used.ru_utime + used.ru_stime}\n".encode())
            except OSError:  # who asked is gone
                pass
            connection.close()


def end(program: Callable[[], None]) -> None:
    """Run a program and end as the interpreter does, but without clearing away the modules, which takes a second."""
    status: object = 0
    try:
        program()
    except SystemExit as ended:
        status = ended.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__.tb_next)
        status = "" if isinstance(error, KeyboardInterrupt) else 1
    if isinstance(status, str) and status:
        print(status, file=sys.stderr)
    threading._shutdown()
    atexit._run_exitfuncs()
    code = status if isinstance(status, int) else int(status is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = 120
            if stream is sys.stdout:
                with suppress(OSError):
                    os.write(2, f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}\n".encode())
        except (AttributeError, ValueError):  # None, or closed by the program
            pass
    if status == "":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def leave_pictures_blank() -> None:
    """As `pictures.blank`, which would import pytest."""
    from PIL import Image

    plots = importlib.import_module("watkins_ml.evaluation.plots")
    plots.draw = lambda figure: Image.new("RGB", tuple(round(inches * 10) for inches in figure.get_size_inches()))


def run(words: list[str]) -> None:
    """The program of `words`, which are what follows `python`."""
    import runpy

    sys.executable = os.environ.get(CHILDREN, sys.executable)
    inherited = os.environ.get("PYTHONPATH", "")
    sys.path[:0] = [part for part in inherited.split(os.pathsep) if part]
    importlib.invalidate_caches()
    while words[0] in ("-X", "-u"):
        if words[0] == "-u":
            sys.stdout.reconfigure(write_through=True)
            words = words[1:]
            continue
        if words[1] == "faulthandler":
            import faulthandler

            faulthandler.enable()
        words = words[2:]
    if os.environ.get(BLANK) and words[:2] == ["-m", "watkins_ml"]:
        leave_pictures_blank()
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    del sys.path[0]  # the folder of this file
    ours = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [part for part in sys.path if part not in ours]
    words = serve(Path(sys.argv[1]))
    end(lambda: run(words))
