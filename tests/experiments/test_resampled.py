"""Cuts resampled to the rates of other recorders, and what is said of the answers to them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
from resampled import cuts_of, resampled, row


def test_a_cut_keeps_what_is_below_half_the_lower_rate_and_nothing_else(tmp_path):
    time = np.arange(44_100) / 44_100
    sound = 0.3 * np.sin(2 * np.pi * 1_000 * time) + 0.3 * np.sin(2 * np.pi * 9_000 * time)
    soundfile.write(tmp_path / "cut.flac", sound, 44_100)
    file = resampled(tmp_path, "cut.flac", 11_025, tmp_path / "out")
    lower, rate = soundfile.read(file)
    assert rate == 11_025 and len(lower) == 11_025
    spectrum = np.abs(np.fft.rfft(lower)) * 2 / len(lower)
    assert abs(spectrum[1_000] - 0.3) < 0.01 and np.delete(spectrum, slice(950, 1_050)).max() < 0.01
    stamp = file.stat().st_mtime_ns
    assert resampled(tmp_path, "cut.flac", 11_025, tmp_path / "out").stat().st_mtime_ns == stamp


def test_a_cut_of_a_lower_rate_stays_as_it_is(tmp_path):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, (800, 2)).astype(np.float32)
    soundfile.write(tmp_path / "cut.wav", sound, 8_000, subtype="FLOAT")
    lower, rate = soundfile.read(resampled(tmp_path, "cut.wav", 11_025, tmp_path / "out"), dtype="float32")
    assert rate == 8_000 and np.array_equal(lower, sound)


def test_shares_are_of_the_answers_that_were_right_before():
    species = pd.Series(["a", "a", "b", "b", "b"])
    native = pd.Series(["a", "b", "b", "b", "unknown"])
    lower = {11_025: pd.Series(["a", "a", "unknown", "a", "b"])}
    assert row(species, native, lower) == {
        "cuts": "5", "right as they are": "3 (60.0%)", "of these right at 11,025 Hz": "1 (33.3%; 1 unknown)",
    }  # fmt: skip


def test_without_a_table_of_cuts_of_one_sentence_says_what_to_give(tmp_path):
    with pytest.raises(SystemExit, match=r"no such file; .* or give --data"):
        cuts_of(str(tmp_path), None)
