"""What keeps a tracking server from doing as asked: in words, with what to do, and whether waiting mends it."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from watkins_ml.core.errors import first_line
from watkins_ml.tracking.address import VARIABLE, WEB, proxy_of

STRANGER = "what answers there is no MLflow server"
PROBE_SECONDS = 5


@dataclass(frozen=True)
class Fault:
    """What happened, what to do about it, and whether it may be gone by itself the next time."""

    words: str
    remedy: str = ""
    passing: bool = False

    def __str__(self) -> str:
        return f"{self.words}; {self.remedy}" if self.remedy else self.words


class TrackingError(Exception):
    """The server answers, but what it holds or says is of no use."""

    def __init__(self, fault: Fault):
        super().__init__(str(fault))
        self.fault = fault


PASSING = {
    r"Connection refused": "it refuses connections",
    r"database is locked": "another program is writing to it",
    r"timed out": "no answer in time",
    r"too many (\d+) error responses": "it answers {}",
    r"connection failed|connection to server|terminating connection|closed the connection": "its database is away",
}
"""What MLflow, urllib3 and databases say of what may be gone the next time, as regular expressions."""
LASTING = {
    r"Failed to resolve|Name or service not known|nodename nor servname": (
        "no host of that name", "check the address, and whether this machine has a network"),
    r"WRONG_VERSION_NUMBER|wrong version number|record layer failure": (
        "it does not speak https", "write the address with http://"),
    r"Hostname mismatch|doesn't match": (
        "its certificate is for another host", "write the name that the certificate has"),
    r"certificate has expired": ("its certificate has expired", "it must be renewed there"),
    r"CERTIFICATE_VERIFY_FAILED": (
        "this machine does not trust who signed its certificate",
        "name the file with the signer's own in MLFLOW_TRACKING_SERVER_CERT_PATH"),
    r"CA certificate bundle, invalid path: (\S+)": (
        "there are no certificates in {}", "correct MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE"),
    r"Invalid Host header": (
        "it does not answer to the name {host} (Invalid Host header)",
        "where it runs, set MLFLOW_SERVER_ALLOWED_HOSTS={host} and start it again"),
    r"not authenticated|UNAUTHENTICATED|CUSTOMER_UNAUTHORIZED|error code 401": (
        "it asks who you are (401)", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are missing or wrong"),
    r"PERMISSION_DENIED|error code 403": (
        "this account may not do that (403)", "ask whoever keeps the server, or log in with another"),
    r"error code 407": ("a proxy asks who you are (407)", "write http://NAME:PASSWORD@HOST:PORT into its variable"),
    r"error code 413": ("a file is too large for it, or for a proxy before it (413)", "raise the limit there"),
    r"No usable temporary directory": (
        "this machine has no folder for temporary files that can be written to", "name one in TMPDIR"),
    r"No space left|disk is full|[Qq]uota exceeded": ("its disk is full", "make room"),
    r"readonly database|Read-only file system": ("its store may not be written", "mend the permissions"),
    r"unable to open database file": ("its file cannot be opened", "mend the path or the permissions"),
    r"file is not a database|malformed": (
        "its file is damaged", "restore it from a copy, or move it away to begin a new store"),
    r"out-of-date database schema": (
        "an older version of MLflow made its tables", "keep a copy of it and run `mlflow db upgrade {address}`"),
    r"Can't locate revision": ("a newer version of MLflow made its tables", "install that version"),
    r"No module named '(\w+)'": ("the Python package {} is missing", "install it with pip"),
    r"(password authentication failed for user \S+|(?:database|role) \S+ does not exist)": (
        "{}", "correct the address"),
}  # fmt: skip
"""The same of what stays until somebody mends it, and what to do."""
DELETED = re.compile(r"The (experiment|run) (\w+) must be in the 'active' state")


def reason(error: BaseException, uri: str) -> str:
    """Why a server did not do as asked, in a few words and with what to do; MLflow buries it in long sentences."""
    return str(diagnose(error, uri))


def diagnose(error: BaseException, uri: str) -> Fault:
    """What an error of MLflow's client, of the network or of a database means; where that is open, asks the server."""
    text = str(error)
    if isinstance(error, TrackingError):
        return error.fault
    if "ProxyError" in text or "Tunnel connection failed" in text:
        return _stopped_by_proxy(text, uri)
    if found := DELETED.search(text):
        return deleted(found[1], found[2], uri)
    known = {"host": urlsplit(uri).netloc.rpartition("@")[2]}
    known["address"] = uri if uri.startswith("sqlite:") else "ADDRESS"  # which may hold a password
    for sign, (words, remedy) in LASTING.items():
        if found := re.search(sign, text):
            return _past_proxy(Fault(words.format(*found.groups(), **known), remedy.format(**known)), uri)
    for sign, words in PASSING.items():
        if found := re.search(sign, text):
            return _past_proxy(Fault(words.format(*found.groups()), passing=True), uri)
    if re.search(r"Connection aborted|Connection reset|RemoteDisconnected|EOF occurred", text):
        return _past_proxy(_dropped(uri), uri)
    return _by_answer(error, uri)


