"""Groups of long recordings."""

import pytest

from watkins_ml.annotations.recordings import LongRecording
from watkins_ml.core.errors import UsageError
from watkins_ml.dataset.grouping import groups_of


def group(name: str, group_by: str = "day") -> str:
    recording = LongRecording(f"x/{name}.wav", name, 10, 10, 1, 0, 0)
    return groups_of([recording], group_by, None)[recording.path]


@pytest.mark.parametrize(
    "name",
    ["Samana_PU194_20090111_003000", "20090111", "a-2009-01-11T00-30", "SITE.20090111.003000Z", "2009.01.11 x",
     "6805.20090111003000"],
)  # fmt: skip
def test_the_day_is_found_in_the_usual_names(name):
    assert group(name) == "2009-01-11"


@pytest.mark.parametrize("name", ["SM_001", "61025001", "20091301", "a20090132"])
def test_what_is_no_date_is_told(name):
    with pytest.raises(UsageError, match=rf"--group-by day: finds no date \(as 20090111\) in the name '{name}'"):
        group(name)


def test_a_regular_expression_finds_a_deployment():
    assert group("PU194_20090111", r"^([A-Z]+\d+)_") == "PU194"
    assert group("PU194_20090111", r"PU\d") == "PU1"
