"""A server of releases, and patience that costs a test no time."""

from __future__ import annotations

import pytest
from release_host import Host

from watkins_ml.fetch import http


@pytest.fixture
def host():
    host = Host()
    yield host
    host.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(http, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(http, "LONGEST_WAIT_S", 0.2)
    monkeypatch.setattr(http, "TIMEOUT_S", (5.0, 0.5))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