def deleted(what: str, number: str, uri: str) -> Fault:
    """An experiment or a run that somebody deleted in the UI, which keeps it until MLflow's `gc`."""
    where = f"{VARIABLE}={uri} " if uri.startswith("sqlite:") else ""  # a server's address is in the environment
    option = "experiment-id" if what == "experiment" else "run-id"
    another = " (a new run can also have another tracking.experiment)" if what == "experiment" else ""
    return Fault(
        f"the {what} was deleted there", f"restore it with `{where}mlflow {what}s restore --{option} {number}`{another}"
    )


def _by_answer(error: BaseException, uri: str) -> Fault:
    """By what the server said, if it is MLflow that said it."""
    from mlflow.exceptions import MlflowException, RestException

    answer = error if isinstance(error, RestException) else None
    if (answer and "error_code" not in answer.json) or re.search(r"error code \d+ != |not in a valid JSON", str(error)):
        fault = who_answers(uri) or Fault(first_line(error).partition(". Response body")[0])
        return _past_proxy(fault, uri)
    if answer:
        words = first_line(answer).removeprefix(f"{answer.error_code}: ")
        return Fault(words, passing=answer.get_http_status_code() in (429, 500, 503, 504))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return Fault(f"{error.strerror} ({error.filename})", "mend the permissions")
    passing = isinstance(error, (ConnectionError, TimeoutError)) and not isinstance(error, MlflowException)
    return Fault(first_line(error), passing=passing)


def who_answers(uri: str) -> Fault | None:
    """What is wrong with an address where something else answers than an MLflow server of today; else None."""
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    if urlsplit(uri).scheme not in WEB:
        return None

    def ask(address: str) -> tuple[str, int, str | None]:
        """Where an answer came from in the end, its status, and the version of MLflow that it gives."""
        how = {"max_retries": 0, "timeout": PROBE_SECONDS, "raise_on_status": False}
        answer = http_request(get_default_host_creds(address), "/version", "GET", **how)
        found = re.fullmatch(r"\d+\.\d+\.\d+\w*", answer.text.strip())
        return answer.url.removesuffix("/version"), answer.status_code, found and found[0]

    parts = urlsplit(uri)
    try:
        where, status, version = ask(uri)
        if status in (401, 403):
            return diagnose(RuntimeError(f"error code {status}"), uri)
        if version is None and parts.path.strip("/") and ask(parts._replace(path="").geturl())[2]:
            return Fault(STRANGER, f"leave out {parts.path}")
    except Exception:  # whoever it is, nothing more can be learned
        return None
    if version is None:
        return Fault(STRANGER, "correct the host or the port")
    if where.rstrip("/") != re.sub("//.*@", "//", uri).rstrip("/"):
        return Fault("it sends everybody on to another address", f"write {where}")
    if int(version.split(".")[0]) < 3:
        return Fault(f"it is an MLflow {version}, which keeps no models of today's kind", "update it to 3 or newer")
    return None


def _dropped(uri: str) -> Fault:
    """A server that hangs up: so does one that waits for https."""
    parts = urlsplit(uri)
    try:
        if parts.scheme != "http":
            raise ValueError
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((parts.hostname, parts.port or 80), PROBE_SECONDS) as connection:
            with context.wrap_socket(connection):
                return Fault("it speaks https", "write the address with https://")
    except (OSError, ValueError):  # no TLS there, or nobody
        return Fault("it drops connections", passing=True)


def _stopped_by_proxy(text: str, uri: str) -> Fault:
    variable, proxy = proxy_of(uri) or ("http_proxy", "")
    how = re.search(r"Tunnel connection failed: (\d+[\w ]*)|(Connection refused)|(timed out)|(Failed to resolve)", text)
    why = f" ({next(filter(None, how.groups()))})" if how else ""
    return Fault(f"the proxy {proxy} of {variable} does not let it through{why}", _around(uri))


def _past_proxy(fault: Fault, uri: str) -> Fault:
    """The same with the proxy that was asked, since it may be the one that answered."""
    if (found := proxy_of(uri)) is None:
        return fault
    variable, proxy = found
    remedy = f"{fault.remedy}; {_around(uri)}" if fault.remedy else _around(uri)
    return Fault(f"{fault.words}, asked through the proxy {proxy} of {variable}", remedy, fault.passing)


def _around(uri: str) -> str:
    return f"to go around the proxy: export NO_PROXY={urlsplit(uri).hostname}"
