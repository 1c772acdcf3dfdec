"""The services of docker-compose.yml as processes of this machine: PostgreSQL, MLflow and the trainer."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support import compose, forked
from tests.support.servers import Postgres, free_port


@pytest.fixture(scope="session")
def checkout(tmp_path_factory) -> Path:
    """A folder in which docker/make-env.sh has run."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(compose.ROOT / ".env.example", folder)
    shutil.copytree(compose.ROOT / "docker", folder / "docker", ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["sh", folder / "docker" / "make-env.sh"], check=True, capture_output=True)
    return folder


@pytest.fixture(scope="session")
def env(checkout) -> dict[str, str]:
    """What docker/make-env.sh writes into .env."""
    return compose.env_file(checkout / ".env")


@pytest.fixture(scope="session")
def secrets(checkout) -> dict[str, str]:
    """The secrets that it makes, by name."""
    return {path.name: path.read_text() for path in (checkout / "docker" / "secrets").iterdir()}


@dataclass
class Native:
    """The compose file, where each service is a process here instead of a container."""

    file: dict
    folder: Path
    secrets: Path
    postgres_port: int
    mlflow_port: int = field(default_factory=free_port)
    serving_port: int = field(default_factory=free_port)

    def here(self, text: str) -> str:
        """All that differs from the compose file: host names, ports and folders."""
        for inside, outside in {
            "@postgres:5432": f"@127.0.0.1:{self.postgres_port}",
            "http://mlflow:5000": f"http://127.0.0.1:{self.mlflow_port}",
            "http://127.0.0.1:5000": f"http://127.0.0.1:{self.mlflow_port}",
            "--host=0.0.0.0": "--host=127.0.0.1",
            "http://127.0.0.1:5001": f"http://127.0.0.1:{self.serving_port}",
            "--port=5000": f"--port={self.mlflow_port}",
            "--port=5001": f"--port={self.serving_port}",
            "/srv/artifacts": str(self.folder / "artifacts"),
            "/etc/mlflow/auth.ini": str(self.folder / "auth.ini"),
            "/etc/watkins": str(compose.ROOT / "docker"),
            "/run/secrets": str(self.secrets),
        }.items():
            text = text.replace(inside, outside)
        return text

    def environment(self, service: str) -> dict[str, str]:
        """The service's own variables and nothing from outside but the programs."""
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        if service != "mlflow":  # whose processes are looked at
            programs = f"{forked.programs()}:{programs}"
        base = {"PATH": programs, "HOME": str(self.folder), "OMP_NUM_THREADS": "1", forked.BLANK: "1"}
        return base | {key: self.here(value) for key, value in self.file["services"][service]["environment"].items()}

    def command(self, service: str) -> list[str]:
        definition = self.file["services"][service]
        return [self.here(part) for part in definition["entrypoint"] + definition["command"]]

    def is_healthy(self, service: str, **environment: str) -> bool:
        """What the service's own health check says."""
        kind, *command = self.file["services"][service]["healthcheck"]["test"]
        assert kind == "CMD"
        return not subprocess.run(
            [self.here(part) for part in command],
            env=self.environment(service) | environment, capture_output=True, timeout=60,
        ).returncode  # fmt: skip

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess:
        """Another command in the service than its own, with its secrets."""
        start = [self.here(part) for part in self.file["services"][service]["entrypoint"][:2]]
        assert start[-1].endswith("with-secrets.sh")
        return subprocess.run(
            [*start, *command], env=self.environment(service), cwd=self.folder, capture_output=True, text=True,
            timeout=300,
        )  # fmt: skip

    @contextmanager
    def started(self, name: str, folder: Path) -> Iterator[subprocess.Popen]:
        """A service by the file's own command, waited for by the file's own health check."""
        log = self.folder / f"{name}.log"
        with open(log, "w") as output:
            process = subprocess.Popen(
                self.command(name), env=self.environment(name) | {"HOME": str(folder)}, cwd=folder,
                stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + 180
            while not self.is_healthy(name):
                if process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"{name} did not become healthy: {log.read_text()[-3000:]}")
                time.sleep(0.2)
            yield process
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(timeout=30)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"


@pytest.fixture(scope="session")
def native(env, checkout, tmp_path_factory) -> Native:
    """A real PostgreSQL that asks for passwords, its databases made by the file's own script; no MLflow yet."""
    server = Postgres()
    (server.data / "pg_hba.conf").write_text("local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    file = compose.read(env | {"SERVED_MODEL": "watkins-baseline", "PUBLIC_NAME": "whales.example.org"})
    native = Native(file, tmp_path_factory.mktemp("native"), checkout / "docker" / "secrets", server.port)
    (native.folder / "auth.ini").write_text(native.here(compose.config(file, "auth")))
    server.start()
    try:
        programs = {"PATH": f"{server.programs}:{os.environ['PATH']}", "PGPORT": str(server.port)}
        subprocess.run(
            ["psql", "-qX", "-v", "ON_ERROR_STOP=1", "--host", server.data, "--username", "postgres"],
            input=native.here(compose.config(file, "databases")), text=True, check=True,
            env=native.environment("postgres") | programs,
        )  # fmt: skip
        assert native.is_healthy("postgres", **programs)
        yield native
    finally:
        server.remove()


@dataclass(frozen=True)
class Service:
    """PostgreSQL and MLflow, started and found healthy."""

    native: Native
    process: subprocess.Popen
    home: Path
    """Where MLflow was started, and its home."""


@pytest.fixture(scope="session")
def service(native, tmp_path_factory) -> Service:
    with native.started("mlflow", home := tmp_path_factory.mktemp("home")) as process:
        yield Service(native, process, home)
