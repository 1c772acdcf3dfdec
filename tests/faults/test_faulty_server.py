"""A tracking server that dies, fails, hangs or is away costs a training nothing and misses nothing in the end."""

import os
import shutil
import signal
import time

import pytest

from tests.support.children import Command, wait_for_epochs
from tests.support.outcome import assert_same_result, assert_tracked_once
from tests.support.servers import Postgres, Server
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.faults
IMPATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}


@pytest.fixture
def mortal(empty_store, tmp_path):
    """A server of this test's own."""
    folder = tmp_path / "server"
    (folder / "mlflow").mkdir(parents=True)
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    server = Server(folder).start()
    yield server
    server.kill()


def test_a_server_killed_and_restarted_in_mid_run(training, reference, mortal, tmp_path, monkeypatch):
    """The run itself sends all that was missed; nobody has to call `watkins sync`."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mortal.address)
    command = training.start(tmp_path, "restarted", **IMPATIENT)
    wait_for_epochs(tmp_path, 1)
    mortal.kill()
    wait_for_epochs(tmp_path, 3)
    with command.paused():  # or the training ends while the server starts
        mortal.start()
    assert command.wait() == 0, command.said
    assert command.said.count("Tracking server") == 2, command.said
    assert "has now received the whole run" in command.said
    assert_same_result(tmp_path / "run", reference)
    assert_tracked_once(client(), tmp_path / "run", "restarted")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_postgresql_restarted_in_mid_run(training, reference, tmp_path, monkeypatch, mode):
    """Orderly, and as by a power cut: the server's database goes away under it and comes back."""
    postgres = Postgres().start()
    (tmp_path / "server").mkdir()
    server = Server(tmp_path / "server", postgres.url())
    try:
        server.start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.address)
        command = training.start(tmp_path, "database", **IMPATIENT)
        wait_for_epochs(tmp_path, 1)
        postgres.stop(mode)
        wait_for_epochs(tmp_path, 3)
        with command.paused():
            postgres.start()
        assert command.wait() == 0, command.said
        assert "has now received the whole run" in command.said
        assert_same_result(tmp_path / "run", reference)
        assert_tracked_once(client(), tmp_path / "run", "database")
    finally:
        server.kill()
        postgres.remove()


def test_a_server_away_from_before_the_start_to_after_the_end(reference, server, tmp_path, monkeypatch):
    """`reference` was trained so; nothing at all had reached a server."""
    shutil.copytree(reference, tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    assert RunDirectory(tmp_path / "run").facts.status == "FINISHED"
    command = Command(tmp_path, "sync", "run")
    assert command.wait() == 0, command.said
    assert_tracked_once(client(), tmp_path / "run", None)


@pytest.mark.parametrize("fault", ["broken", "hangs", "down"])
def test_a_server_that_fails_all_the_time(training, reference, proxy, tmp_path, monkeypatch, fault):
    """500 to everything, or no answer at all, or a dropped connection, from the first call to the last."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    setattr(proxy, fault, True)
    command = training.start(tmp_path, f"server-{fault}", **IMPATIENT)
    assert command.wait() == 0, command.said
    assert command.said.count("Tracking server") == 1
    assert "send the rest with: watkins sync run" in command.said
    assert "Traceback" not in command.said
    assert_same_result(tmp_path / "run", reference)
    proxy.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://{proxy._target}")
    sync = Command(tmp_path, "sync", "run")
    assert sync.wait() == 0, sync.said
    assert_tracked_once(client(), tmp_path / "run", f"server-{fault}")


def test_a_server_that_fails_every_third_time(training, reference, proxy, tmp_path, monkeypatch):
    """Each answer that is lost was obeyed: the same thing is asked again and must not be there twice."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)

    def lose_the_answer(number: int) -> None:
        if number % 3 == 0:
            raise ConnectionAbortedError

    proxy.after = lose_the_answer
    command = training.start(tmp_path, "flaky", **IMPATIENT)
    assert command.wait() == 0, command.said
    proxy.after = lambda number: None
    sync = Command(tmp_path, "sync", "run")
    assert sync.wait() == 0, sync.said
    assert_same_result(tmp_path / "run", reference)
    assert_tracked_once(client(), tmp_path / "run", "flaky")


@pytest.mark.parametrize("moment", ["before", "after"])
def test_sync_killed_at_any_request(reference, proxy, tmp_path, monkeypatch, moment):
    """One sync after the other is killed before (or just after) the server obeys its n-th request."""
    shutil.copytree(reference, tmp_path / "run")
    run, name = RunDirectory(tmp_path / "run"), f"killed-{moment}"
    journal = run.journal.read_text().replace('"register_as": null', f'"register_as": "{name}"')
    run.journal.write_text(journal)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
    kills, deadly = 0, 0
    while True:
        deadly += 1 + deadly // 20
        proxy.requests.clear()
        command = Command(tmp_path, "sync", "run")

        def kill(number: int, pid: int = command.process.pid, at: int = deadly) -> None:
            if number == at:
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)

        setattr(proxy, moment, kill)
        if command.wait() == 0:
            break
        assert command.process.exitcode == -signal.SIGKILL, command.said
        kills += 1
    assert kills >= 20
    assert_tracked_once(client(), tmp_path / "run", name)


def test_two_syncs_at_once(reference, server, tmp_path, monkeypatch):
    shutil.copytree(reference, tmp_path / "run")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    syncs = [Command(tmp_path, "sync", "run") for _ in range(3)]
    assert [sync.wait() for sync in syncs] == [0, 0, 0]
    entries = len(RunDirectory(tmp_path / "run").entries())
    said = sorted(sync.said.strip() for sync in syncs)
    assert said[:2] == ["nothing to send for 1 run"] * 2
    assert said[2].startswith(f"run: {entries} of {entries} entries sent")
    assert_tracked_once(client(), tmp_path / "run", None)


def test_a_store_that_was_deleted_gets_the_run_again(reference, empty_store, tmp_path, monkeypatch):
    shutil.copytree(reference, tmp_path / "run")
    (tmp_path / "mlflow").mkdir()
    for _ in range(2):
        shutil.copy(empty_store, tmp_path / "mlflow" / "mlflow.db")
        command = Command(tmp_path, "sync", "run")
        assert command.wait() == 0, command.said
    assert_tracked_once(client(), tmp_path / "run", None)
