"""A project folder that is moved, copied, or mounted elsewhere goes on there, and leaves the old place alone."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.tracking._tracking_service.utils import _artifact_repos_cache

from tests.support.servers import free_port
from watkins_ml.runs.train import run_experiment
from watkins_ml.tracking.embedded import LOCATIONS, artifact_folder, embedded_uri, open_embedded_store
from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client, experiment_id

CHAMPION = "models:/watkins-baseline@champion"


def fingerprint(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def locations(database: Path) -> list[str]:
    """All addresses of artifacts in a store."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        for table, columns in LOCATIONS.items():
            found += connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
    return [at for row in found for at in row if at and "://" in at]


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A copy of a project, whose old place is still there with a fingerprint that must not change."""
    before = fingerprint(finished.folder)
    folder = tmp_path / "else where #2"
    shutil.copytree(finished.folder, folder)
    monkeypatch.chdir(folder)
    _artifact_repos_cache.clear()  # what another test in this process knows of the same run at another place
    yield folder
    _artifact_repos_cache.clear()
    assert fingerprint(finished.folder) == before


@pytest.fixture
def moved(copied):
    """A project whose old place is gone: the store says that it was somewhere that is not there."""
    with closing(sqlite3.connect("mlflow/mlflow.db")) as connection, connection:
        for table, columns in {"experiments": ("artifact_location",), **LOCATIONS}.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = replace({column}, '/project0/', '/gone/')")
    assert any("/gone/" in at for at in locations(Path("mlflow/mlflow.db")))
    return copied


@pytest.mark.parametrize("place", ["copied", "moved"])
def test_its_champion_loads_and_nothing_is_sent_again(place, request, watkins, archive):
    folder = request.getfixturevalue(place)
    recording = next(archive.rglob("*.wav"))
    assert "champion" in watkins("models").out
    assert watkins("predict", CHAMPION, recording, "--by", "file", "--format", "csv").status == 0
    assert watkins("report", CHAMPION, "--out", "report.html").status == 0
    assert "nothing to send" in watkins("sync").out
    assert "new" not in (promoted := watkins("promote", "watkins-baseline/1")).err and promoted.status == 0
    for at in locations(folder / "mlflow" / "mlflow.db"):
        assert at.startswith(artifact_folder(embedded_uri()).as_uri()) or at.startswith("models:/")


def test_a_training_writes_at_the_new_place_alone(copied, recipe):
    result = run_experiment(recipe("baseline", "train.epochs=1"), Path("runs/second"))
    facts = RunDirectory(result.run_dir).facts.model_dump()
    (version,) = (each for each in client().search_model_versions() if each.run_id == facts["mlflow_run_id"])
    assert "run.json" in {each.path for each in client().list_artifacts(version.run_id)}
    assert list((copied / "mlflow" / "artifacts").rglob(f"{version.run_id}/artifacts/run.json"))


def test_what_an_earlier_version_remembers_by_an_absolute_path_is_known_again(moved, watkins):
    run = RunDirectory(Path("runs/first"))
    state = json.loads((run.root / "upload.json").read_text())
    absolute = "sqlite:////old/disk/mlflow/mlflow.db"
    (run.root / "upload.json").write_text(json.dumps(state | {"tracking_uri": absolute}))
    run.update_facts(tracking_uri=absolute)
    assert "nothing to send" in watkins("sync", run.root).out
    run.record("tags", values={"later": "yes"})
    assert f" 3 of {state['sent'] + 3} entries sent" in watkins("sync", run.root).out  # it is closed again
    assert json.loads((run.root / "upload.json").read_text())["tracking_uri"] == "sqlite:../../mlflow/mlflow.db"


def test_a_run_that_comes_to_another_store_is_sent_there_whole(finished, store, watkins):
    shutil.copytree(finished.run_dir, "runs/first")
    run = RunDirectory(Path("runs/first"))
    count = len(run.entries())
    assert f"{count} of {count} entries sent" in watkins("sync", run.root).out
    assert store.get_run(run.facts.mlflow_run_id).info.status == "FINISHED"


def test_a_memory_of_anothers_run_is_not_believed(finished, copied, journal, watkins, monkeypatch):
    """`upload.json` of a stranger names a run of this store; the stranger's entries must not go into it."""
    mine = RunDirectory(Path("runs/first")).facts.mlflow_run_id
    stranger = journal()
    (stranger.root / "upload.json").write_text(json.dumps({"tracking_uri": "sqlite:x", "sent": 0, "run_id": mine}))
    assert watkins("sync", stranger.root).status == 0
    assert stranger.facts.mlflow_run_id != mine
    assert client().get_run(mine).data.tags["data_digest"] != "d1"


