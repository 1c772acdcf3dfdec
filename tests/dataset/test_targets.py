"""What is known of rows that may hold any number of species, as text and as numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from watkins_ml.dataset.targets import decode, encode, joined_names, main_labels, row_a_species, targets_of

MARKS = st.tuples(st.integers(1, 12), st.integers(1, 9)).flatmap(
    lambda shape: st.tuples(arrays.arrays(bool, shape), arrays.arrays(bool, shape))
)


@given(MARKS)
def test_texts_say_all_that_is_known_and_nothing_else(marks):
    present, known = marks
    values = decode(encode(present, known | present), present.shape[1])
    assert np.array_equal(values == 1, present)
    assert np.array_equal(np.isnan(values), ~(known | present))


@pytest.mark.parametrize(("texts", "said"), [(["01"], "3 characters"), (["01x"], "other than"), ([3], "3 characters")])
def test_damaged_targets_are_refused(texts, said):
    with pytest.raises(ValueError, match=said):
        decode(texts, 3)


def test_rows_of_one_species_are_known_to_hold_no_other_and_background_none():
    assert targets_of(["b", "a", "background", "c"], ["a", "b", "c"]).tolist() == ["010", "100", "000", "001"]


def test_a_row_is_named_by_its_species_and_divided_by_the_rarest():
    present = np.array([[True, True, False], [True, False, False], [False, False, False], [True, False, True]])
    assert joined_names(present, ["a", "b", "c"]) == ["a + b", "a", "background", "a + c"]
    assert main_labels(present).tolist() == [1, 0, -1, 2]


def test_a_table_has_a_row_for_each_species_in_a_row():
    table = pd.DataFrame({"path": ["x", "y"], "targets": ["11", "0-"], "species": ["a + b", "background"]})
    rows = row_a_species(table, ["a", "b"])
    assert rows[["path", "species"]].to_numpy().tolist() == [["x", "a"], ["x", "b"], ["y", "background"]]
