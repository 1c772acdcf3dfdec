"""`watkins promote --if-detects-better`: the alias moves by the scores of detections."""

from __future__ import annotations

import pytest

from watkins_ml.core.metric_names import DETECTION_AP, DETECTION_ON
from watkins_ml.tracking import registry

NAME = "watkins-baseline"


@pytest.fixture
def versions(store):
    """A function that registers versions with these (score, recordings), the first of them champion."""

    def register(*scored: tuple[str, str] | None) -> None:
        store.create_registered_model(NAME)
        for each in scored:
            tags = {} if each is None else {DETECTION_AP: each[0], DETECTION_ON: each[1]}
            store.create_model_version(NAME, "file:///nowhere", tags=tags)
        store.set_registered_model_alias(NAME, registry.CHAMPION, "1")

    return register


@pytest.mark.parametrize(
    ("champion", "other", "said"),
    [
        (("0.5", "sea"), ("0.6", "sea"), ""),
        (
            ("0.5", "sea"),
            ("0.5", "sea"),
            "average precision of detections 0.5000 is not above 0.5000, that",
        ),
        (("0.5", "sea"), ("0.6", "lake"), "scored on other recordings"),
        (("0.5", "sea"), None, f"{NAME}/2: has no detection score; watkins evaluate models:/{NAME}/2 --recordings"),
        (None, ("0.6", "sea"), f"{NAME}/1: has no detection score"),
        (("0.5", "sea"), ("high", "sea"), f"{NAME}/2: has no detection score"),
    ],
)
def test_only_a_better_version_on_the_same_recordings_becomes_champion(store, versions, watkins, champion, other, said):
    versions(champion, other)
    answer = watkins("promote", f"{NAME}/2", "--if-detects-better")
    assert answer.status == bool(said) and said in answer.err
    assert registry.champion(store, NAME).version == (1 if said else 2)


def test_the_champion_itself_stays_and_an_unknown_version_is_named(store, versions, watkins):
    versions(("0.5", "sea"))
    assert watkins("promote", f"{NAME}/1", "--if-detects-better").status == 0
    answer = watkins("promote", f"{NAME}/7", "--if-detects-better")
    assert answer.status == 1 and "no such model version" in answer.err
    assert watkins("promote", NAME, "--if-detects-better").status == 2
