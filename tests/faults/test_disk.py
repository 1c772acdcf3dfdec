"""A disk that fills up costs nothing that was on it: make room, resume, and the result is the same."""

import subprocess

import pytest

from tests.support.children import DiskFull
from tests.support.outcome import assert_same_result, assert_tracked_once
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("checkpoint", [1, 2, 4])
def test_a_disk_that_fills_up_during_a_checkpoint(training, reference, server, tmp_path, monkeypatch, checkpoint):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)  # it has a disk of its own
    name = f"full-{checkpoint}"
    command = training.start(tmp_path, name, fault=DiskFull(checkpoint))
    assert command.wait() == 1
    said = command.said.splitlines()[-1]
    assert said.startswith("watkins: cannot write to run: File too large")
    assert said.endswith("make room and continue with: watkins train --resume run")
    run = RunDirectory(tmp_path / "run")
    assert run.facts.status == "FAILED"
    assert not list(run.root.rglob("*.partial"))
    command = training.resume(tmp_path)
    assert command.wait() == 0, command.said
    assert_same_result(run.root, reference)
    assert_tracked_once(client(), run.root, name)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of three megabytes at `run`; the function makes it larger."""
    (tmp_path / "run").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", tmp_path / "run"]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small disk here")
    yield lambda: subprocess.run(["mount", "-o", "remount,size=30m", tmp_path / "run"], check=True)
    subprocess.run(["umount", tmp_path / "run"], check=True)


def test_a_real_file_system_without_room(training, reference, server, tmp_path, monkeypatch, small_disk):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    command = training.start(tmp_path, "no-room")
    assert command.wait() == 1
    assert command.said.splitlines()[-1].startswith("watkins: cannot write to run: No space left on device")
    run = RunDirectory(tmp_path / "run")
    assert run.facts.status == "FAILED"
    assert not list(run.root.rglob("*.partial"))
    small_disk()
    command = training.resume(tmp_path)
    assert command.wait() == 0, command.said
    assert_same_result(run.root, reference)
    assert_tracked_once(client(), run.root, "no-room")
