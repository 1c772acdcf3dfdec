"""Python commands in processes of their own that need not import torch, MLflow and pandas, which takes seconds.

`Popen` and `run` are those of `subprocess` for commands that begin with `sys.executable`. What such a process does
from the first line of the program on is what it does elsewhere: arguments, environment, working folder, the three
streams, signals, exit status. Its libraries were imported before, by the process that it was forked from
(`fork_server`). What is about the start of the interpreter, the imports or the whole memory must be started really.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

VARIABLE = "WATKINS_TEST_FORKS"
BLANK = "WATKINS_TEST_BLANK_PICTURES"
"""Set where a forked `watkins` is to leave pictures blank, as `pictures.drawing` does in this process."""
SERVER = Path(__file__).with_name("fork_server.py")
MODULES = {"python": "", "watkins": "watkins_ml", "mlflow": "mlflow", "uvicorn": "uvicorn"}
STAND_IN = """#!{python} -IS
import os, sys
sys.path.insert(0, {support!r})
os.environ["WATKINS_TEST_FORKS"] = {folder!r}
import forked
forked.stand_in(os.path.basename(sys.argv[0]), sys.argv[1:])
"""
cpu_spent = 0.0
"""Processor seconds of all commands that ended, for `cpu_times`: they are no children of this process."""


@contextmanager
def fork_server() -> Iterator[None]:
    """Inside, this process and those that inherit its environment may fork commands."""
    folder = tempfile.mkdtemp(prefix="watkins-forks-")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with open(Path(folder) / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, SERVER, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            env=environment, start_new_session=True,
        )  # fmt: skip
    process.stdout.readline()  # it listens
    (programs := Path(folder, "bin")).mkdir()
    for name in MODULES:
        (programs / name).write_text(STAND_IN.format(python=sys.executable, folder=folder, support=str(SERVER.parent)))
        (programs / name).chmod(0o755)
    os.environ[VARIABLE] = folder
    try:
        yield
    finally:
        del os.environ[VARIABLE]
        process.stdin.close()
        process.wait()
        process.stdout.close()
        shutil.rmtree(folder)


class Popen(subprocess.Popen):
    """`subprocess.Popen` of a Python program.

    Args:
        fresh: without the modules of this package, for a program that has another copy of it in its PYTHONPATH
        limits: of `resource.setrlimit`, by the number of the resource; of memory, what the libraries take counts
    """

    def __init__(self, words, *, fresh: bool = False, limits: Mapping[int, int] | None = None, **how):
        words = [str(word) for word in words]
        assert words[0] == sys.executable, "only Python programs are forked"
        self._fresh, self._limits = fresh, dict(limits or {})
        super().__init__(words, **how)

    def _execute_child(
        self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell,
        p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, restore_signals, gid, gids, uid, umask,
        start_new_session, process_group,
    ):  # fmt: skip
        assert preexec_fn is None and not pass_fds and not shell, "not for forked programs"
        wanted = {
            "words": args[1:], "cwd": str(cwd or os.getcwd()), "env": dict(os.environ if env is None else env),
            "session": start_new_session, "limits": self._limits,
        }  # fmt: skip
        pictures = sys.modules.get("tests.support.pictures")
        if pictures and pictures.plots.draw is pictures.blank:  # as in this process
            wanted["env"][BLANK] = "1"
        wanted["env"] = {name: str(value) for name, value in wanted["env"].items()}
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(f"{os.environ[VARIABLE]}/{'libraries' if self._fresh else 'watkins'}")
        files = [
            own if own != -1 else common for own, common in zip((p2cread, c2pwrite, errwrite), range(3), strict=True)
        ]
        message = json.dumps(wanted).encode() + b"\n"
        sent = socket.send_fds(self._connection, [message], files)
        self._connection.sendall(message[sent:])
        self._answers = self._connection.makefile("r")
        answer = self._answers.readline()
        assert answer, (Path(os.environ[VARIABLE]) / "log").read_text()
        self.pid = int(answer)
        self._child_created = True
        for inside, outside in ((p2cread, p2cwrite), (c2pwrite, c2pread), (errwrite, errread)):
            if inside != -1 and outside != -1:
                os.close(inside)
        devnull = getattr(self, "_devnull", None)
        if devnull is not None:
            os.close(devnull)
        self._closed_child_pipe_fds = True

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        global cpu_spent
        if wait_flags & os.WNOHANG and not select.select([self._connection], [], [], 0)[0]:
            return 0, 0
        status, used = self._answers.readline().split()
        self._answers.close()
        self._connection.close()
        cpu_spent += float(used)
        return self.pid, int(status)

    def _internal_poll(self, _deadstate=None, **_):
        if self.returncode is None and self._child_created and self._waitpid_lock.acquire(False):
            try:
                if self.returncode is None:
                    pid, status = self._try_wait(os.WNOHANG)
                    if pid:
                        self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


def run(words, *, input=None, capture_output=False, timeout=None, check=False, **how) -> subprocess.CompletedProcess:
    """`subprocess.run` of a Python program; see `Popen`."""
    if capture_output:
        how |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        how["stdin"] = subprocess.PIPE
    with Popen(words, **how) as process:
        try:
            out, err = process.communicate(input, timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def programs() -> str:
    """A folder to begin PATH with: the programs in MODULES are forked."""
    return f"{os.environ[VARIABLE]}/bin"


def children_too() -> dict[str, str]:
    """The variable by which a forked program finds a `sys.executable` that is forked, too.

    Not for programs that use `multiprocessing`, which hands down open files.
    """
    return {"WATKINS_TEST_FORKED_PYTHON": f"{programs()}/python"}


def nested() -> float:
    """Processor seconds of what forked programs forked in turn."""
    spent = Path(os.environ.get(VARIABLE, ""), "spent")
    return sum(map(float, spent.read_text().split())) if spent.exists() else 0.0


def stand_in(name: str, words: list[str]) -> None:
    """What a program of `programs` does: fork it, hand on signals, and end as it ends."""
    module = MODULES[name]
    process = Popen(
        [sys.executable, *(("-m", module) if module else ()), *words], fresh=name != "watkins", start_new_session=True
    )
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.killpg(process.pid, number))
    status = process.wait()
    with open(f"{os.environ[VARIABLE]}/spent", "a") as file:
        file.write(f"{cpu_spent}\n")
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)
