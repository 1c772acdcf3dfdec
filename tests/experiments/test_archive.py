"""The simulated archive: its labels are the table's, and what can be learnt from it is what was set."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from archive import Strengths, draw_table, on_new_tapes, read_labels, simulate_archive, thin
from voices import Voice
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.scan import scan

SPECIES = ["KillerWhale", "Heaviside'sDolphin", "Short_Finned(Pacific)PilotWhale", "Beluga_WhiteWhale"]


def labels_of(species: list[str], tapes: int, cuts: int) -> pd.DataFrame:
    return pd.DataFrame(
        [
            (f"{10 * number + tape + 60000}{cut:03X}", name)
            for number, name in enumerate(species)
            for tape in range(tapes)
            for cut in range(cuts)
        ],
        columns=["clip_id", "species"],
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.wav")}


def heard(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each cut's mean power in bands of a quarter octave in dB, whatever its level; its species; its tape."""
    files = sorted(folder.glob("*/*.wav"))
    edges = 100 * 2 ** np.arange(0, 5.6, 0.25)  # to 4525 Hz, which every rate holds
    features = []
    for path in files:
        samples, rate = sf.read(path)
        power = np.abs(np.fft.rfft(samples)) ** 2
        bands = np.searchsorted(np.fft.rfftfreq(len(samples), 1 / rate), edges)
        decibels = 10 * np.log10([power[low:high].mean() for low, high in pairwise(bands)])
        features.append(decibels - decibels.mean())
    return np.array(features), *(np.array(x) for x in zip(*((f.parent.name, f.stem[:5]) for f in files), strict=True))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory):
    """Features, species and tapes of an archive with the given strengths, and of its species on new tapes."""
    root = tmp_path_factory.mktemp("archives")
    known = {}

    def archive(call: float, tape: float):
        if (call, tape) not in known:
            labels, pair = read_labels(labels_of(SPECIES, tapes=3, cuts=6)), []
            for name, table in (("archive", labels), ("sea", on_new_tapes(labels))):
                folder = root / f"{call}-{tape}-{name}"
                simulate_archive(table, folder, Strengths(call, tape), seconds=(0.5, 1.5))
                pair.append(heard(folder))
            known[call, tape] = pair
        return known[call, tape]

    return archive


FOLDS = StratifiedKFold(4, shuffle=True, random_state=0)
"""Shuffled, so that cuts of one tape lie in all folds, as in a random split."""


def scores(archives, call: float, tape: float) -> tuple[float, float]:
    """Accuracy of nearest neighbours in the spectrum: on other cuts of the same tapes, and on new tapes."""
    (features, species, _), (new, true, _) = archives(call, tape)
    nearest = KNeighborsClassifier(3)
    return cross_val_score(nearest, features, species, cv=FOLDS).mean(), nearest.fit(features, species).score(new, true)


def test_species_cuts_and_tapes_are_those_of_the_table(tmp_path):
    table = labels_of(SPECIES, tapes=2, cuts=3)
    table.loc[len(table)] = ["5401800A", "Walrus"]
    table.assign(site="a fjord, somewhere").to_csv(tmp_path / "table.csv", index=False)
    written = simulate_archive(tmp_path / "table.csv", tmp_path / "archive")
    candidates, others = scan(tmp_path / "archive", r"^.{5}")
    assert not others
    expected = {(row.species, row.clip_id, row.clip_id[:5]) for row in table.itertuples()}
    assert {(each.species, each.cut_id, each.tape) for each in candidates} == expected
    assert set(written[["species", "clip_id", "tape"]].itertuples(index=False, name=None)) == expected
    for path in (tmp_path / "archive").rglob("*.wav"):
        assert 0.49 < sf.info(path).duration < 3.51
        assert 0.001 < np.abs(sf.read(path)[0]).max() < 0.99


def test_a_cut_depends_on_seed_and_strengths_and_not_on_order_or_company(tmp_path):
    table = labels_of(SPECIES[:2], tapes=2, cuts=3)
    simulate_archive(table, tmp_path / "whole")
    simulate_archive(table.sample(frac=0.5, random_state=1), tmp_path / "part")
    simulate_archive(table, tmp_path / "other", seed=1)
    whole, part, other = (contents(tmp_path / name) for name in ("whole", "part", "other"))
    assert len(part) == 6 and part.items() <= whole.items()
    assert not set(other.values()) & set(whole.values())


