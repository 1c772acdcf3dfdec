"""`watkins prepare --annotations` as it is typed, and what it says."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

RATE = 2_000


@pytest.fixture
def sea(tmp_path):
    """Seven recordings of 20 s with two calls each, as tables of Raven beside them."""
    (tmp_path / "sea").mkdir()
    head = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tSpecies\n"
    for number in range(7):
        samples = np.random.default_rng(number).integers(-9_000, 9_000, 20 * RATE, dtype="int16")
        soundfile.write(tmp_path / "sea" / f"r{number}.wav", samples, RATE)
        rows = [
            (view, *call) for call in ((1, 2, 5, "Orca"), (2, 10, 13, "Walrus")) for view in ("Waveform", "Spectro")
        ]
        text = "".join(f"{n}\t{view} 1\t1\t{start}\t{end}\t0\t900\t{name}\n" for view, n, start, end, name in rows)
        (tmp_path / "sea" / f"r{number}.Table.1.selections.txt").write_text(head + text)
    return tmp_path / "sea"


def prepare(watkins, sea, *more):
    small = ("--sample-rate", RATE, "--seconds", "1.01", "--mels", 16, "--workers", 1, "--min-clips", 3)
    return watkins("prepare", sea, "--annotations", sea, "--out", sea.parent / "data", *small, *more)


def test_it_says_what_was_found_and_what_is_known(watkins, sea):
    said = prepare(watkins, sea)
    assert said.status == 0
    out = " ".join(said.out.split())
    assert "windows of 2 species on 7 recordings" in out
    assert "14 calls in 7 tables; listened through (--reviewed spans): 0.00 h" in out
    assert "No window without a call: nothing is marked as listened through (--reviewed all" in out
    out = " ".join(prepare(watkins, sea, "--reviewed", "all", "--background-ratio", 0.5).out.split())
    assert "windows of 2 species and background on 7 recordings" in out
    assert "listened through (--reviewed all): 0.04 h" in out
    assert "'background' is the class of windows without a call; it is no species" in out
    assert "partial call" in out
    assert "Few recordings stand behind train" in out


def test_a_bad_table_is_one_line(watkins, sea):
    (sea / "r0.Table.1.selections.txt").write_text("")
    said = prepare(watkins, sea)
    assert said.status == 2
    assert "r0.Table.1.selections.txt: empty; a table has a line of headings" in said.err
    assert len(said.err.strip().splitlines()) == 1
