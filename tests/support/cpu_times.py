"""Where the suite's processor time goes: `pytest -p tests.support.cpu_times` writes it, a test and phase a line.

WATKINS_TEST_TIMES names the CSV file (columns test, phase, cpu_s, wall_s; appended to). Processor time is user and
system time of this process, of the children that it has waited for and of the commands that were forked for it, so a
server counts where it is stopped.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support import forked


def cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return forked.cpu_spent + forked.nested() + sum(usage.ru_utime + usage.ru_stime for usage in used)


@contextmanager
def measured(test: str, phase: str) -> Iterator[None]:
    cpu, wall = cpu_seconds(), time.monotonic()
    yield
    cells = (f'"{test}"', phase, f"{cpu_seconds() - cpu:.2f}", f"{time.monotonic() - wall:.2f}")
    with open(os.environ.get("WATKINS_TEST_TIMES", "test-times.csv"), "a") as file:
        file.write(",".join(cells) + "\n")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item):
    with measured(item.nodeid, "setup"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item):
    with measured(item.nodeid, "call"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item):
    with measured(item.nodeid, "teardown"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    with measured(collector.nodeid or ".", "collect"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef):
    with measured(fixturedef.argname, "fixture"):
        return (yield)
