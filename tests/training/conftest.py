"""A narrow EfficientNet."""

from __future__ import annotations

import pytest

from tests.support.narrow import narrow


@pytest.fixture
def narrow_efficientnet(monkeypatch):
    """EfficientNet-B0 with all its stages, but a quarter as wide."""
    narrow(monkeypatch)
