"""The simulated deployment: noise of any length, calls at known levels, and recall by level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from hydrophone_month import LEVELS, RATE, SIDES, SPECIES, background, calls_of, noise_of, recall_by_level, write_side

from tests.conftest import tone
from watkins_ml.evaluation.detection.scores import MICRO


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Three tapes of two cuts a species, and one noise recording, in the places of the real ones."""
    folder = tmp_path_factory.mktemp("shared")
    for number, species in enumerate(SPECIES):
        place = folder / "data" / "watkins21" / species
        place.mkdir(parents=True)
        for tape in range(3):
            for cut in range(2):
                sound = tone(200 + 100 * number, 1.0, 10 * number + 3 * tape + cut, rate=8_000)
                soundfile.write(place / f"{number}{tape:04d}{cut:03d}.flac", sound, 8_000)
    samana = folder / "data" / "samana"
    for name in ("audio", "tables"):
        (samana / name).mkdir(parents=True)
    noise = 0.01 * np.random.default_rng(0).standard_normal(200 * RATE)
    soundfile.write(samana / "audio" / "rec.flac", noise, RATE)
    (samana / "tables" / "rec_annot_allnoise.txt").write_text("")
    return folder


def test_no_tape_and_no_second_of_noise_is_on_two_sides(shared):
    calls = calls_of(shared, seed=0)
    for species in SPECIES:
        cuts = [call.tobytes() for side in SIDES for call in calls[side][species]]
        assert len(cuts) == len(set(cuts)) == 6
        assert all(len(calls[side][species]) == 2 for side in SIDES)
    blocks = [block.tobytes() for side in SIDES for block in noise_of(shared, side)]
    assert len(blocks) == len(set(blocks)) == 6  # of 200 seconds
    assert [len(noise_of(shared, side)) for side in SIDES] == [4, 1, 1]


def test_calls_stand_where_the_table_says_at_the_level_that_it_says(shared, tmp_path):
    truth = write_side(tmp_path, "test", 1, shared, seed=0)
    sound, rate = soundfile.read(tmp_path / "test" / "test_000.flac")
    assert rate == RATE and len(sound) == 30 * 60 * RATE
    for row in truth[truth["level_db"] > 5].itertuples():
        inside = sound[round(row.start_s * RATE) : round(row.end_s * RATE)]
        before = sound[round((row.start_s - 1) * RATE) : round(row.start_s * RATE)]
        power, noise = (inside**2).mean(), (before**2).mean()
        assert 10 * np.log10(power / noise - 1) == pytest.approx(row.level_db, abs=4)  # noise is louder and softer
    assert truth["level_db"].between(*LEVELS).all() and set(truth["species"]) <= set(SPECIES)
    assert pd.read_csv(tmp_path / "test.csv").equals(write_side(tmp_path, "test", 1, shared, seed=0))


def test_noise_has_no_gaps_and_no_seams(shared):
    made = background(noise_of(shared, "train"), 100, np.random.default_rng(0))
    level = np.sqrt((made.reshape(-1, RATE) ** 2).mean(axis=1))
    assert len(made) == 100 * RATE
    assert level[1:].min() > 0.5 * 0.01 and level.max() < 2 * 0.01


def test_recall_by_level():
    truth = pd.DataFrame(
        {
            "file": ["a", "a", "b", "b"],
            "start_s": [1.0, 5.0, 1.0, 5.0],
            "species": [SPECIES[0]] * 4,
            "level_db": [-8.0, -6.0, 12.0, 14.0],
        }
    )
    verdicts = pd.DataFrame({"verdict": ["hit", "hit", "miss"], "recording": ["a", "b", "b"],
                             "species": [SPECIES[0]] * 3, "call_start_s": [1.0, 1.0, np.nan]})  # fmt: skip
    levels = recall_by_level(truth, verdicts).set_index(["species", "from_db"])
    assert levels.loc[(MICRO, -10), ["calls", "hits"]].tolist() == [2, 1]
    assert levels.loc[(SPECIES[0], 10), "recall"] == 0.5
    assert np.isnan(levels.loc[(SPECIES[1], 10), "recall"])
