"""How many tapes stand behind each side, and whether the recorder's band tells the species, is said by `prepare`."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.groups import band_advice, single_tape_species, small_groups, tapes_of_sides
from watkins_ml.dataset.layout import read_prepared

CUTS = pd.DataFrame(
    [("orca", "o1", "train"), ("orca", "o2", "val"), ("orca", "o2", "val"), ("orca", "o3", "val"),
     ("orca", "o4", "test"), ("walrus", "w1", "train"), ("walrus", "w2", "val"), ("walrus", "w3", "test"),
     ("walrus", "w4", "test")],
    columns=["species", "tape", "side"],
)  # fmt: skip


def test_tapes_and_species_of_one_tape_are_counted_on_each_side():
    assert tapes_of_sides(CUTS, CUTS.side) == {"train": 2, "val": 3, "test": 3}
    assert single_tape_species(CUTS, CUTS.side) == {"val": ["walrus"], "test": ["orca"]}


def said(tapes: dict[str, int], single: dict[str, list[str]], split: str = "tape") -> list[str]:
    return small_groups({"split": split, "tapes": tapes, "single_tape_species": single})


def test_few_tapes_and_single_tapes_are_warned_of_and_many_are_not():
    many, none = {"train": 50, "val": 10, "test": 12}, {"val": [], "test": []}
    assert said(many, none) == []
    few, single = said({"train": 50, "val": 3, "test": 1}, {"val": ["a", "b"], "test": list("abcdefgh")})
    assert few.startswith("Few tapes stand behind val (3 tapes) and test (1 tape)") and "train" not in few
    assert single == "One tape alone stands on val for a, b and on test for a, b, c, d, e and 3 more species"
    assert said({"train": 1, "val": 1, "test": 1}, {"val": ["a"], "test": ["b"]}, "random") == []


def recorded(rates: dict[str, list[int]]) -> pd.DataFrame:
    """Three cuts on each tape; a tape has a native rate, a species some tapes."""
    rows = [(name, f"{name}{n}", rate) for name, tapes in rates.items() for n, rate in enumerate(tapes)]
    return pd.DataFrame(rows * 3, columns=["species", "tape", "sample_rate"])


def test_where_the_band_names_species_on_other_tapes_a_common_one_is_advised():
    advice = band_advice(recorded({"orca": [8_000] * 5, "walrus": [44_100] * 5, "beluga": [96_000] * 8}), 16_000)
    # whatever was recorded above 16 kHz is alike, and beluga has most of it
    assert "names 72% of the recordings on other tapes, the commonest species alone 44%" in advice
    assert "--sample-rate 8000 --no-upsampling all fill one band; 0 recordings would be left out" in advice


@pytest.mark.parametrize(
    ("rates", "sample_rate"),
    [
        ({"orca": [8_000] * 5, "walrus": [44_100] * 5}, 8_000),  # the frontend hears no difference
        ({"orca": [8_000, 44_100] * 3, "walrus": [44_100, 8_000] * 3}, 16_000),  # both species at both rates
        ({"orca": [8_000], "walrus": [44_100], "beluga": [12_000]}, 16_000),  # one tape each: no other to tell it from
        ({"orca": [44_100] * 5, "walrus": [96_000] * 5}, 16_000),  # all fill the band
    ],
)
def test_where_it_does_not_nothing_is_said(rates, sample_rate):
    assert band_advice(recorded(rates), sample_rate) is None


def test_prepare_prints_them_and_the_summary_keeps_them(watkins, archive, tmp_path):
    out = tmp_path / "data"
    done = watkins("prepare", archive, "--out", out, "--workers", "1", "--seconds", "0.5")
    assert done.status == 0, done.err
    data = read_prepared(out)
    counted = {side: frame.tape.nunique() for side, frame in data.sides.items()}
    assert json.loads((out / "dataset.json").read_text())["tapes"] == counted == data.summary["tapes"]
    for side, count in counted.items():
        row = next(line for line in done.out.splitlines() if f" {side} " in line)
        assert row.split()[-2] == str(count)
    assert f"Few tapes stand behind train ({counted['train']} tapes) and val" in done.out
    fold = make_folds(data, FoldRule(3)).data_of("1")
    assert fold.summary["tapes"] == {side: frame.tape.nunique() for side, frame in fold.sides.items()}


@pytest.mark.parametrize(("group_by", "word"), [("day", "day"), ("^(PU)", "group"), ("recording", "recording")])
def test_groups_of_windows_are_called_what_they_are(group_by, word):
    summary = {"split": "tape", "group_by": group_by, "tapes": {"train": 40, "val": 1, "test": 12}}
    said = small_groups(summary | {"single_tape_species": {"val": ["Orca"], "test": []}})
    assert said == [
        f"Few {word}s stand behind val (1 {word}): scores there hang on single {word}s; `watkins crossval` tests on "
        f"every {word} once",
        f"One {word} alone stands on val for Orca",
    ]
