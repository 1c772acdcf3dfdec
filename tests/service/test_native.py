"""The commands, variables and databases of docker-compose.yml, run without Docker, do the whole job."""

from __future__ import annotations

import base64
import json
import shutil
import urllib.error
import urllib.request
from pathlib import Path

import compose
import psutil
import psycopg
import pytest

from watkins_ml.dataset.layout import read_prepared
from watkins_ml.models.bundle import load_bundle

pytestmark = pytest.mark.slow  # MLflow makes its tables and a training runs: half a minute

DEFAULT = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"


def status(service, path: str = DEFAULT, data: bytes | None = None, **headers: str) -> int:
    """The answer to a request; a POST where it has data."""
    request = urllib.request.Request(service.native.address + path, data, headers)
    try:
        return urllib.request.urlopen(request).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="session")
def trained(service, env, prepared):
    """Ada's MLflow client after her `docker compose run trainer train experiments/baseline.yaml`.

    The admin was there before her: the experiment and the registered model are not hers.
    """
    from mlflow import MlflowClient
    from mlflow.server import get_app_client

    native, client = service.native, MlflowClient(service.native.address, service.native.address)
    hers = native.environment("trainer")
    (native.folder / "data").symlink_to(prepared)
    shutil.copytree(compose.ROOT / "experiments", native.folder / "experiments")
    small = ["-o", "data.batch_size=8", "-o", "train.epochs=2", "-o", "train.device=cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", env["MLFLOW_ADMIN_PASSWORD"])
        get_app_client("basic-auth", native.address).create_user("ada", hers["MLFLOW_TRACKING_PASSWORD"])
        client.create_experiment("watkins")
        client.create_registered_model("watkins-baseline")
        ran = native.run("trainer", "watkins", "train", "experiments/baseline.yaml", "--run-dir", "runs/one", *small)
        assert ran.returncode == 0, ran.stderr
        patch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", hers["MLFLOW_TRACKING_PASSWORD"])
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
def test_a_browser_that_came_by_the_public_name_sees_the_runs_and_other_sites_do_not(service, env, site, expected):
    login = base64.b64encode(f"admin:{env['MLFLOW_ADMIN_PASSWORD']}".encode()).decode()
    headers = {"Origin": site, "Authorization": f"Basic {login}", "Content-Type": "application/json"}
    assert status(service, "/ajax-api/2.0/mlflow/experiments/search", b'{"max_results": 5}', **headers) == expected


def test_the_health_check_fails_where_the_account_does_not_work(service):
    assert service.native.is_healthy("mlflow")
    assert not service.native.is_healthy("mlflow", MLFLOW_AUTH_ADMIN_PASSWORD="password1234")


def test_no_job_workers_run_beside_the_server(service):
    commands = [" ".join(child.cmdline()) for child in psutil.Process(service.process.pid).children(recursive=True)]
    assert commands
    assert not [command for command in commands if "huey" in command or "job" in command]


def test_a_training_in_the_trainer_is_tracked_in_the_experiment_of_another_person(trained, run):
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "2"
    assert [metric.step for metric in trained.get_metric_history(run.info.run_id, "val_loss")] == [1, 2]


def test_its_artifacts_come_back_through_the_server(trained, run, service, tmp_path):
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    history = Path(trained.download_artifacts(run.info.run_id, "history.csv", str(tmp_path)))
    assert history.read_text() == (service.native.folder / "runs" / "one" / "history.csv").read_text()
    assert list((service.native.folder / "artifacts").rglob("history.csv"))  # and lie on the volume


def test_its_model_is_registered_as_champion(trained, run):
    champion = trained.get_model_version_by_alias("watkins-baseline", "champion")
    assert champion.run_id == run.info.run_id


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
    from mlflow.exceptions import MlflowException

    for delete, what in (
        (trained.delete_experiment, run.info.experiment_id),
        (trained.delete_registered_model, "watkins-baseline"),
    ):
        with pytest.raises(MlflowException, match="Permission denied"):
            delete(what)


def tables(native, role: str, password: str, database: str) -> set[str]:
    where = {"host": "127.0.0.1", "port": native.postgres_port, "user": role, "password": password, "dbname": database}
    with psycopg.connect(**where) as connection:
        return {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_mlflow_and_its_accounts_have_a_database_each(service, env):
    password = env["MLFLOW_DB_PASSWORD"]
    assert {"runs", "metrics", "registered_models"} <= tables(service.native, "mlflow", password, "mlflow")
    assert {"users", "alembic_version_auth"} <= tables(service.native, "mlflow", password, "mlflow_auth")


def test_a_study_in_the_trainer_is_kept_in_its_own_database(trained, service, env):
    """Ada's `docker compose run trainer tune …`: the storage and its password come from the compose file."""
    small = ["train.epochs=1", "train.device=cpu", "tracking.experiment=studies", "tracking.register_as=null"]
    words = [word for override in small for word in ("-o", override)]
    ran = service.native.run("trainer", "watkins", "tune", "experiments/tune-baseline.yaml", "--trials", "2", *words)
    assert ran.returncode == 0, ran.stderr
    assert {"studies", "trials"} <= tables(service.native, "optuna", env["OPTUNA_DB_PASSWORD"], "optuna")
    assert not (service.native.folder / "runs" / "studies.db").exists()
    runs = trained.search_runs([trained.get_experiment_by_name("studies").experiment_id])
    assert [run.info.status for run in runs] == ["FINISHED"] * 3
    assert env["OPTUNA_DB_PASSWORD"] not in str([run.data.to_dictionary() for run in runs])


def test_the_role_of_optuna_reaches_no_other_database(service, env):
    with pytest.raises(psycopg.OperationalError, match="permission denied"):
        tables(service.native, "optuna", env["OPTUNA_DB_PASSWORD"], "mlflow")


def test_the_databases_ask_for_their_passwords(service):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        tables(service.native, "optuna", "guess", "optuna")
