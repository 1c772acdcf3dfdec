"""What rare species and single tapes count for."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.dataset.loading import Side
from watkins_ml.training.weighing import balanced_weights, sampling_chances, tape_chances


def test_balanced_weights_by_hand():
    labels = torch.tensor([0, 0, 0, 1, 2, 2])
    assert balanced_weights(labels, 3).tolist() == pytest.approx([6 / 9, 6 / 3, 6 / 6])


def test_a_class_never_seen_weighs_nothing():
    assert balanced_weights(torch.tensor([0, 0, 2]), 4).tolist() == pytest.approx([3 / 8, 0, 3 / 4, 0])


def test_one_tape_of_many_cuts_does_not_outvote_five_of_few():
    labels = [0] * 60 + [0] * 20 + [1]
    tapes = ["long"] * 60 + [f"short{number // 4}" for number in range(20)] + ["other"]
    chances = tape_chances(labels, tapes)
    assert chances[:60].sum() == pytest.approx(1 / 6)
    assert chances[60:64].sum() == pytest.approx(1 / 6)
    assert chances[-1] == pytest.approx(1)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcd")), min_size=1, max_size=40))
def test_every_species_and_of_a_species_every_tape_comes_equally_often(pairs):
    labels, tapes = map(list, zip(*pairs, strict=True))
    table = pd.DataFrame({"label": labels, "tape": tapes, "chance": tape_chances(labels, tapes)})
    assert table.groupby("label")["chance"].sum().tolist() == pytest.approx([1] * table["label"].nunique())
    for _, of_species in table.groupby("label"):
        of_tapes = of_species.groupby("tape")["chance"].sum()
        assert of_tapes.tolist() == pytest.approx([1 / len(of_tapes)] * len(of_tapes))


@pytest.mark.parametrize(
    ("how", "expected"),
    [("none", None), ("balanced", None), ("sampled", [0.75, 0.75, 1.5]), ("tapes", [0.5, 0.5, 1.0])],
)
def test_only_sampling_gives_chances(how, expected):
    labels = torch.tensor([0, 0, 1])
    side = Side(pd.DataFrame({"tape": ["a", "b", "c"]}), torch.zeros(3, 1, 1, 1), labels)
    chances = sampling_chances(side, balanced_weights(labels, 2), how)
    assert expected == (None if chances is None else pytest.approx(chances.tolist()))
