"""A training that is killed at any moment loses nothing: resumed, it ends as one that never stopped."""

import itertools
import os
import random
import shutil
import signal
import time

import pytest

from tests.support.children import Command, KillAt, wait_for_epochs
from tests.support.outcome import assert_same_result, assert_tracked_once
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("seed", range(4))
def test_sigkill_at_random_moments(training, reference, server, tmp_path, monkeypatch, seed):
    """Six kills a run, 24 in all; two runs track to a server, two to the embedded store."""
    if seed % 2:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    chance, kills = random.Random(seed), 0
    for lap in itertools.count():  # a fast machine may get through before the sixth kill; then the next run takes it
        folder, name = tmp_path / f"lap-{lap}", f"killed-{seed}-{lap}"
        folder.mkdir()
        while kills < 6 and training.go_on(folder, name).kill_after(chance.uniform(0.1, 3.0)):
            kills += 1
        command = training.go_on(folder, name)
        assert command.wait() == 0, command.said
        monkeypatch.chdir(folder)
        assert_same_result(folder / "run", reference)
        assert_tracked_once(client(), folder / "run", name)
        if kills == 6:
            break


def test_sigkill_before_every_durable_write(training, reference, store, tmp_path):
    """The first attempt dies at its first write, the second at its second, and so on until one gets through."""
    kills = 0
    for number in itertools.chain(range(1, 25), itertools.count(30, 6)):
        command = training.go_on(tmp_path, "every-write", fault=KillAt(number))
        if command.wait() == 0:
            break
        assert command.process.exitcode == -signal.SIGKILL, command.said
        kills += 1
    assert kills >= 24
    assert_same_result(tmp_path / "run", reference)
    assert_tracked_once(store, tmp_path / "run", "every-write")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_the_run_as_killed_and_says_how_to_resume(training, reference, store, tmp_path, number):
    command = training.start(tmp_path, "stopped")
    wait_for_epochs(tmp_path, 2)
    command.send(number)
    assert command.wait() == 1
    assert command.said.splitlines()[-1].endswith("continue with: watkins train --resume run")
    assert "Traceback" not in command.said
    run = RunDirectory(tmp_path / "run")
    tracked = store.get_run(run.facts.mlflow_run_id)
    assert (run.facts.status, tracked.info.status) == ("KILLED", "KILLED")
    command = training.resume(tmp_path)
    assert command.wait() == 0, command.said
    assert_same_result(run.root, reference)
    assert_tracked_once(store, run.root, "stopped")
    assert int(store.get_run(tracked.info.run_id).data.tags["watkins.resumed_after_epoch"]) >= 2


def torn_journal(run: RunDirectory) -> None:
    with open(run.journal, "ab") as journal:
        journal.write('{"kind": "epoch", "step": 3, "metrics": {"val_é'.encode()[:-1])


def torn_tables(run: RunDirectory) -> None:
    for table in (run.history, run.timing):
        os.truncate(table, table.stat().st_size - 7)


def torn_checkpoint(run: RunDirectory) -> None:
    os.truncate(run.checkpoints / "last.pt", 10_000)
    (run.checkpoints / "last.json").write_bytes(b"")


def empty_checkpoint(run: RunDirectory) -> None:
    (run.checkpoints / "last.pt").write_bytes(b"")


def one_wrong_bit(run: RunDirectory) -> None:
    path = run.checkpoints / "last.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def torn_best(run: RunDirectory) -> None:
    os.truncate(run.checkpoints / "best.pt", 10_000)


def no_sound_checkpoint(run: RunDirectory) -> None:
    for path in run.checkpoints.glob("*.pt"):
        os.truncate(path, path.stat().st_size // 2)


def torn_upload_state(run: RunDirectory) -> None:
    (run.root / "upload.json").write_text('{"tracking_uri": "sql')


TEARS = [torn_journal, torn_tables, torn_checkpoint, empty_checkpoint, one_wrong_bit, torn_best, no_sound_checkpoint,
         torn_upload_state]  # fmt: skip


@pytest.fixture(scope="module")
def cut_off(training, empty_store, tmp_path_factory):
    """A folder in which a training was killed after its third epoch, when MLflow had a run of it."""
    folder = tmp_path_factory.mktemp("cut-off")
    (folder / "mlflow").mkdir()
    shutil.copy(empty_store, folder / "mlflow" / "mlflow.db")
    command = training.start(folder, "torn")
    wait_for_epochs(folder, 3)
    deadline = time.monotonic() + 60
    while RunDirectory(folder / "run").facts.mlflow_run_id is None and time.monotonic() < deadline:
        time.sleep(0.01)
    command.kill_after(0)
    return folder


@pytest.mark.parametrize("tear", TEARS, ids=lambda tear: tear.__name__)
def test_what_a_power_cut_tears_is_made_whole(training, reference, cut_off, tmp_path, monkeypatch, tear):
    folder = tmp_path / "torn"
    shutil.copytree(cut_off, folder)
    monkeypatch.chdir(folder)
    tear(RunDirectory(folder / "run"))
    command = training.resume(folder)
    assert command.wait() == 0, command.said
    assert_same_result(folder / "run", reference)
    assert_tracked_once(client(), folder / "run", "torn")


def test_a_dead_run_is_closed_by_sync(cut_off, tmp_path, monkeypatch):
    folder = tmp_path / "dead"
    shutil.copytree(cut_off, folder)
    monkeypatch.chdir(folder)
    run = RunDirectory(folder / "run")
    assert client().get_run(run.facts.mlflow_run_id).info.status == "RUNNING"
    command = Command(folder, "sync", "run")
    assert command.wait() == 0
    assert "its process is gone, so it ends as KILLED; watkins train --resume run goes on" in command.said
    assert client().get_run(run.facts.mlflow_run_id).info.status == run.facts.status == "KILLED"
    again = Command(folder, "sync", "run")
    assert again.wait() == 0 and "KILLED" not in again.said


def test_a_run_that_trains_is_neither_resumed_nor_closed_by_another_process(training, store, tmp_path):
    command = training.start(tmp_path)
    wait_for_epochs(tmp_path, 1)
    second, sync = training.resume(tmp_path), Command(tmp_path, "sync", "run")
    assert (second.wait(), sync.wait()) == (1, 0)
    assert "another process is training this run" in second.said
    assert "still training; its own process sends the rest" in sync.said
    assert command.wait() == 0
    assert_tracked_once(store, tmp_path / "run", None)


def test_a_store_that_is_made_when_the_kill_comes(training, tmp_path, monkeypatch):
    """The first `watkins sync` of all is killed later and later, until one gets through; each makes the store anew."""
    command = training.start(tmp_path, uri="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert command.wait() == 0
    kills = 0
    while Command(tmp_path, "sync", "run").kill_after(0.2 + 0.15 * kills):
        kills += 1
    assert kills >= 3
    command = Command(tmp_path, "sync", "run")
    assert command.wait() == 0, command.said
    monkeypatch.chdir(tmp_path)
    assert_tracked_once(client(), tmp_path / "run", None)
