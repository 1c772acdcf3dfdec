"""A local HTTP server that serves a release as the real hosts do, and fails as they do."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Fault:
    """What happens to the next request for a path instead of a good answer."""

    status: int = 0
    """Answer with this status and nothing else."""
    cut_after: int | None = None
    """Close the connection after so many bytes of the body."""
    stall_s: float = 0.0
    """Say nothing for so long in the middle of the body."""
    retry_after: str = ""
    then: Callable[[], None] = lambda: None
    """Called when the fault has happened."""


@dataclass
class Asked:
    """One request that came."""

    method: str
    path: str
    range: str
    if_range: str
    sent: int = 0
    """Bytes of the body that went out."""


@dataclass
class Host:
    """Files, redirects and JSON by path; `faults[path]` are used up one a request."""

    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Callable[[dict], object]] = field(default_factory=dict)
    """JSON by path, from the JSON that came."""
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    download_faults: dict[str, list[Fault]] = field(default_factory=dict)
    """The same, but only for requests of the whole file or its rest, not for those of a piece of it."""
    raw: dict[str, Callable[[Callable[[bytes], None]], None]] = field(default_factory=dict)
    """What is sent for a path instead of any answer of HTTP, by a function that is given one that sends."""
    asked: list[Asked] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    most: int | None = None
    """Bytes that one range gives; the rest has to be asked for again."""
    shift: int = 0
    """Give a range from so many bytes before what was asked for."""
    block: int = 1 << 16
    pause_s: float = 0.0
    """Between two blocks of a body: a slow connection."""

    def __post_init__(self) -> None:
        host = self

        class Handler(_Handler):
            serves = host

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def of(self, path: str) -> list[Asked]:
        return [one for one in self.asked if one.path == path]

    def sent(self, path: str) -> int:
        return sum(one.sent for one in self.of(path))


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_) -> None:
        """Silent: clients that go away are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    serves: Host
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        host, path = self.serves, self._path()
        header = self.headers.get
        came = self.rfile.read(int(header("Content-Length", 0)))
        piece = re.fullmatch(r"bytes=\d+-\d+", header("Range", ""))
        faults = host.faults.get(path) or ([] if piece else host.download_faults.get(path))
        fault = faults.pop(0) if faults else Fault()
        self.asked = Asked(self.command, path, header("Range", ""), header("If-Range", ""))
        host.asked.append(self.asked)  # before the answer, which may end the test
        try:
            if path in host.raw:
                self.close_connection = True
                host.raw[path](self._say)
            elif fault.status:
                self._head(fault.status, 0, {"Retry-After": fault.retry_after} if fault.retry_after else {})
            elif path in host.redirects:
                self._head(302, 0, {"Location": host.redirects[path]})
            elif path in host.answers:
                answer = host.answers[path](json.loads(came) if came else {})
                self._head(200, len(body := json.dumps(answer).encode()), {"Content-Type": "application/json"})
                self.wfile.write(body)
            elif path in host.files:
                self._file(host.files[path], host.headers.get(path, {}), fault)
            else:
                self._head(404, 0)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            fault.then()

    def do_POST(self) -> None:
        self.do_GET()

    def _say(self, data: bytes) -> None:
        self.asked.sent += len(data)
        self.wfile.write(data)

    def _path(self) -> str:
        """Also of a request to a proxy, which names the whole address."""
        return unquote(urlsplit(self.path).path)

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()

    def _file(self, body: bytes, headers: dict[str, str], fault: Fault) -> None:
        host, whole = self.serves, len(body)
        etag = '"' + hashlib.md5(body).hexdigest() + '"'
        if host.etags:
            headers = {"ETag": etag, **headers}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")) if host.ranges else None
        if match and self.headers.get("If-Range", etag) == etag:
            first, last = int(match[1]) - host.shift, min(int(match[2] or whole - 1), whole - 1)
            last = last if host.most is None else min(last, first + host.most - 1)
            if first >= whole:
                self._head(416, 0, {"Content-Range": f"bytes */{whole}"})
                return
            body = body[first : last + 1]
            self._head(206, len(body), {"Content-Range": f"bytes {first}-{last}/{whole}", **headers})
        else:
            self._head(200, whole, headers)
        self._send(body if fault.cut_after is None else body[: fault.cut_after], fault)

    def _send(self, body: bytes, fault: Fault) -> None:
        for start in range(0, len(body), self.serves.block):
            self.asked.sent += len(body[start : start + self.serves.block])
            self.wfile.write(body[start : start + self.serves.block])
            time.sleep(self.serves.pause_s)
        if fault.stall_s:
            time.sleep(fault.stall_s)
        if fault.cut_after is not None:
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(2)

    def log_message(self, *_) -> None:
        pass
