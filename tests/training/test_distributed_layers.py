"""Several processes train what one process would have trained."""

import json

import pytest

from tests.support.children import Command
from tests.support.in_double import RECIPES, main
from tests.support.launch import Forked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict:
    """The histories of one process, by recipe."""
    folder = tmp_path_factory.mktemp("alone")
    command = Command(folder, "histories.json", *RECIPES, main=main)
    assert command.wait() == 0, command.said
    return json.loads((folder / "histories.json").read_text())


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> dict:
    """Those of three processes, whose shares of seven recordings are uneven."""
    folder = tmp_path_factory.mktemp("together")
    forked = Forked([folder] * 3, "histories.json", *RECIPES, main=main)
    assert forked.wait(300) == [0, 0, 0], forked.said
    return json.loads((folder / "histories.json").read_text())


@pytest.mark.parametrize("name", RECIPES)
def test_in_exact_arithmetic_the_history_is_that_of_one_process(alone, together, name):
    assert len(together[name]) == len(alone[name]) > 0
    for mine, theirs in zip(together[name], alone[name], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-8)


def test_all_stop_when_the_first_process_has_seen_enough(together):
    assert 3 <= len(together["stopped-early"]) < 30