def test_a_store_moved_twice_has_only_its_last_place(copied, tmp_path, monkeypatch):
    client()
    for name in ("b", "ü c"):
        monkeypatch.chdir(tmp_path)
        Path("else where #2" if name == "b" else "b").rename(name)
        monkeypatch.chdir(tmp_path / name)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        client().search_experiments()
    at_home = [at for at in locations(Path("mlflow/mlflow.db")) if at.startswith((tmp_path / "ü c").as_uri() + "/")]
    assert len(at_home) == len([at for at in locations(Path("mlflow/mlflow.db")) if not at.startswith("models:/")])


def test_what_lies_only_at_the_old_place_is_still_found(finished, copied):
    """An earlier version went on writing at the old place after a move."""
    model = next(Path("mlflow/artifacts").rglob("MLmodel")).parent
    shutil.rmtree(model)
    (version,) = client().search_model_versions("name='watkins-baseline'")
    here, old = (artifact_folder(f"sqlite:///{place / 'mlflow/mlflow.db'}").as_uri() for place in (
        copied, finished.folder,
    ))  # fmt: skip
    mine = [at for at in locations(Path("mlflow/mlflow.db")) if at.startswith(old)]
    assert mine and all("/models/m-" in at for at in mine)
    assert client().get_run(version.run_id).info.artifact_uri.startswith(here)


def test_an_experiment_that_was_put_on_another_disk_stays_there(store, tmp_path):
    other = tmp_path / "big disk" / "artifacts" / "whales"
    other.mkdir(parents=True)
    store.create_experiment("whales", artifact_location=other.as_uri())
    assert client().get_experiment_by_name("whales").artifact_location == other.as_uri()


@pytest.mark.system
def test_the_server_gives_out_the_artifacts_of_the_new_place(moved, tmp_path):
    port, run = free_port(), RunDirectory(Path("runs/first"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    with open(tmp_path / "server.log", "w") as log:
        command = [sys.executable, "-m", "watkins_ml", "server", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}/get-artifact?path=history.csv&run_uuid={run.facts.mlflow_run_id}"
        content, deadline = b"", time.monotonic() + 120
        while not content and process.poll() is None and time.monotonic() < deadline:
            try:
                content = urllib.request.urlopen(address, timeout=20).read()
            except ConnectionError:
                time.sleep(0.2)
            except urllib.error.URLError as error:
                assert isinstance(error.reason, ConnectionError), error
                time.sleep(0.2)
        assert content == run.history.read_bytes(), (tmp_path / "server.log").read_text()
    finally:
        process.terminate()
        process.wait(30)


def test_a_store_that_cannot_be_read_is_one_sentence(tmp_path, watkins):
    Path("mlflow").mkdir()
    Path("mlflow/mlflow.db").write_bytes(b"not a database, but longer than its header of one hundred bytes. " * 9)
    said = watkins("models")
    assert said.status == 1 and said.err.count("\n") == 1
    assert "its file is damaged; restore it from a copy" in said.err


@pytest.mark.parametrize("name", ["why?", "100%25"])
def test_a_folder_whose_name_no_database_address_can_hold_is_refused(name, tmp_path, watkins, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    said = watkins("models")
    assert said.status == 1 and "rename that folder, or set MLFLOW_TRACKING_URI" in said.err
    assert not list(Path().iterdir())


def _can_mount() -> bool:
    return subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("unshare"), reason="needs mount namespaces")
@pytest.mark.system
def test_a_read_only_mount_can_be_read(moved, archive):
    if not _can_mount():
        pytest.skip("may not mount")
    recording = next(archive.rglob("*.wav"))
    script = """
mount --bind . . && mount -o remount,ro,bind . && cd "$PWD" || exit 9
! touch new 2>/dev/null || exit 8
"$@" predict models:/watkins-baseline@champion "$RECORDING" --by file --format csv || exit 6
! "$@" promote watkins-baseline/1 || exit 4
"""
    command = ["unshare", "-m", "bash", "-c", script, "bash", sys.executable, "-m", "watkins_ml"]
    environment = os.environ | {"RECORDING": str(recording)}
    environment.pop("MLFLOW_TRACKING_URI", None)
    before = fingerprint(moved)
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout + said.stderr
    assert "its store may not be written" in said.stderr and "Traceback" not in said.stderr
    assert fingerprint(moved) == before


def test_an_open_store_is_not_written_where_nothing_has_moved(store, tmp_path):
    experiment_id(store, "sea")
    before = (tmp_path / "mlflow" / "mlflow.db").stat().st_mtime_ns
    assert open_embedded_store(embedded_uri()) == embedded_uri()
    assert (tmp_path / "mlflow" / "mlflow.db").stat().st_mtime_ns == before
