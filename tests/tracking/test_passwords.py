"""A password in an address stands in nothing that is printed, kept or sent, and in no list of processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.support import EXPERIMENTS
from tests.support.servers import Postgres, free_port
from watkins_ml.core.errors import UsageError
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client
from watkins_ml.tuning.storage import StudyDatabase

SECRET = "Pa55w0rd-of-the-lab"
BASELINE = EXPERIMENTS / "baseline.yaml"


def assert_kept_nowhere(*folders: Path) -> None:
    for folder in folders:
        for path in folder.rglob("*"):
            assert SECRET not in str(path)
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


@pytest.fixture
def said_by(watkins):
    """A function that runs a command, whose words must not have the password either with `--debug`."""

    def run(*arguments: object):
        said = watkins(*arguments)
        assert SECRET not in said.out + said.err
        return said

    return run


@pytest.fixture
def small(prepared) -> list[str]:
    settings = (f"data.dir={prepared}", "data.batch_size=8", "train.epochs=1", "tracking.register_as=locked")
    return [part for each in settings for part in ("-o", each)]


@pytest.mark.slow
def test_a_server_with_a_password_knows_it_alone(server, prepared, small, said_by, monkeypatch, tmp_path, archive):
    address = server.replace("//", f"//someone:{SECRET}@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    assert said_by("train", BASELINE, *small, "--run-dir", "run").status == 0
    assert said_by("sync", "run").status == 0
    assert "someone:***@" in said_by("models").out
    assert said_by("promote", "locked/1").status == 0
    champion, recording = "models:/locked@champion", next(archive.rglob("*.wav"))
    assert said_by("predict", champion, recording, "--by", "file", "--format", "csv").status == 0
    assert said_by("report", champion, "--out", "page.html").status == 0
    assert said_by("predict", "models:/none@champion", recording).status == 1
    run = RunDirectory(Path("run"))
    assert run.facts.tracking_uri == json.loads(Path("run/upload.json").read_text())["tracking_uri"]
    assert run.facts.tracking_uri == server.replace("//", "//someone:***@")
    sent = Path(client().download_artifacts(run.facts.mlflow_run_id, "", str(tmp_path)))
    assert (sent / "run.json").is_file()
    assert_kept_nowhere(tmp_path)
    tracked = client().get_run(run.facts.mlflow_run_id)
    assert SECRET not in str(tracked.to_dictionary())

    # an earlier version wrote it down: it is known again, and gone with the next write
    for name in ("run.json", "upload.json"):
        file = run.root / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"tracking_uri": address}))
    assert "nothing to send" in said_by("sync", "run").out
    run.record("tags", values={"later": "yes"})
    assert said_by("sync", "run").status == 0
    assert_kept_nowhere(tmp_path)


@pytest.mark.parametrize(
    "form",
    [
        "http://someone:{}@127.0.0.1:{port}", "http://{}@127.0.0.1:{port}", "http://someone:{}/x@127.0.0.1:{port}",
        "http://someone:{}@@nowhere.invalid:{port}", "ftp://someone:{}@127.0.0.1", "someone:{}@127.0.0.1:{port}",
        "http://someone:{}@127.0.0.1:port", "postgresql+psycopg://someone:{}@127.0.0.1:{port}/mlflow",
        "postgresql+psycopg://someone:a@{}@127.0.0.1:{port}/mlflow", "nosql://someone:{}@127.0.0.1/",
        "postgresql+psycopg://someone@127.0.0.1:{port}/mlflow?password={}&connect_timeout=1",
        "https://someone:{}@127.0.0.1:{port}",
    ],
)  # fmt: skip
def test_an_address_that_fails_is_told_without_it(form, said_by, journal, impatient, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", form.format(SECRET, port=free_port()))
    monkeypatch.setattr("mlflow.store.db.utils.MAX_RETRY_COUNT", 1)  # it tries for many minutes
    run = journal()
    for arguments in (["models"], ["predict", "models:/a@champion", __file__], ["--debug", "sync", run.root]):
        assert said_by(*arguments).status in (1, 2)
    assert_kept_nowhere(tmp_path)


@pytest.mark.parametrize(
    "form",
    [
        "postgresql+psycopg://someone:{}@127.0.0.1:{port}/optuna", "postgresql+psycopg://someone:a@{}@127.0.0.1/optuna",
        "mysql://someone:{}@127.0.0.1/optuna", "someone:{}@127.0.0.1/optuna", "postgresql://someone:{}@host:port/x",
        "postgresql+psycopg://someone@127.0.0.1:{port}/optuna?password={}",
    ],
)  # fmt: skip
def test_a_study_that_cannot_reach_its_database_tells_it_without_the_password(form, said_by, monkeypatch, prepared):
    recipe, storage = BASELINE.with_name("tune-baseline.yaml"), form.format(SECRET, port=free_port())
    for arguments in (["--storage", storage], []):
        monkeypatch.setenv("WATKINS_STORAGE", storage)
        said = said_by("tune", recipe, *arguments, "-o", f"data.dir={prepared}", "-o", "data.batch_size=8")
        assert said.status in (1, 2) and "--storage" in said.err


def test_a_study_calls_its_database_by_an_address_without_password():
    running = Postgres().start()
    try:
        database = StudyDatabase(running.url().replace("postgres@", f"postgres:{SECRET}@"))
        assert database.name == running.url().replace("postgres@", "postgres:***@")
        with pytest.raises(UsageError) as refused:
            StudyDatabase(running.url().replace("postgres@", f"postgres:a@{SECRET}@"))
        assert SECRET not in str(refused.value)
    finally:
        running.remove()


@pytest.mark.slow
def test_the_list_of_processes_has_no_password_of_the_database(tmp_path):
    running, port = Postgres().start(), free_port()
    backend = running.url().replace("postgres@", f"postgres:{SECRET}@")
    environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": backend}
    with open(tmp_path / "server.log", "w") as log:
        command = [sys.executable, "-m", "watkins_ml", "server", "--port", str(port)]
        started = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    process, seen = psutil.Process(started.pid), set()
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and started.poll() is None and len(seen) < 2:
            for each in (process, *process.children(recursive=True)):
                seen |= {" ".join(each.cmdline())} if "mlflow" in " ".join(each.cmdline()) else set()
            time.sleep(0.2)
        assert len(seen) >= 2, (tmp_path / "server.log").read_text()  # of `mlflow server`, and of its own children
        assert not any(SECRET in line for line in seen)
        assert SECRET not in (tmp_path / "server.log").read_text()
    finally:
        for each in (*process.children(recursive=True), process):
            each.terminate()
        started.wait(60)
        running.remove()


def test_an_address_in_which_nobody_can_see_a_password_is_not_repeated(said_by):
    assert "not a database URL" in said_by("server", "--backend", f"someone:{SECRET}@host/mlflow").err
