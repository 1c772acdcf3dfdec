"""Faults of a tracking server: what happened, what to do, and whether it may be gone at the next attempt."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from watkins_ml.core.errors import first_line
from watkins_ml.tracking.address import VARIABLE, WEB, proxy_of

NOT_MLFLOW = "what answers there is no MLflow server"
PROBE_SECONDS = 5


@dataclass(frozen=True)
class Fault:
    """What happened, what to do about it, and whether it may be gone at the next attempt."""

    words: str
    remedy: str = ""
    transient: bool = False

    def __str__(self) -> str:
        return f"{self.words}; {self.remedy}" if self.remedy else self.words


class TrackingError(Exception):
    """The server answers, but what it holds or says is of no use."""

    def __init__(self, fault: Fault):
        super().__init__(str(fault))
        self.fault = fault


FAULTS = {
    r"Failed to resolve|Name or service not known|nodename nor servname": Fault(
        "no host of that name", "check the address, and whether this machine has a network"),
    r"WRONG_VERSION_NUMBER|wrong version number|record layer failure": Fault(
        "it does not speak https", "write the address with http://"),
    r"Hostname mismatch|doesn't match": Fault(
        "its certificate is for another host", "write the name that the certificate has"),
    r"certificate has expired": Fault("its certificate has expired", "it must be renewed there"),
    r"CERTIFICATE_VERIFY_FAILED": Fault(
        "this machine does not trust who signed its certificate",
        "name the file with the signer's own in MLFLOW_TRACKING_SERVER_CERT_PATH"),
    r"CA certificate bundle, invalid path: (\S+)": Fault(
        "there are no certificates in {}", "correct MLFLOW_TRACKING_SERVER_CERT_PATH or REQUESTS_CA_BUNDLE"),
    r"Invalid Host header": Fault(
        "it does not answer to the name {host} (Invalid Host header)",
        "where it runs, set MLFLOW_SERVER_ALLOWED_HOSTS={host} and start it again"),
    r"not authenticated|UNAUTHENTICATED|CUSTOMER_UNAUTHORIZED|error code 401": Fault(
        "it requires an account (401)", "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD are missing or wrong"),
    r"PERMISSION_DENIED|error code 403": Fault(
        "this account may not do that (403)", "ask the server's administrator, or use another account"),
    r"error code 407": Fault(
        "a proxy requires an account (407)", "write http://NAME:PASSWORD@HOST:PORT into its variable"),
    r"error code 413": Fault("a file is too large for it, or for a proxy before it (413)", "raise the limit there"),
    r"No usable temporary directory": Fault(
        "this machine has no folder for temporary files that can be written to", "name one in TMPDIR"),
    r"No space left|disk is full|[Qq]uota exceeded": Fault("its disk is full", "make room"),
    r"readonly database|Read-only file system": Fault("its store may not be written", "correct its permissions"),
    r"unable to open database file": Fault("its file cannot be opened", "correct the path or its permissions"),
    r"file is not a database|malformed": Fault(
        "its file is damaged", "restore it from a copy, or move it away to begin a new store"),
    r"out-of-date database schema": Fault(
        "an older version of MLflow made its tables", "keep a copy of it and run `mlflow db upgrade {address}`"),
    r"Can't locate revision": Fault("a newer version of MLflow made its tables", "install that version"),
    r"No module named '(\w+)'": Fault("the Python package {} is missing", "install it with pip"),
    r"(password authentication failed for user \S+|(?:database|role) \S+ does not exist)": Fault(
        "{}", "correct the address"),
    r"Connection refused": Fault("it refuses connections", transient=True),
    r"database is locked": Fault("another program is writing to it", transient=True),
    r"timed out": Fault("no answer in time", transient=True),
    r"too many (\d+) error responses": Fault("it answers {}", transient=True),
    r"connection failed|connection to server|terminating connection|closed the connection": Fault(
        "its database is away", transient=True),
    r"Connection aborted|Connection reset|RemoteDisconnected|EOF occurred": Fault(
        "it drops connections", "if it speaks https, write the address with https://", transient=True),
}  # fmt: skip
"""What MLflow, urllib3 and databases say (regular expressions) and what that means; the first that is found counts."""
DELETED = re.compile(r"The (experiment|run) (\w+) must be in the 'active' state")


def diagnose(error: BaseException, uri: str) -> Fault:
    """What an error of MLflow's client, of the network or of a database means; where that is open, asks the server.

    MLflow itself buries it in long sentences.
    """
    text = str(error)
    if isinstance(error, TrackingError):
        return error.fault
    if "ProxyError" in text or "Tunnel connection failed" in text:
        return _stopped_by_proxy(text, uri)
    if found := DELETED.search(text):
        return deleted(found[1], found[2], uri)
    known = {"host": urlsplit(uri).netloc.rpartition("@")[2]}
    known["address"] = uri if uri.startswith("sqlite:") else "ADDRESS"  # it may contain a password
    for sign, fault in FAULTS.items():
        if found := re.search(sign, text):
            words = fault.words.format(*found.groups(), **known)
            return _with_proxy(Fault(words, fault.remedy.format(**known), fault.transient), uri)
    return _from_response(error, uri)


def deleted(what: str, number: str, uri: str) -> Fault:
    """An experiment or a run that was deleted in the UI; it can be restored until MLflow's `gc`."""
    where = f"{VARIABLE}={uri} " if uri.startswith("sqlite:") else ""  # a server's address is in the environment
    option = "experiment-id" if what == "experiment" else "run-id"
    another = " (a new run can also have another tracking.experiment)" if what == "experiment" else ""
    return Fault(
        f"the {what} was deleted there", f"restore it with `{where}mlflow {what}s restore --{option} {number}`{another}"
    )


