"""Addresses of tracking servers that can never work are refused at once, with what to write."""

import pytest
from hypothesis import given
from hypothesis import strategies as some

from watkins_ml.core.errors import UsageError
from watkins_ml.tracking.address import checked, proxy_of

GOOD = [
    "http://localhost:5000",
    "https://mlflow.example.org/tracking",
    "http://user:secret@127.0.0.1:5000",
    "http://[::1]:5000",
    "HTTP://h:1",
    "sqlite:///mlflow.db",
    "sqlite:////data/a folder/mlflow.db",
    "postgresql+psycopg://user:secret@host/mlflow",
    "mysql://user@host/mlflow",
    "databricks",
    "databricks://profile",
]
WRONG = {
    "localhost:5000": "write http://localhost:5000",
    "localhost": "write http://localhost",
    "127.0.0.1": "write http://127.0.0.1",
    "mlflow:5000/base": "write http://mlflow:5000/base",
    "[::1]:5000": "write http://[::1]:5000",
    "//host:5000": "write http://host:5000",
    "http//host:5000": "write http://host:5000",
    "mlflow.example.org": "write http://mlflow.example.org",
    "http:/host": "write http://host",
    "https:host:5000": "write https://host:5000",
    "http:///host": "write http://host",
    "http://": "write http://HOST:PORT",
    "http://:5000": "names no host",
    "http://host:99999": "from 1 to 65535",
    "http://host:port": "from 1 to 65535",
    "http://ho st:1": "a blank or a quotation mark",
    '"http://host:5000"': "a blank or a quotation mark",
    "http://host:5000/#/experiments/1": "write only http://host:5000",
    "htp://host:5000": "write http://",
    "httsp://host:5000": "write http",
    "postgres://host/mlflow": "write postgresql://",
    "ftp://host": "a scheme that MLflow does not know",
    "file:///data/mlruns": "no longer keeps runs in plain folders",
    "./mlruns": "no longer keeps runs in plain folders",
    "mlruns": "no longer keeps runs in plain folders",
    "/data/mlruns": "no longer keeps runs in plain folders",
    "C:\\mlruns": "no longer keeps runs in plain folders",
    "sqlite://mlflow.db": "with three slashes",
    "sqlite:mlflow.db": "with three slashes",
    "uc:http://host": "a Unity Catalog holds models",
    "databricks-uc": "a Unity Catalog holds models",
}


@pytest.mark.parametrize("uri", GOOD)
def test_an_address_that_can_work_stays_as_it_is(uri):
    assert checked(uri) == checked(f"  {uri}\r\n") == uri


@pytest.mark.parametrize("uri", WRONG)
def test_one_that_never_can_is_refused_with_what_to_write(uri):
    with pytest.raises(UsageError) as caught:
        checked(uri)
    assert str(caught.value).startswith("MLFLOW_TRACKING_URI=") and WRONG[uri] in str(caught.value)


@pytest.mark.parametrize("uri", [uri for uri in WRONG if "mlruns" not in uri and not uri.startswith(("uc", "data"))])
def test_what_is_said_to_be_written_can_work(uri):
    with pytest.raises(UsageError) as caught:
        checked(uri)
    _, write, rest = str(caught.value).rpartition(" write ")
    written = (rest.split() or [""])[0].rstrip(",").replace(":PORT", ":1")
    if write and "://" in written and not written.endswith("/"):
        assert checked(written) == written


@given(some.text(max_size=40))
def test_whatever_it_is_it_is_an_address_or_refused(text):
    try:
        assert checked(text)
    except UsageError:
        pass


SCHEMES = ["http:/", "redis://", "", "htp://", "http//", "postgres://"]


@given(some.sampled_from(SCHEMES), some.text("a:/@1%\\#", max_size=12))
def test_no_password_stands_in_the_refusal(scheme, more):
    try:
        checked(f"{scheme}user:SECRET{more}@host.org:5000")
    except UsageError as error:
        assert "SECRET" not in str(error)


def test_where_mlflow_was_told_to_keep_folders_they_are_no_mistake(monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert checked("file:///data/mlruns") == "file:///data/mlruns"


def test_the_proxy_is_named_without_its_password_and_not_where_it_is_gone_around(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert proxy_of("http://host:5000") is None
    monkeypatch.setenv("http_proxy", "http://user:secret@proxy:3128")
    assert proxy_of("http://host:5000") == ("http_proxy", "proxy:3128")
    assert proxy_of("https://host:5000") is None and proxy_of("sqlite:///mlflow.db") is None
    monkeypatch.setenv("no_proxy", "host")
    assert proxy_of("http://host:5000") is None
