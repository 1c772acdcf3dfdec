"""One writer at a time; readers that a writer sees; locks that die with their holder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from filelock import FileLock

from watkins_ml.core import locks
from watkins_ml.core.errors import UserError
from watkins_ml.core.locks import only_writer, readers_of, reading

HOLD = """
import sys, time
from pathlib import Path
from watkins_ml.core.locks import only_writer, reading
with {"write": only_writer, "read": reading}[sys.argv[1]](Path(sys.argv[2]), "watkins test"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder():
    """A function that starts a process which holds a lock for ever."""
    begun = []

    def start(what, folder):
        process = subprocess.Popen([sys.executable, "-c", HOLD, what, str(folder)], stdout=subprocess.PIPE, text=True)
        begun.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_second_writer_is_refused_and_told_of_whom(tmp_path, holder):
    other = holder("write", tmp_path / "out")
    with pytest.raises(UserError, match=rf"out: watkins test \(process {other.pid} on .*\) is writing there"):
        with only_writer(tmp_path / "out", "watkins prepare"):
            raise AssertionError("two writers")


def test_a_writer_that_has_not_written_its_name_yet_is_waited_for(tmp_path, holder):
    other = holder("write", tmp_path)
    file = tmp_path / ".writing.lock"
    name = file.read_text()
    file.write_text("")
    threading.Timer(0.3, file.write_text, [name]).start()
    with pytest.raises(UserError, match=rf"watkins test \(process {other.pid} "), only_writer(tmp_path, "watkins x"):
        raise AssertionError("two writers")


def test_who_has_ended_is_not_named(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "NAMED_WITHIN_S", 0.1)
    with only_writer(tmp_path, "watkins first"):
        pass
    with FileLock(tmp_path / ".writing.lock"), pytest.raises(UserError, match=": another process is writing there"):
        with only_writer(tmp_path, "watkins second"):
            raise AssertionError("two writers")


def test_a_killed_writer_blocks_nobody(tmp_path, holder):
    other = holder("write", tmp_path)
    os.kill(other.pid, signal.SIGKILL)
    other.wait()
    with only_writer(tmp_path, "watkins prepare"):
        pass
    with only_writer(tmp_path, "watkins prepare"):
        pass


def test_readers_are_named_and_read_side_by_side(tmp_path, holder):
    others = [holder("read", tmp_path) for _ in range(2)]
    with reading(tmp_path, "watkins train (runs/x)"):
        names = readers_of(tmp_path)
        assert len(names) == 3
        for process in others:
            assert sum(f"watkins test (process {process.pid} on" in name for name in names) == 1
    assert len(readers_of(tmp_path)) == 2


def test_a_killed_reader_is_none(tmp_path, holder):
    other = holder("read", tmp_path)
    other.kill()
    other.wait()
    assert readers_of(tmp_path) == []
    assert list((tmp_path / locks.READERS).iterdir()) == []


def test_a_folder_without_readers_or_that_is_missing_has_none(tmp_path):
    assert readers_of(tmp_path / "nowhere") == []
    with reading(tmp_path / "nowhere", "watkins train"):
        pass
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can become somebody else")
def test_what_one_user_leaves_keeps_no_other_out():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        with only_writer(folder, "watkins prepare"), reading(folder, "watkins train"):
            pass
        (folder / locks.READERS / "left.lock").touch(0o666)
        child = os.fork()
        if child == 0:
            try:
                os.setuid(65534)
                with only_writer(folder, "watkins prepare"), reading(folder, "watkins train"):
                    os._exit(0 if len(readers_of(folder)) == 1 else 2)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(locks.FileLock, "acquire", refuse)
    with only_writer(tmp_path, "watkins prepare"), reading(tmp_path, "watkins train"):
        assert readers_of(tmp_path) == []
    assert "no locks" in capsys.readouterr().err
