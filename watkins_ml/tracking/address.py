"""The address of a tracking server, checked before anything is sent to it."""

from __future__ import annotations

import difflib
import os
import re
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from watkins_ml.core.errors import UsageError

VARIABLE, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
WEB = ("http", "https")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
HOST = re.compile(r"(?:[^@/]*@)?((?:localhost|\[[0-9a-fA-F:]+\]|[\w-]+(?:\.[\w-]+)+|[\w.-]+(?=:\d))(?::\d+)?(?:/.*)?)")
"""A host as people write it without a scheme: localhost, or with a dot or a port; the group leaves out accounts."""


def checked(uri: str, variable: str = VARIABLE) -> str:
    """The address without the blanks around it that files of settings leave; `variable` is where it stands.

    Raises:
        UsageError: no server, database or store can ever be there; says what to write.
    """
    uri = uri.strip()
    scheme = uri.partition(":")[0].lower()
    if uri[:1] + uri[-1:] in ('""', "''") or (re.search(r"\s", uri) and scheme.split("+")[0] != "sqlite"):
        raise _wrong(variable, uri, "has a blank or a quotation mark in it; write only the address, http://HOST:PORT")
    if scheme in WEB and ":" in uri:
        _check_web(variable, uri, scheme)
    elif found := HOST.fullmatch(re.sub(r"^(https?)?//", "", uri)):
        raise _wrong(variable, uri, f"has no scheme; write http://{found[1]}")
    elif scheme in ("uc", "databricks-uc"):
        raise _wrong(variable, uri, "a Unity Catalog holds models, no runs; write databricks")
    elif _is_folder(uri):
        raise _wrong(variable, uri, "MLflow no longer keeps runs in plain folders; write http://HOST:PORT for a "
                     "server, sqlite:////FOLDER/mlflow.db for a file, or leave it out for ./mlflow/")  # fmt: skip
    elif scheme.split("+")[0] == "sqlite" and not re.match(r"sqlite(\+\w+)?:///.", uri):
        raise _wrong(variable, uri, "write sqlite:///FILE with three slashes, and a fourth where FILE begins with one")
    elif not _is_known(uri, scheme):
        near = difflib.get_close_matches(scheme, [*WEB, *DATABASES], n=1, cutoff=0.6)
        known = "http://, https://, sqlite:/// or postgresql://"
        raise _wrong(
            variable, uri, f"has a scheme that MLflow does not know; write {f'{near[0]}://' if near else known}"
        )
    elif scheme.split("+")[0] in DATABASES and uri.partition("://")[2].count("@") > 1:
        raise _wrong(variable, uri, "write @ in its password as %40")
    return uri


def _check_web(variable: str, uri: str, scheme: str) -> None:
    """Whether a host can be found in it, and nothing that belongs to a page."""
    rest = uri[len(scheme) + 1 :].lstrip("/")
    if not uri[len(scheme) :].startswith("://") or uri[len(scheme) + 3 :].startswith("/"):
        raise _wrong(
            variable, uri, f"two slashes belong behind {scheme}:; write {scheme}://{_masked(rest) or 'HOST:PORT'}"
        )
    parts = urlsplit(uri)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _wrong(variable, uri, "its port must be a number from 1 to 65535")
    if not parts.hostname:
        raise _wrong(variable, uri, f"names no host; write {scheme}://HOST:PORT")
    if parts.query or parts.fragment:
        raise _wrong(
            variable, uri, f"is the address of a page; write only {scheme}://{parts.netloc.rpartition('@')[2]}"
        )


def _is_folder(uri: str) -> bool:
    scheme = uri.partition(":")[0].lower()
    is_path = ":" not in uri or scheme == "file" or len(scheme) == 1  # a drive of Windows
    allowed = os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1")
    return is_path and uri != "databricks" and not allowed


def _is_known(uri: str, scheme: str) -> bool:
    plugins = {entry.name for entry in entry_points(group="mlflow.tracking_store")}
    return scheme.split("+")[0] in DATABASES or scheme in ("databricks", "file", *plugins) or ":" not in uri


def _masked(uri: str) -> str:
    """Without what may be a password."""
    return re.sub(r"^([a-zA-Z][\w+.-]*:/+)?.*@", r"\1", uri)


def _wrong(variable: str, uri: str, what: str) -> UsageError:
    return UsageError(f"{variable}={_masked(uri)}: {what}")


def proxy_of(uri: str) -> tuple[str, str] | None:
    """The variable that puts a proxy between this machine and an address, and the proxy's host and port."""
    from requests.utils import get_environ_proxies, select_proxy

    scheme = urlsplit(uri).scheme
    if scheme not in WEB or not (proxy := select_proxy(uri, get_environ_proxies(uri))):
        return None
    names = [name for each in (scheme, "all") for name in (f"{each}_proxy", f"{each.upper()}_PROXY")]
    variable = next((name for name in names if os.environ.get(name)), "the system's settings")
    return variable, urlsplit(proxy if "//" in proxy else f"//{proxy}").netloc.rpartition("@")[2]