def _from_response(error: BaseException, uri: str) -> Fault:
    """From the server's response, if it is one of MLflow."""
    from mlflow.exceptions import MlflowException, RestException

    answer = error if isinstance(error, RestException) else None
    if (answer and "error_code" not in answer.json) or re.search(r"error code \d+ != |not in a valid JSON", str(error)):
        fault = who_answers(uri) or Fault(first_line(error).partition(". Response body")[0])
        return _with_proxy(fault, uri)
    if answer:
        words = first_line(answer).removeprefix(f"{answer.error_code}: ")
        return Fault(words, transient=answer.get_http_status_code() in (429, 500, 503, 504))
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return Fault(f"{error.strerror} ({error.filename})", "correct its permissions")
    transient = isinstance(error, (ConnectionError, TimeoutError)) and not isinstance(error, MlflowException)
    return Fault(first_line(error), transient=transient)


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
            return Fault(NOT_MLFLOW, f"leave out {parts.path}")
    except Exception:  # it does not answer this request either
        return None
    if version is None:
        return Fault(NOT_MLFLOW, "correct the host or the port")
    if where.rstrip("/") != re.sub("//.*@", "//", uri).rstrip("/"):
        return Fault("it redirects to another address", f"write {where}")
    if int(version.split(".")[0]) < 3:
        return Fault(f"it is an MLflow {version}, which keeps no models of today's kind", "update it to 3 or newer")
    return None


def _stopped_by_proxy(text: str, uri: str) -> Fault:
    variable, proxy = proxy_of(uri) or ("http_proxy", "")
    how = re.search(r"Tunnel connection failed: (\d+[\w ]*)|(Connection refused)|(timed out)|(Failed to resolve)", text)
    why = f" ({next(filter(None, how.groups()))})" if how else ""
    return Fault(f"the proxy {proxy} of {variable} does not let it through{why}", _bypass(uri))


def _with_proxy(fault: Fault, uri: str) -> Fault:
    """The same fault naming the proxy in between, since that may be what answered."""
    if (found := proxy_of(uri)) is None:
        return fault
    variable, proxy = found
    remedy = f"{fault.remedy}; {_bypass(uri)}" if fault.remedy else _bypass(uri)
    return Fault(f"{fault.words}, asked through the proxy {proxy} of {variable}", remedy, fault.transient)


def _bypass(uri: str) -> str:
    return f"to go around the proxy: export NO_PROXY={urlsplit(uri).hostname}"
