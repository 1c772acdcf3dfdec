"""Each service has no more than it needs: user, capabilities, root, folders, secrets, networks, and limits."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import compose
from tests.support.compose import FILE, ROOT

SERVICES = ["postgres", "mlflow", "trainer", "trainer-gpu", "serving", "s3"]
SECRETS = {
    "postgres": {"postgres_password", "mlflow_db_password", "optuna_db_password"},
    "mlflow": {
        "mlflow_db_password", "mlflow_secret_key", "mlflow_admin_password", "mlflow_trainer_password",
        "mlflow_serving_password", "s3_secret_key",
    },
    "trainer": {"mlflow_trainer_password", "optuna_db_password"},
    "trainer-gpu": {"mlflow_trainer_password", "optuna_db_password"},
    "serving": {"mlflow_serving_password"},
    "s3": {"s3_secret_key"},
}  # fmt: skip
NETWORKS = {
    "postgres": {"database"}, "mlflow": {"default", "database", "objects", "models"},
    "trainer": {"default", "database"}, "trainer-gpu": {"default", "database"}, "serving": {"models", "published"},
    "s3": {"objects"},
}  # fmt: skip


@pytest.fixture
def file(env) -> dict:
    return compose.read(env)


@pytest.fixture
def services(file) -> dict:
    return file["services"]


def test_these_tests_know_every_service(services):
    assert list(services) == SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_no_root_has_no_capability_and_a_root_that_cannot_be_written(services, name):
    service = services[name]
    uid, gid = service["user"].split(":")
    assert int(uid) > 0 and int(gid) > 0
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True and service["init"] is True
    assert not {"privileged", "pid", "ipc", "network_mode", "userns_mode", "devices"} & set(service)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_limits(services, name):
    service = services[name]
    assert service["pids_limit"] > 0 and re.fullmatch(r"\d+[gm]", service["mem_limit"])
    assert float(service["cpus"]) > 0
    assert service["logging"] == {"driver": "local", "options": {"max-size": "10m", "max-file": "3"}}
    for place in service["tmpfs"]:
        assert "size=" in place and ("exec" not in place or name.startswith("trainer"))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_secrets_that_it_needs_as_files_and_no_other(file, services, name):
    assert set(services[name]["secrets"]) == SECRETS[name]
    for variable, value in services[name]["environment"].items():
        if re.search("PASSWORD|SECRET", variable) and variable != "SECRETS":
            assert variable.endswith("_FILE") and value.removeprefix("/run/secrets/") in SECRETS[name], variable
    assert set().union(*SECRETS.values()) == set(file["secrets"])


def test_no_text_of_the_file_is_put_into_a_root_that_cannot_be_written(file):
    """Compose copies `content` and `environment` into the container, which then fails; a `file` is mounted."""
    for one in (*file["configs"].values(), *file["secrets"].values()):
        assert set(one) == {"file"}
    for one in file["configs"].values():
        assert (ROOT / one["file"]).is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_on_the_networks_that_it_needs_and_no_other(services, name):
    assert set(services[name]["networks"]) == NETWORKS[name]


def test_whoever_serves_strangers_reaches_no_database_and_no_object_store(services):
    def meet(one: str, other: str) -> bool:
        return bool(set(services[one]["networks"]) & set(services[other]["networks"]))

    assert not meet("serving", "postgres") and not meet("serving", "s3") and not meet("serving", "trainer")
    assert not meet("trainer", "s3") and not meet("postgres", "s3")
    assert meet("serving", "mlflow") and meet("trainer", "mlflow") and meet("trainer", "postgres")


def test_networks_of_services_that_need_no_way_out_have_none(file):
    networks = file["networks"]
    assert {name for name, network in networks.items() if (network or {}).get("internal")} == {
        "database", "objects", "models",
    }  # fmt: skip
    assert networks["published"]["driver_opts"] == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert set(networks) == {"default", "database", "objects", "models", "published"}


@pytest.mark.parametrize("name", ["trainer", "trainer-gpu"])
def test_the_trainer_sees_five_folders_and_neither_env_nor_secrets(services, name):
    binds = [volume for volume in services[name]["volumes"] if isinstance(volume, dict)]
    assert {volume["target"]: volume.get("read_only", False) for volume in binds} == {
        "/work/recordings": True, "/work/experiments": True, "/work/data": False, "/work/runs": False,
        "/work/results": False,
    }  # fmt: skip
    for volume in binds:
        assert volume["source"] == "." + volume["target"].removeprefix("/work")
        assert volume["bind"] == {"create_host_path": False}  # Docker would make it, for root
    assert [volume for volume in services[name]["volumes"] if isinstance(volume, str)] == ["cache:/home/watkins/.cache"]


def test_no_other_service_sees_a_folder_of_this_machine(services):
    volumes = {name: service.get("volumes") for name, service in services.items() if not name.startswith("trainer")}
    assert volumes == {
        "postgres": ["database:/var/lib/postgresql"], "mlflow": ["artifacts:/srv/artifacts"], "serving": None,
        "s3": ["objects:/data"],
    }  # fmt: skip


def test_only_the_server_knows_the_admin(services):
    text = {name: yaml.safe_dump(service) for name, service in services.items()}
    assert {name for name in text if "admin_password" in text[name]} == {"mlflow"}
    assert services["trainer"]["environment"]["MLFLOW_TRACKING_USERNAME"] == "trainer"
    assert services["serving"]["environment"]["MLFLOW_TRACKING_USERNAME"] == "serving"


# --- make-env.sh ---


@pytest.fixture
def checkout_of(tmp_path):
    """A folder to run the scripts in, and a function that runs make-env.sh there as somebody."""
    shutil.copy(ROOT / ".env.example", tmp_path)
    shutil.copytree(ROOT / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))

    def make(uid: int = os.getuid(), gid: int = os.getgid(), **environment: str) -> subprocess.CompletedProcess:
        programs = tmp_path / "programs"
        programs.mkdir(exist_ok=True)
        (programs / "id").write_text(f'#!/bin/sh\n[ "$1" = -u ] && echo {uid} || echo {gid}\n')
        (programs / "chown").write_text('#!/bin/sh\necho "chown $*"\n')
        for program in programs.iterdir():
            program.chmod(0o755)
        return subprocess.run(
            ["sh", tmp_path / "docker" / "make-env.sh"], capture_output=True, text=True,
            env={"PATH": f"{programs}:{os.environ['PATH']}"} | environment,
        )  # fmt: skip

    make.folder = tmp_path
    return make


@pytest.mark.parametrize(
    "who, sudo, trainer",
    [
        ((1234, 1235), {}, "1234:1235"),
        ((0, 0), {"SUDO_UID": "1234", "SUDO_GID": "1235"}, "1234:1235"),
        ((0, 0), {}, "10001:10001"),
        ((0, 0), {"SUDO_UID": "0", "SUDO_GID": "0"}, "10001:10001"),
        ((1234, 0), {}, "1234:1234"),
    ],
)
def test_the_trainer_is_who_made_env_and_never_root(checkout_of, who, sudo, trainer):
    made = checkout_of(*who, **sudo)
    assert made.returncode == 0, made.stderr
    services = compose.read(compose.env_file(checkout_of.folder / ".env"))["services"]
    assert services["trainer"]["user"] == services["trainer-gpu"]["user"] == trainer
    if who[0] == 0:  # what it works in is then given to it
        assert all(f"chown {trainer} {name}\n" in made.stdout for name in ("recordings", "data", "runs", "results"))


def test_without_an_answer_the_trainer_is_user_1000(env):
    without = {key: value for key, value in env.items() if not key.startswith("TRAINER_")}
    trainer = compose.read(without)["services"]["trainer"]
    assert (trainer["user"], trainer["mem_limit"], trainer["cpus"]) == ("1000:1000", "4g", "1")


def test_every_secret_is_another_and_only_for_its_owner(secrets, checkout, file):
    assert set(secrets) == set(file["secrets"])
    assert len(set(secrets.values())) == len(secrets)
    assert all(re.fullmatch("[0-9a-f]{48}", secret) for secret in secrets.values())
    folder = checkout / "docker" / "secrets"
    assert folder.stat().st_mode & 0o077 == 0  # others cannot enter it
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o444}  # the users in the containers can read
    assert (checkout / ".env").stat().st_mode & 0o077 == 0
    for secret in secrets.values():
        assert secret not in (checkout / ".env").read_text()


def test_make_env_makes_the_folders_that_the_trainer_works_in(checkout):
    assert all((checkout / name).is_dir() for name in ("recordings", "data", "runs", "results"))


def test_again_it_leaves_everything_as_it_is(checkout_of):
    checkout_of()
    before = {path: path.read_bytes() for path in checkout_of.folder.rglob("*") if path.is_file()}
    again = checkout_of()
    assert (again.returncode, again.stdout) == (0, "there is a .env already; it is left as it is\n")
    assert {path: path.read_bytes() for path in checkout_of.folder.rglob("*") if path.is_file()} == before


def test_secrets_of_an_earlier_env_are_moved_and_its_root_trainer_is_none_any_more(checkout_of):
    names = ("POSTGRES_PASSWORD", "MLFLOW_DB_PASSWORD", "OPTUNA_DB_PASSWORD", "MLFLOW_SECRET_KEY", "S3_SECRET_KEY")
    old = "".join(f"{name}=of-{name}\n" for name in names)
    env = checkout_of.folder / ".env"
    env.write_text(old + "MLFLOW_ADMIN_PASSWORD=twelve=letters\nTRAINER_UID=0\nTRAINER_GID=0\nPUBLIC_NAME=whales.org\n")
    assert "moved the secrets of .env to docker/secrets" in checkout_of(0, 0).stdout
    kept = ["TRAINER_UID=10001", "TRAINER_GID=10001", "PUBLIC_NAME=whales.org", "SECRETS_DIR=./docker/secrets"]
    assert env.read_text().splitlines() == kept
    folder = checkout_of.folder / "docker" / "secrets"
    assert {name: (folder / name.lower()).read_text() for name in names} == {name: f"of-{name}" for name in names}
    assert (folder / "mlflow_admin_password").read_text() == "twelve=letters"
    assert len((folder / "mlflow_trainer_password").read_text()) == 48


# --- the wrapper that hands secrets over ---


def handed(environment: dict[str, str]) -> subprocess.CompletedProcess:
    command = ["sh", ROOT / "docker" / "with-secrets.sh", "env"]
    return subprocess.run(command, env={"PATH": os.environ["PATH"]} | environment, capture_output=True, text=True)


def test_a_secret_becomes_a_variable_of_the_command_alone(tmp_path):
    secret = tmp_path / "secrets" / "it's $(id) `x`"
    secret.parent.mkdir()
    secret.write_text("a b$(id)'\"\\n")
    (tmp_path / "x").write_text("no secret")
    ran = handed({"PGPASSWORD_FILE": str(secret), "SSL_CERT_FILE": str(tmp_path / "x"), "PLAIN": "p"})
    assert ran.returncode == 0, ran.stderr
    assert "PGPASSWORD=a b$(id)'\"\\n\n" in ran.stdout and "PLAIN=p\n" in ran.stdout
    assert "PGPASSWORD_FILE" not in ran.stdout and "SSL_CERT_FILE=" in ran.stdout and "SSL_CERT=" not in ran.stdout


def test_a_secret_that_is_not_there_is_said(tmp_path):
    ran = handed({"PGPASSWORD_FILE": str(tmp_path / "secrets" / "none")})
    assert ran.returncode == 1 and "none cannot be read; run sh docker/make-env.sh again" in ran.stderr


# --- digests ---


@pytest.mark.parametrize("digest, right", [("sha256:" + "1" * 64, True), ("", False)])
def test_pin_images_asks_for_each_tag_and_writes_what_the_registry_says(tmp_path, digest, right):
    for name in ("docker-compose.yml", "Dockerfile", ".env.example"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "docker", tmp_path / "docker", ignore=shutil.ignore_patterns("secrets"))
    (tmp_path / ".env").write_text("PUBLIC_NAME=x\nS3_IMAGE=old\n")
    docker = tmp_path / "programs" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$*" >> "{tmp_path}/asked"\necho "{digest}"\n')
    docker.chmod(0o755)
    ran = subprocess.run(
        ["sh", tmp_path / "docker" / "pin-images.sh", "--write"], capture_output=True, text=True,
        env={"PATH": f"{docker.parent}:{os.environ['PATH']}"},
    )  # fmt: skip
    if not right:
        assert ran.returncode == 1 and "the registry gives no digest" in ran.stderr
        assert (tmp_path / ".env").read_text() == "PUBLIC_NAME=x\nS3_IMAGE=old\n"
        return
    assert ran.returncode == 0, ran.stderr
    asked = [line.split()[3] for line in Path(tmp_path / "asked").read_text().splitlines()]
    assert asked == ["postgres:18.4-bookworm", "chrislusf/seaweedfs:4.48", "python:3.12.13-slim-bookworm"]
    env = compose.env_file(tmp_path / ".env")
    images = {name: service["image"] for name, service in compose.read(env | {"SECRETS_DIR": "x"})["services"].items()}
    assert images["postgres"] == f"postgres:18.4-bookworm@{digest}"
    assert images["s3"] == f"chrislusf/seaweedfs:4.48@{digest}"
    assert f"\nARG BASE=python:3.12.13-slim-bookworm@{digest}\n" in (tmp_path / "Dockerfile").read_text()
    assert FILE.read_text() == (tmp_path / "docker-compose.yml").read_text()
