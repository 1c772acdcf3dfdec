"""A server of releases, and patience that costs a test no time."""

from __future__ import annotations

import pytest

from tests.support.release_host import Host
from tests.support.releases import Cuts, cuts
from watkins_ml.fetch import http


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


@pytest.fixture(scope="session")
def some_cuts() -> Cuts:
    return cuts()


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(http, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(http, "TIMEOUT_S", (5.0, 0.5))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-home"))
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")


@pytest.fixture
def at_host(host, monkeypatch) -> Host:
    """The host in the place of archive.org and of the Hub."""
    monkeypatch.setenv("WATKINS_ARCHIVE_ENDPOINT", host.address)
    monkeypatch.setenv("HF_ENDPOINT", host.address)
    return host


@pytest.fixture(scope="session")
def kaggle_user_agent() -> str:
    """What Kaggle's client calls itself: for each request anew it searches the call stack, most of a second here."""
    return pytest.importorskip("kagglehub.clients").get_user_agent()


@pytest.fixture
def as_kaggle(at_host, monkeypatch, kaggle_user_agent) -> Host:
    """The host in the place of Kaggle too: as a proxy, since their client knows only hosts of its own."""
    monkeypatch.setattr("kagglehub.clients.get_user_agent", lambda: kaggle_user_agent)
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_test")
    monkeypatch.setenv("http_proxy", at_host.address)
    return at_host
