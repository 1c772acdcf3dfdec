"""The commands, variables and databases of docker-compose.yml, run without Docker, do the whole job."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg
import pytest
import requests
from mlflow.exceptions import MlflowException

from tests.support import compose, forked
from watkins_ml.core.metric_names import BEST_VAL_CONTROL_MACRO_F1
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.models.bundle import load_bundle
from watkins_ml.tracking import registry

pytestmark = pytest.mark.slow  # MLflow makes its tables and a training runs: half a minute

DEFAULT = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"


def status(service, path: str = DEFAULT, data: bytes | None = None, **headers: str) -> int:
    """The answer to a request; a POST where it has data."""
    request = urllib.request.Request(service.native.address + path, data, headers)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


def login(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


@pytest.fixture(scope="session")
def trained(service, secrets, prepared):
    """The trainer's MLflow client after a `docker compose run trainer train experiments/baseline.yaml`.

    The admin was there before: the experiment and the registered model are not the trainer's.
    """
    from mlflow import MlflowClient

    native, client = service.native, MlflowClient(service.native.address, service.native.address)
    (native.folder / "data").symlink_to(prepared)
    shutil.copytree(compose.ROOT / "experiments", native.folder / "experiments")
    small = ["-o", "data.batch_size=8", "-o", "train.epochs=2", "-o", "train.device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", secrets["mlflow_admin_password"])
        client.create_experiment("watkins")
        client.create_registered_model("watkins-baseline")
        ran = native.run("trainer", "watkins", "train", "experiments/baseline.yaml", "--run-dir", "runs/one", *small)
        assert ran.returncode == 0, ran.stderr
        registry.promote(client, "watkins-baseline/1")  # two epochs are not above their control
        patch.setenv("MLFLOW_TRACKING_USERNAME", "trainer")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", secrets["mlflow_trainer_password"])
        yield client


@pytest.fixture
def run(trained):
    experiment = trained.get_experiment_by_name("watkins")
    (run,) = trained.search_runs([experiment.experiment_id])
    return run


@pytest.mark.parametrize(
    "path", [DEFAULT, "/", "/api/2.0/mlflow-artifacts/artifacts", "/ajax-api/2.0/mlflow/runs/search"]
)
def test_nobody_gets_anything_without_an_account(service, path):
    assert status(service, path) == 401


def test_a_wrong_password_is_refused(service):
    assert status(service, Authorization="Basic YWRtaW46cGFzc3dvcmQxMjM0") == 401


NAMES = ["mlflow:5000", "localhost:5000", "127.0.0.1:8080", "whales.example.org", "whales.example.org:5000"]


@pytest.mark.parametrize("name", NAMES)
def test_the_names_that_people_use_pass(service, name):
    assert status(service, Host=name) == 401  # asked for an account, so not refused for the name


@pytest.mark.parametrize("name", ["evil.example.org", "evil.example.org:5000", "mlflow.evil.example.org:5000"])
def test_other_host_names_are_refused(service, name):
    assert status(service, Host=name) == 403


@pytest.mark.parametrize(
    ("site", "expected"), [("http://whales.example.org:5000", 200), ("http://whales.example.org.evil.org:5000", 403)]
)
def test_a_browser_that_came_by_the_public_name_sees_the_runs_and_other_sites_do_not(service, secrets, site, expected):
    headers = {"Origin": site, "Content-Type": "application/json"} | login("admin", secrets["mlflow_admin_password"])
    assert status(service, "/ajax-api/2.0/mlflow/experiments/search", b'{"max_results": 5}', **headers) == expected


def test_the_health_check_fails_where_the_account_does_not_work(service, tmp_path):
    assert service.native.is_healthy("mlflow")
    (tmp_path / "mlflow_serving_password").write_text("password1234")
    assert not replace(service.native, secrets=tmp_path).is_healthy("mlflow")


def test_no_job_workers_run_beside_the_server(service):
    commands = [" ".join(child.cmdline()) for child in psutil.Process(service.process.pid).children(recursive=True)]
    assert commands
    assert not [command for command in commands if "huey" in command or "job" in command]


def test_a_training_in_the_trainer_is_tracked_in_the_experiment_of_another_person(trained, run):
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "2"
    assert [metric.step for metric in trained.get_metric_history(run.info.run_id, "val/loss")] == [1, 2]


def test_its_artifacts_come_back_through_the_server(trained, run, service, tmp_path):
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    history = Path(trained.download_artifacts(run.info.run_id, "history.csv", str(tmp_path)))
    assert history.read_text() == (service.native.folder / "runs" / "one" / "history.csv").read_text()
    assert list((service.native.folder / "artifacts").rglob("history.csv"))  # and lie on the volume


def test_its_model_is_registered_with_its_control_and_champion_by_hand(trained, run):
    champion = trained.get_model_version_by_alias("watkins-baseline", "champion")
    assert champion.run_id == run.info.run_id
    assert registry.BY_HAND in champion.tags and BEST_VAL_CONTROL_MACRO_F1 in champion.tags


def test_the_serving_profile_answers_with_the_champion_and_writes_nothing(trained, service, prepared, tmp_path):
    data = read_prepared(prepared)
    recording = data.audio_dir / data.sides["test"]["path"].iloc[0]
    body = json.dumps({"dataframe_records": [{"audio": base64.b64encode(recording.read_bytes()).decode()}]}).encode()
    with service.native.started("serving", tmp_path):
        address = f"http://127.0.0.1:{service.native.serving_port}/invocations"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        (answer,) = json.load(urllib.request.urlopen(request))["predictions"]
    (expected,) = load_bundle(service.native.folder / "runs" / "one" / "model").classify([recording])
    assert list(answer["probabilities"].values()) == pytest.approx(list(expected), abs=1e-7)
    assert not list(tmp_path.iterdir())  # in its container only /tmp can be written


def test_nobody_deletes_what_another_person_began(trained, run):
    for delete, what in (
        (trained.delete_experiment, run.info.experiment_id),
        (trained.delete_registered_model, "watkins-baseline"),
    ):
        with pytest.raises(MlflowException, match="Permission denied"):
            delete(what)


def test_the_account_that_serves_may_look_and_change_nothing(trained, run, service, secrets, monkeypatch, tmp_path):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "serving")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secrets["mlflow_serving_password"])
    client = MlflowClient(service.native.address, service.native.address)
    champion = client.get_model_version_by_alias("watkins-baseline", "champion")
    assert client.download_artifacts(run.info.run_id, "history.csv", str(tmp_path))
    (tmp_path / "mine.txt").write_text("x")
    changes = (
        lambda: client.create_run(run.info.experiment_id),
        lambda: client.log_metric(run.info.run_id, "val_loss", 0.0),
        lambda: client.set_tag(run.info.run_id, "a", "b"),
        lambda: client.log_artifact(run.info.run_id, str(tmp_path / "mine.txt")),
        lambda: client.delete_run(run.info.run_id),
        lambda: client.rename_experiment(run.info.experiment_id, "mine"),
        lambda: client.create_model_version("watkins-baseline", "runs:/x/model", run.info.run_id),
        lambda: client.set_registered_model_alias("watkins-baseline", "champion", champion.version),
        lambda: client.set_model_version_tag("watkins-baseline", champion.version, "a", "b"),
        lambda: client.delete_model_version("watkins-baseline", champion.version),
    )
    for number, change in enumerate(changes):
        with pytest.raises((MlflowException, requests.HTTPError), match="Permission denied"):
            pytest.fail(f"change {number} was made: {change()}")


@pytest.mark.parametrize("name", ["trainer", "serving"])
def test_the_accounts_of_the_services_are_no_admins(service, secrets, name):
    headers = {"Content-Type": "application/json"} | login(name, secrets[f"mlflow_{name}_password"])
    mine = json.dumps({"username": "eve", "password": "twelve characters"}).encode()
    assert status(service, "/api/2.0/mlflow/users/create", mine, **headers) == 403
    assert status(service, "/api/2.0/mlflow/users/get?username=admin", **headers) == 403


def added(service, name: str, password: str) -> subprocess.CompletedProcess:
    """`docker compose exec mlflow python /etc/watkins/accounts.py add NAME`, which has no secret in its variables."""
    native = service.native
    command = [sys.executable, native.here("/etc/watkins/accounts.py"), "add", name]
    given = {"env": native.environment("mlflow"), "input": password + "\n"}
    return forked.run(command, fresh=True, **given, capture_output=True, text=True)


def test_a_colleague_is_added_by_one_command_and_may_train(trained, run, service, secrets, monkeypatch):
    from mlflow import MlflowClient

    ran = added(service, "ada", "countess of lovelace")
    assert (ran.returncode, ran.stdout) == (0, "ada may train\n"), ran.stderr
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "countess of lovelace")
    hers = MlflowClient(service.native.address).create_run(run.info.experiment_id)
    with pytest.raises(MlflowException, match="Permission denied"):
        MlflowClient(service.native.address).delete_experiment(run.info.experiment_id)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", secrets["mlflow_admin_password"])
    MlflowClient(service.native.address).delete_run(hers.info.run_id)
    for name, password, says in (("bob", "short", "bob: "), ("admin", "countess of lovelace", "in docker/secrets")):
        refused = added(service, name, password)
        assert refused.returncode == 1 and says in refused.stderr and "Traceback" not in refused.stderr


def test_mlflow_writes_nothing_beside_its_artifacts_and_temporary_files(trained, service):
    """In its container nothing else can be written."""
    assert [path for path in service.home.rglob("*") if path.is_file() and ".cache" not in path.parts] == []


def tables(native, role: str, password: str, database: str) -> set[str]:
    where = {"host": "127.0.0.1", "port": native.postgres_port, "user": role, "password": password, "dbname": database}
    with psycopg.connect(**where) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_mlflow_and_its_accounts_have_a_database_each(service, secrets):
    password = secrets["mlflow_db_password"]
    assert {"runs", "metrics", "registered_models"} <= tables(service.native, "mlflow", password, "mlflow")
    assert {"users", "alembic_version_auth"} <= tables(service.native, "mlflow", password, "mlflow_auth")


def test_a_study_in_the_trainer_is_kept_in_its_own_database(trained, service, secrets):
    """A `docker compose run trainer tune …`: the storage and its password come from the compose file."""
    small = ["train.epochs=1", "train.device=cpu", "tracking.experiment=studies", "tracking.register_as=null"]
    words = [word for override in small for word in ("-o", override)]
    ran = service.native.run("trainer", "watkins", "tune", "experiments/tune-baseline.yaml", "--trials", "2", *words)
    assert ran.returncode == 0, ran.stderr
    assert {"studies", "trials"} <= tables(service.native, "optuna", secrets["optuna_db_password"], "optuna")
    assert not (service.native.folder / "runs" / "studies.db").exists()
    runs = trained.search_runs([trained.get_experiment_by_name("studies").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert secrets["optuna_db_password"] not in str([run.data.to_dictionary() for run in runs])


def test_the_role_of_optuna_reaches_no_other_database(service, secrets):
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        tables(service.native, "optuna", secrets["optuna_db_password"], "mlflow")


def test_the_databases_ask_for_their_passwords(service):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        tables(service.native, "optuna", "guess", "optuna")
