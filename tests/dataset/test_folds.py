"""What cross-validation promises of its folds."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.core.errors import UserError
from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.layout import DataFolder, PreparedData


def data(tapes: dict[str, list[str]]) -> PreparedData:
    """A prepared data set without audio: species of each cut by tape."""
    rows = [
        {"path": f"{species}/{tape}{number:03d}.wav", "species": species, "tape": tape, "station": f"S{tape[-1]}"}
        for tape, cuts in tapes.items()
        for number, species in enumerate(cuts)
    ]
    table = pd.DataFrame(rows)
    classes = sorted(table["species"].unique())
    table["label"] = table["species"].map(classes.index)
    third = [table.iloc[start::3].reset_index(drop=True) for start in range(3)]
    summary = {"data_digest": "abc", "split": "tape", "counts": {"recordings": len(table)}}
    return PreparedData(
        DataFolder(Path("data")), summary, classes, dict(zip(("train", "val", "test"), third, strict=True))
    )


def regular(species: str = "ABC", tapes: int = 8, cuts: int = 3) -> PreparedData:
    return data({f"{name}{tape:02d}": [name] * cuts for name in species for tape in range(tapes)})


archives = st.lists(
    st.lists(st.sampled_from("ABCD"), min_size=1, max_size=6), min_size=18, max_size=40
).filter(lambda tapes: len({species for cuts in tapes for species in cuts}) > 1)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(archives, st.integers(3, 5), st.integers(0, 3))
def test_no_tape_crosses_and_every_testable_cut_is_tested_once(tapes, count, seed):
    prepared = data({f"t{number:04d}": cuts for number, cuts in enumerate(tapes)})
    try:
        folds = make_folds(prepared, FoldRule(count, seed=seed))
        sides = {fold: folds.data_of(fold) for fold in folds.names}
    except UserError as refusal:  # one fold may take so many tapes that none is left to validate
        assert "none is left for validation" in str(refusal) or "of one species each" in str(refusal)
        return
    assert set(folds.names) <= {str(number + 1) for number in range(count)}
    tested = []
    for fold in sides.values():
        parts = fold.sides
        tapes_of = {side: set(frame["tape"]) for side, frame in parts.items()}
        assert not tapes_of["test"] & (tapes_of["train"] | tapes_of["val"])
        assert not tapes_of["train"] & tapes_of["val"]
        assert set(parts["test"]["species"]) <= set(parts["train"]["species"]), "tested, so it was trained on"
        assert set(parts["val"]["species"]) <= set(parts["train"]["species"])
        tested += list(parts["test"]["path"])
    everything = pd.concat(prepared.sides.values())
    testable = everything[~everything["species"].isin(folds.untestable)]
    assert sorted(tested) == sorted(testable["path"])
    assert len({fold.digest for fold in sides.values()} | {folds.digest}) == len(folds.names) + 1


def test_the_same_seed_gives_the_same_folds_and_another_one_others():
    prepared = regular()
    first, again, other = (make_folds(prepared, FoldRule(seed=seed)) for seed in (0, 0, 1))
    assert first.table.equals(again.table) and first.digest == again.digest
    assert not first.table["fold"].equals(other.table["fold"]) and first.digest != other.digest


def test_folds_do_not_depend_on_how_the_data_had_been_split():
    prepared = regular()
    turned = PreparedData(
        prepared.folder, prepared.summary, prepared.classes,
        dict(zip(("train", "val", "test"), reversed(prepared.sides.values()), strict=True)),
    )  # fmt: skip
    assert make_folds(prepared, FoldRule()).table["fold"].equals(make_folds(turned, FoldRule()).table["fold"])


def test_species_are_spread_evenly():
    folds = make_folds(regular(tapes=10), FoldRule(5))
    for fold in folds.names:
        assert (folds.data_of(fold).sides["test"]["species"].value_counts() == 6).all()


def test_a_species_of_one_tape_is_trained_on_and_listed_with_its_reason():
    tapes = {f"{name}{tape:02d}": [name] * 3 for name in "AB" for tape in range(8)} | {"C00": ["C"] * 5}
    folds = make_folds(data(tapes), FoldRule(4))
    assert folds.untestable == {"C": "one tape only"}
    for fold in folds.names:
        assert "C" not in set(folds.data_of(fold).sides["test"]["species"])
    assert sum("C" in set(folds.data_of(fold).sides["train"]["species"]) for fold in folds.names) == 3


def test_official_folds_from_a_pattern_and_from_a_column():
    prepared = regular(tapes=8)
    by_name = make_folds(prepared, FoldRule(regex=r"^[ABC]0(\d)"))
    assert by_name.names == list("01234567")
    assert set(by_name.data_of("3").sides["test"]["tape"]) == {"A03", "B03", "C03"}
    by_column = make_folds(prepared, FoldRule(column="station"))
    assert by_column.names == [f"S{number}" for number in range(8)]
    assert list(by_column.table["fold"].str[1:]) == list(by_name.table["fold"])


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (FoldRule(regex="("), "--fold-regex '(' is not a regular expression"),
        (FoldRule(regex="x"), "--fold-regex 'x' finds no fold in 'A/A00000.wav'"),
        (FoldRule(regex="^[AB]0"), "--fold-regex '^[AB]0' finds no fold in 'C/C00000.wav'; give one that fits every"),
        (FoldRule(regex="^[ABC]0"), "folds of one species each test nothing"),
        (FoldRule(regex="0"), "only 1 fold; a cross-validation needs three or more"),
        (FoldRule(column="ship"), "--fold-column ship: the annotations have no such column; there are label, path"),
        (FoldRule(count=50), "24 tapes cannot be divided into 50 parts; give fewer --folds"),
        (FoldRule(regex=r"\d$"), "stands in 3 folds; give the tapes with `watkins prepare --group-regex`"),
    ],
)
def test_bad_folds_are_refused_in_a_sentence(rule, said):
    with pytest.raises(UserError, match=re.escape(said)):
        make_folds(regular(), rule)


def test_random_folds_let_a_tape_cross_and_are_another_data_set():
    prepared = regular()
    leaky, honest = make_folds(prepared, FoldRule(protocol="random")), make_folds(prepared, FoldRule())
    assert leaky.table.groupby("tape")["fold"].nunique().max() > 1
    assert leaky.data_of("1").protocol == "random" and leaky.digest != honest.digest


def test_another_validation_side_is_another_data_set():
    """Kept outputs of frozen stages are found by digest, so what trains must be in it."""
    first, other = (make_folds(regular(), FoldRule(regex=r"^[ABC]0(\d)", seed=seed)) for seed in (0, 1))
    assert first.digest == other.digest, "the same cuts are tested, so their scores compare"
    for fold in first.names:
        one, another = first.data_of(fold), other.data_of(fold)
        assert (one.digest == another.digest) == one.sides["train"].equals(another.sides["train"])
    assert any(first.data_of(fold).digest != other.data_of(fold).digest for fold in first.names)


def test_a_fold_of_nothing_testable_is_left_out():
    tapes = {f"{name}{tape:02d}": [name] * 3 for name in "AB" for tape in range(8)} | {"C09": ["C"] * 5}
    folds = make_folds(data(tapes), FoldRule(column="station"))
    assert set(folds.table["fold"]) == {f"S{number}" for number in range(10) if number != 8}
    assert folds.names == [f"S{number}" for number in range(8)]
    assert set(folds.data_of("S0").sides["train"]["species"]) == set("ABC")


@pytest.mark.parametrize("tapes", [3, 4])
def test_small_archives_can_be_divided(tapes):
    folds = make_folds(regular("ABC", tapes), FoldRule(3))
    for fold in folds.names:
        assert all(len(frame) for frame in folds.data_of(fold).sides.values())
