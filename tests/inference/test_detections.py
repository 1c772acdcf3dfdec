"""From windows to detections: thresholds, ranks, wanted species, and neighbours as one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.inference.detections import COLUMNS, DetectionOptions, Unknown, detect
from watkins_ml.inference.scores import WindowScores

CLASSES = ["Fin", "Minke", "Orca"]


def scored(*rows: tuple[float, ...] | None, step: float = 2.0, length: float = 4.0, channel: int = 0) -> WindowScores:
    spans = np.array([(channel, number * step, number * step + length) for number in range(len(rows))]).reshape(-1, 3)
    novelty = np.array([math.nan if row is None else 0.5 for row in rows], np.float32)
    silent = (math.nan,) * len(CLASSES)
    probabilities = np.array([row or silent for row in rows], np.float32).reshape(-1, len(CLASSES))
    return WindowScores(Path("a.wav"), spans, novelty, probabilities)


def found_in(recording: WindowScores, **options) -> list[tuple]:
    table = detect(recording, CLASSES, DetectionOptions(**options)).rows
    assert list(table.columns) == COLUMNS
    return [(row.start_s, row.end_s, row.species, round(row.probability, 3)) for row in table.itertuples()]


def test_neighbours_with_one_species_are_one_detection_with_the_highest_probability():
    recording = scored((0.9, 0.05, 0.05), (0.95, 0.05, 0), (0.6, 0.4, 0), (0.1, 0.8, 0.1), (0.4, 0.3, 0.3))
    assert found_in(recording) == [(0, 8, "Fin", 0.95), (6, 10, "Minke", 0.8)]


def test_a_pause_as_long_as_a_window_parts_two_calls():
    recording = scored((0.9, 0.1, 0), (0.2, 0.4, 0.4), None, (0.9, 0.1, 0))
    assert found_in(recording) == [(0, 4, "Fin", 0.9), (6, 10, "Fin", 0.9)]


@pytest.mark.parametrize("nudge", [-1e-4, 0.0, 1e-4])
def test_a_window_that_said_something_else_parts_two_that_only_touch(nudge):
    """Half overlapped, every second window begins where the last but one ended, or a sample before or after that."""
    recording = scored((0.9, 0.1, 0), (0.1, 0.9, 0), (0.9, 0.1, 0), (0.1, 0.9, 0), step=2 + nudge)
    assert [row[2] for row in found_in(recording)] == ["Fin", "Minke", "Fin", "Minke"]


def test_windows_stay_apart_on_demand():
    recording = scored((0.9, 0.1, 0), (0.8, 0.2, 0))
    assert found_in(recording, merge=False) == [(0, 4, "Fin", 0.9), (2, 6, "Fin", 0.8)]


def test_second_places_and_wanted_species():
    recording = scored((0.5, 0.4, 0.1))
    assert found_in(recording, min_confidence=0.3, top=2) == [(0, 4, "Fin", 0.5), (0, 4, "Minke", 0.4)]
    assert found_in(recording, min_confidence=0.3, top=2, species=frozenset({"Minke"})) == [(0, 4, "Minke", 0.4)]
    assert found_in(recording, min_confidence=0.3, top=1, species=frozenset({"Minke"})) == []
    assert found_in(recording, min_confidence=0.51) == []


def test_channels_are_not_merged_with_each_other():
    first, second = scored((0.9, 0.1, 0), channel=1), scored((0.8, 0.2, 0), channel=2)
    names = ("spans", "novelty", "probabilities")
    joined = (np.concatenate([getattr(each, name) for each in (first, second)]) for name in names)
    table = detect(WindowScores(first.path, *joined), CLASSES, DetectionOptions()).rows
    assert list(zip(table["channel"], table["probability"].round(2), strict=True)) == [(1, 0.9), (2, 0.8)]


@given(
    st.lists(st.sampled_from([None, 0, 1, 2]), max_size=40),
    st.floats(0.2, 1.0),
    st.integers(0, 2),
)
def test_merging_neither_loses_nor_invents_a_second(answers, share, channels):
    """Against painting each species' windows on a fine grid of time."""
    length, step = 4.0, 4.0 * share
    rows = [
        None if answer is None else tuple(0.9 if label == answer else 0.05 for label in range(3)) for answer in answers
    ]
    recording = scored(*rows, step=step, length=length)
    found = detect(recording, CLASSES, DetectionOptions()).rows
    grid = np.arange(0, 45 * length, 0.05) + 0.025
    for label, name in enumerate(CLASSES):
        wanted = np.zeros(len(grid), bool)
        for (_, start, end), answer in zip(recording.spans, answers, strict=True):
            wanted |= (answer == label) & (start <= grid) & (grid < end)
        got = np.zeros(len(grid), bool)
        own = found[found["species"] == name]
        for row in own.itertuples():
            got |= (row.start_s <= grid) & (grid < row.end_s)
        assert np.array_equal(got, wanted)
        assert (own["start_s"].to_numpy()[1:] > own["end_s"].to_numpy()[:-1] - 0.05).all(), "what overlaps is one"


def test_nothing_heard_gives_an_empty_table_of_the_same_kind():
    found = detect(scored(), CLASSES, DetectionOptions()).rows
    assert found.empty and list(found.columns) == COLUMNS
    assert found["start_s"].dtype == float
    assert found_in(scored(None, None)) == []
    assert found_in(scored((0.4, 0.3, 0.3)), min_confidence=0) == [(0, 4, "Fin", pytest.approx(0.4))]


def test_in_what_is_unlike_the_training_nothing_is_detected():
    recording = scored((0.9, 0.1, 0), (0.95, 0.05, 0), (0.9, 0.1, 0))
    recording.novelty[:] = 0.3, 1.2, 0.4
    assert found_in(recording, merge=False) == [(0, 4, "Fin", 0.9), (4, 8, "Fin", 0.9)]
    assert found_in(recording, max_novelty=1.3) == [(0, 8, "Fin", 0.95)]
    assert found_in(recording, max_novelty=0.2) == []
    found = detect(recording, CLASSES, DetectionOptions(max_novelty=1.3)).rows
    assert found["novelty"].round(3).tolist() == [1.2], "of the surest window"


def why_unknown(recording: WindowScores) -> Unknown | None:
    return detect(recording, CLASSES, DetectionOptions()).unknown


def test_why_nothing_was_detected():
    assert why_unknown(scored((0.9, 0.1, 0))) is why_unknown(scored()) is None
    assert why_unknown(scored(None, None)).reason == "silent"
    assert why_unknown(scored(None, (0.4, 0.3, 0.3))) == ("nothing above 50%", 0.5)
    recording = scored((0.9, 0.1, 0), (0.4, 0.3, 0.3))
    recording.novelty[0] = 1.2
    assert why_unknown(recording) == ("unlike what the model was trained on", 0.5)
    recording.novelty[1] = 1.1
    assert why_unknown(recording).reason == "unlike what the model was trained on"
    assert why_unknown(recording).novelty == pytest.approx(1.1)
