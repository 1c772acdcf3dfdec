"""A real MLflow server over HTTP, and a small proxy that counts (or drops) what is sent to it."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import socket
import subprocess
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import server_command


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def nobody_listens() -> str:
    """The address of a tracking server that is not there."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
def impatient(monkeypatch):
    """Give up on a server at once, so that its absence takes no test time."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


@pytest.fixture(scope="session")
def server(empty_store, tmp_path_factory) -> str:
    """The address of an `mlflow server` process with an empty store of its own."""
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow").mkdir()
    (folder / "mlflow" / "mlflow.db").write_bytes(empty_store.read_bytes())
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        command = server_command("127.0.0.1", port, backend=None)
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    log = folder / "server.log"
    with open(log, "w") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _wait_until_ready(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
            urllib.request.urlopen(address + name, timeout=5).read()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"mlflow server did not start: {log.read_text()[-2000:]}")


class Proxy:
    """Forwards to a server; `requests` holds (method, path, JSON body); `down` drops every connection."""

    def __init__(self, target: str):
        self.requests: list[tuple[str, str, dict]] = []
        self.down = False
        host = target.removeprefix("http://")
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if proxy.down:
                    self.close_connection = True
                    return
                is_json = "json" in (self.headers.get("Content-Type") or "")
                proxy.requests.append((self.command, self.path, json.loads(body) if is_json and body else {}))
                connection = http.client.HTTPConnection(host, timeout=60)
                connection.request(self.command, self.path, body, {**self.headers, "Host": host})
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "content-length", "connection", "server", "date"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def metric_batches(self) -> list[list[dict]]:
        """The metrics of each log-batch request that had any."""
        return [
            body["metrics"]
            for _, path, body in self.requests
            if path.endswith("runs/log-batch") and body.get("metrics")
        ]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def proxy(server) -> Proxy:
    proxy = Proxy(server)
    yield proxy
    proxy.close()


@pytest.fixture
def journal(tmp_path):
    """A function that gives a run directory with the journal of a run that has begun, without any training."""

    def start(name: str = "run", experiment: str = "sea") -> RunDirectory:
        run = RunDirectory(tmp_path / name)
        run.root.mkdir()
        run.update_facts(name=name, uid=f"uid of {tmp_path.name} {name}", status="RUNNING")
        run.record("start", name=name, uid=run.facts["uid"], experiment=experiment)
        run.record("params", values={"optim.lr": 0.001, "tracking.register_as": None})
        run.record("tags", values={"data_digest": "d1"})
        return run

    return start
