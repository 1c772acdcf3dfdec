"""The split rule: honest for any table of recordings, and on the real labels of the Watkins archive."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.core.errors import UserError
from watkins_ml.dataset.split import SIDES, assert_no_tape_crosses, split, untested_species

SEEDS = [0, 1, 7]
SINGLE_TAPE = {"Dall'sPorpoise", "DuskyDolphin", "Heaviside'sDolphin", "TucuxiDolphin"}


@st.composite
def tables(draw) -> pd.DataFrame:
    """Any table of up to 60 recordings: tapes of one species or several, species of one tape or many."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 14)), min_size=1, max_size=60))
    own_tapes = draw(st.booleans())
    return pd.DataFrame(
        {
            "species": [f"species {species}" for species, _ in pairs],
            "tape": [f"{species if own_tapes else ''}-{tape:03d}" for species, tape in pairs],
        },
        index=draw(st.permutations(range(len(pairs)))),
    )


def archive_like(species: int = 44, seed: int = 0) -> pd.DataFrame:
    """A table with the shape of the Watkins archive: sizes from 10 to over 1,000 clips, a few single tapes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, size in enumerate(np.geomspace(10, 1_500, species).astype(int)):
        tapes = 1 if number % 11 == 3 else max(2, size // 15)
        weights = rng.dirichlet(np.full(tapes, 0.7))
        chosen = rng.choice(tapes, size, p=weights)
        chosen[:tapes] = np.arange(tapes)  # every tape holds something
        rows += [(f"species {number:02d}", f"{number:02d}{tape:03d}") for tape in chosen]
    table = pd.DataFrame(rows, columns=["species", "tape"])
    return table.sample(frac=1, random_state=seed, ignore_index=True)


def check_tape_split(table: pd.DataFrame, side: pd.Series) -> None:
    assert side.index.equals(table.index)
    assert set(side) == set(SIDES)
    assert side.groupby(table["tape"]).nunique().max() == 1, "a tape stands on two sides"
    untrained = set(table["species"]) - set(table.loc[side == "train", "species"])
    assert not untrained, f"nothing to train on for {untrained}"


def single_tape_species(table: pd.DataFrame) -> set[str]:
    tapes = table.groupby("species")["tape"].nunique()
    return set(tapes.index[tapes == 1])


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 3))
def test_no_table_whatever_puts_a_tape_on_two_sides_or_leaves_a_species_untrained(table, seed):
    try:
        side = split(table, "tape", seed)
    except UserError as error:  # too little to split, said in one sentence
        assert "--group-regex" in str(error)
        return
    check_tape_split(table, side)


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(0, 3))
def test_same_seed_same_split_and_row_order_does_not_matter(table, seed):
    try:
        side = split(table, "tape", seed)
    except UserError:
        return
    pd.testing.assert_series_equal(split(table, "tape", seed), side)
    backwards = table.iloc[::-1]
    pd.testing.assert_series_equal(split(backwards, "tape", seed).loc[table.index], side)


def test_splits_stay_what_they_were_in_earlier_versions():
    """Another split of the same recordings would be another data digest, with which no earlier run compares."""
    table = archive_like()
    mixed = table.assign(tape=table["tape"].str[1:])  # tapes of several species
    for labels, digest in ((table, "ad23f75a0fdcbdf3"), (mixed, "a90c1d1c66f4a276")):
        assert hashlib.sha256("/".join(split(labels, "tape", 0)).encode()).hexdigest()[:16] == digest


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(10, 60), min_size=2, max_size=8), st.integers(0, 5))
def test_random_split_is_stratified_by_species(sizes, seed):
    table = pd.DataFrame({"species": np.repeat([f"s{n}" for n in range(len(sizes))], sizes), "tape": "one"})
    side = split(table, "random", seed)
    assert side.index.equals(table.index)
    for name, fraction in zip(SIDES, (0.70, 0.15, 0.15), strict=True):
        assert abs((side == name).sum() - fraction * len(table)) <= 1.5
        for species, size in enumerate(sizes):
            count = ((side == name) & (table["species"] == f"s{species}")).sum()
            assert abs(count - fraction * size) < 2.5
    pd.testing.assert_series_equal(split(table, "random", seed), side)


def test_random_split_of_the_original_study_has_its_exact_sizes():
    sizes = np.random.default_rng(0).multinomial(15_407 - 440, np.random.default_rng(1).dirichlet(np.ones(44))) + 10
    table = pd.DataFrame({"species": np.repeat([f"s{n}" for n in range(44)], sizes), "tape": "t"})
    for seed in SEEDS:
        side = split(table, "random", seed)
        assert [(side == name).sum() for name in SIDES] == [10_784, 2_311, 2_312]


def test_another_seed_gives_another_split():
    table = archive_like(8)
    assert not split(table, "tape", 0).equals(split(table, "tape", 1))
    assert not split(table, "random", 0).equals(split(table, "random", 1))


def test_a_species_with_many_equal_tapes_stands_on_all_sides():
    table = pd.DataFrame([(f"s{s}", f"{s}-{t}") for s in range(5) for t in range(20) for _ in range(4)])
    table.columns = ["species", "tape"]
    counts = pd.crosstab(table["species"], split(table, "tape", 0))
    assert (counts["train"] == 56).all()
    assert (counts["val"] == 12).all()
    assert (counts["test"] == 12).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_an_archive_with_a_long_tail_is_split_near_70_15_15(seed):
    table = archive_like(seed=seed)
    side = split(table, "tape", seed)
    check_tape_split(table, side)
    for name, fraction in zip(SIDES, (0.70, 0.15, 0.15), strict=True):
        assert abs((side == name).mean() - fraction) < 0.03
    untested = untested_species(table, side)
    assert {name for name, reason in untested.items() if reason == "one tape only"} == single_tape_species(table)
    assert len(untested) <= len(single_tape_species(table)) + 3


@pytest.fixture(scope="module")
def real_labels(shared_folder) -> pd.DataFrame:
    """Species and tape of the 15,216 clips of the 44 species that have at least ten."""
    clips = pd.read_csv(shared_folder / "data" / "watkins_full_cuts.csv", dtype=str, keep_default_na=False)
    clips["tape"] = clips["clip_id"].str[:5]
    enough = clips.groupby("species")["species"].transform("size") >= 10
    return clips.loc[enough, ["species", "tape"]].reset_index(drop=True)


@pytest.mark.real_data
@pytest.mark.parametrize("seed", SEEDS)
def test_the_real_archive_is_split_by_tape_near_70_15_15(real_labels, seed):
    assert (len(real_labels), real_labels["species"].nunique()) == (15_216, 44)
    side = split(real_labels, "tape", seed)
    check_tape_split(real_labels, side)
    for name, fraction in zip(SIDES, (0.70, 0.15, 0.15), strict=True):
        assert abs((side == name).mean() - fraction) < 0.03
    untested = untested_species(real_labels, side)
    assert {name for name, reason in untested.items() if reason == "one tape only"} == SINGLE_TAPE
    assert len(untested) <= 8


def test_a_tape_on_two_sides_is_refused():
    tapes = pd.Series(["a", "a", "b"], index=[5, 3, 1])
    with pytest.raises(UserError, match="tape a stands on two sides"):
        assert_no_tape_crosses(tapes, pd.Series(["train", "test", "train"], index=[5, 3, 1]))
    assert_no_tape_crosses(tapes, pd.Series(["train", "train", "test"], index=[5, 3, 1]))


def test_untested_species_are_told_apart_by_their_reason():
    table = pd.DataFrame({"species": ["a", "a", "b", "c", "c"], "tape": ["1", "1", "2", "3", "4"]})
    side = pd.Series(["train", "train", "test", "train", "val"])
    reasons = untested_species(table, side)
    assert reasons["a"] == "one tape only"
    assert reasons["c"].startswith("its 2 tapes")
    assert "b" not in reasons


def test_one_tape_a_species_names_the_way_out():
    table = pd.DataFrame({"species": ["a"] * 10 + ["b"] * 10, "tape": ["1"] * 10 + ["2"] * 10})
    with pytest.raises(UserError, match=r"single tape.*--group-regex"):
        split(table, "tape", 0)


def test_too_few_tapes_for_three_sides_is_refused():
    table = pd.DataFrame({"species": ["a", "a", "b", "b"], "tape": ["1", "2", "1", "2"]})
    with pytest.raises(UserError, match=r"leaves nothing for .*--group-regex"):
        split(table, "tape", 0)


def test_random_split_of_tiny_species_is_refused_with_a_sentence():
    table = pd.DataFrame({"species": ["a"] * 10 + ["b"] * 2, "tape": "1"})
    with pytest.raises(UserError, match="more recordings in each species"):
        split(table, "random", 0)
