"""`watkins prepare --no-upsampling`: one band for all recordings."""

import numpy as np
import pytest
import soundfile

from tests.support.folders import OTHER_FRONTEND, spectrograms, table
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared

BAND = FrontendSettings.at(12_000)


@pytest.fixture
def mixed(ocean):
    """The ocean (8 kHz) with two more species, of which one was recorded at 12 kHz and the other at both rates."""
    for species, seed in (("Beluga", 500), ("Narwhal", 600)):
        for number in range(12):
            wide = species == "Beluga" or number < 9
            rate = 12_000 if wide else 8_000
            path = ocean / species / f"{seed + number // 3:05d}{number:03d}.wav"
            path.parent.mkdir(exist_ok=True)
            samples = np.random.default_rng(seed + number).integers(-9_000, 9_000, rate // 20, dtype="int16")
            soundfile.write(path, samples, rate)
    return ocean


def test_what_would_be_upsampled_is_left_out_and_everything_else_stays(mixed, run, tmp_path):
    summary = run(mixed, frontend=BAND, no_upsampling=True).summary
    out = tmp_path / "out"
    assert set(table(out, "audio_annotations")["sample_rate"]) == {12_000}
    assert summary["counts"]["recordings"] == 21 and summary["counts"]["species"] == 2
    reasons = table(out, "rejected").groupby("species")["reason"].agg(["nunique", "first", "size"])
    assert reasons.loc["Orca"].tolist() == [1, "native rate below 12000 Hz: 8000", 12]
    assert reasons.loc["Narwhal"].tolist() == [1, "native rate below 12000 Hz: 8000", 3]
    assert summary["rejected_for"] == {"native rate below 12000 Hz": 27}
    assert summary["no_upsampling"] is True


def test_a_species_with_too_few_left_goes_as_a_whole(mixed, run):
    extra = {"frontend": BAND, "no_upsampling": True}
    assert run(mixed, min_clips=9, **extra).summary["species_left_out"] == {}
    with pytest.raises(UserError, match=r"least 10 recordings each \(--min-clips\) at 12000 Hz or more \(--no-upsamp"):
        run(mixed, min_clips=10, **extra)


def test_it_comes_and_goes_without_reading_a_recording_again(mixed, run, tmp_path, content):
    out = tmp_path / "out"
    run(mixed, frontend=BAND)
    all_of_them, inodes = content(out), {cut: path.stat().st_ino for cut, path in spectrograms(out).items()}
    assert run(mixed, frontend=BAND, no_upsampling=True).computed == 0
    run(mixed, tmp_path / "fresh", frontend=BAND, no_upsampling=True)
    assert content(out) == content(tmp_path / "fresh")
    assert {cut: path.stat().st_ino for cut, path in spectrograms(out).items()}.items() <= inodes.items()
    assert run(mixed, frontend=BAND).computed == 0
    assert content(out) == all_of_them


def test_where_nothing_is_upsampled_the_data_are_the_same(ocean, run):
    ordinary = run(ocean, frontend=OTHER_FRONTEND).summary
    banded = run(ocean, frontend=OTHER_FRONTEND, no_upsampling=True).summary
    assert banded == ordinary | {"no_upsampling": True}


def test_the_command_says_it(mixed, watkins, tmp_path):
    said = watkins("prepare", mixed, "--sample-rate", 12_000, "--no-upsampling", "--min-clips", 3, "--workers", 1)
    assert said.status == 0 and "27 files left out (27 native rate below 12000 Hz)" in said.out
    assert read_prepared(tmp_path / "data").frontend == BAND