def test_an_interrupted_archive_is_completed_and_another_one_refused(tmp_path):
    table, folder = labels_of(SPECIES[:2], tapes=1, cuts=3), tmp_path / "archive"
    simulate_archive(table, folder)
    whole = contents(folder)
    kept, *lost = sorted(folder.rglob("*.wav"))
    written = kept.stat().st_mtime_ns
    for path in lost:
        path.unlink()
    simulate_archive(table, folder)
    assert contents(folder) == whole and kept.stat().st_mtime_ns == written
    with pytest.raises(UserError, match="holds another simulated archive"):
        simulate_archive(table, folder, Strengths(call=0.5))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty"):
        simulate_archive(table, tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_without_calls_only_the_tape_tells_a_species(archives):
    same_tapes, new_tapes = scores(archives, call=0, tape=1)
    assert same_tapes > 0.9
    assert new_tapes < 0.4  # chance is 0.25


def test_with_calls_and_one_recorder_both_scores_agree(archives):
    same_tapes, new_tapes = scores(archives, call=1, tape=0)
    assert same_tapes > 0.75
    assert abs(same_tapes - new_tapes) < 0.1


def test_tapes_of_strength_0_cannot_be_told_apart_and_those_of_strength_1_can(archives):
    nearest, found = KNeighborsClassifier(3), {}
    for strength in (0, 1):
        (features, _, tapes), _ = archives(0, strength)
        found[strength] = cross_val_score(nearest, features, tapes, cv=FOLDS).mean()
    assert found[0] < 0.2 and found[1] > 0.9  # chance is 1 in 12


def test_thinning_takes_a_share_of_each_species_and_leaves_it_ten_cuts():
    labels = read_labels(pd.concat([labels_of(["A"], 40, 5), labels_of(["B"], 2, 9), labels_of(["C"], 1, 4)]).assign(
        clip_id=lambda frame: [f"{number:08d}" for number in range(len(frame))]
    ))  # fmt: skip
    thinned = thin(labels, share=0.25, most=None, seed=0)
    assert thinned["species"].value_counts().to_dict() == {"A": 50, "B": 10, "C": 4}
    assert thin(labels, 0.25, 20, 0)["species"].value_counts()["A"] == 20
    shuffled = thin(labels.sample(frac=1, random_state=0), 0.25, None, 0)
    assert set(shuffled["clip_id"]) == set(thinned["clip_id"])
    assert set(thin(labels, 0.25, None, 1)["clip_id"]) != set(thinned["clip_id"])
    pd.testing.assert_frame_equal(thin(labels, 1.0, None, 0), labels)


def test_new_tapes_hold_the_same_species_and_none_of_the_old_tapes():
    labels = read_labels(pd.concat([labels_of(SPECIES, 3, 4), pd.DataFrame({"clip_id": ["n0000001"], "species": "A"})]))
    sea = read_labels(on_new_tapes(labels))
    assert sea["species"].value_counts().to_dict() == labels["species"].value_counts().to_dict()
    assert sea["tape"].is_unique and not set(sea["tape"]) & set(labels["tape"])


def test_the_drawn_table_is_as_unbalanced_as_a_real_archive():
    labels = read_labels(draw_table(seed=2))
    cuts = labels["species"].value_counts()
    tapes = labels.groupby("species")["tape"].nunique()
    assert len(cuts) == 44 and cuts.min() >= 9 and cuts.max() > 100 * cuts.min()
    assert tapes.min() <= 2 and tapes.max() > 20
    assert labels["clip_id"].str.len().eq(8).all()


@pytest.mark.parametrize("seed", range(6))
def test_an_invented_call_keeps_to_its_band_and_differs_from_others(seed):
    voice = Voice.drawn(np.random.default_rng(seed))
    for seconds in (0.5, 3.0):
        call = voice.call(np.random.default_rng(seed), 48_000, seconds)
        assert len(call) == round(seconds * 48_000) and 0.5 < np.abs(call).max() < 1.1
        power = np.abs(np.fft.rfft(call)) ** 2
        frequency = np.fft.rfftfreq(len(call), 1 / 48_000)
        low, high = voice.band
        assert power[(frequency >= 0.8 * low) & (frequency <= 1.2 * high)].sum() / power.sum() > 0.97
    assert voice != Voice.drawn(np.random.default_rng(seed + 1))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("clip_id,site\n61025001,here\n", "table.csv: has no column species"),
        ("clip_id,species\n", "table.csv: has no rows"),
        ("clip_id,species\n61025001,Walrus\n61025001,walrus\n", "walrus/61025001 stands there twice"),
        ("clip_id,species\n61025001,../Walrus\n", "species '../Walrus' cannot be the name of a file"),
        ("clip_id,species\n61025001,\n", "species '' cannot be the name of a file"),
        ("clip_id,species\n6102,Walrus\n", "finds no tape in clip_id '6102'"),
        ("", "empty; a table has a line of headings"),
        (None, "cannot be read as a CSV table (No such file or directory)"),
    ],
)
def test_a_table_that_cannot_be_an_archive_is_refused_in_a_sentence(tmp_path, text, says):
    path = tmp_path / "table.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as refusal:
        simulate_archive(path, tmp_path / "archive")
    assert says in str(refusal.value) and str(path) in str(refusal.value)
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strengths": Strengths(call=-1)}, "call strength -1"),
        ({"strengths": Strengths(tape=float("nan"))}, "tape strength nan"),
        ({"share": 0.0}, "share 0.0"),
        ({"most": 3}, "at most 3 cuts"),
        ({"seconds": (2.0, 1.0)}, "seconds 2.0 to 1.0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_a_sentence(tmp_path, settings, says):
    with pytest.raises(UserError, match=says):
        simulate_archive(labels_of(SPECIES, 1, 2), tmp_path / "archive", **settings)
    assert not (tmp_path / "archive").exists()
