"""Names as data: any name has one spelling, one form in which it is compared, and a file."""

from __future__ import annotations

import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.core.names import LONGEST, file_name, normal, opened, same_file, spelled, unique_names

RAW = st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name and b"\0" not in name)
BACKSLASHES = st.text(alphabet=["\\", "x", "e", "9", "\udce9", "\n", "é"], max_size=12)


@given(RAW.map(os.fsdecode) | BACKSLASHES)
def test_a_spelling_is_one_line_that_any_table_takes_and_gives_the_name_back(name):
    spelling = spelled(name)
    assert (spelling.encode() and spelling.splitlines() == [spelling]) or name == ""
    assert opened(spelling) == name


@given(RAW, RAW)
def test_two_names_have_two_spellings(first, second):
    assert (spelled(os.fsdecode(first)) == spelled(os.fsdecode(second))) == (first == second)


@pytest.mark.parametrize("name", ["61025001", "Risso'sDolphin", "Short_Finned(Pacific) Pilot, Whale", "été", "a\\b"])
def test_ordinary_names_are_left_as_they_are(name):
    assert spelled(name) == name
    assert "\\" in name or file_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".x", "dot.", "space ", "CON", "nul.wav", "a:b", 'q"', "a/b", "a\\b", "鯨" * 85, "a" * 255],
)  # fmt: skip
def test_what_some_system_does_not_take_is_marked_with_its_hash(name, tmp_path):
    file = file_name(name)
    assert file != name and len(file.encode()) <= LONGEST and not set('<>:"/\\|?*') & set(file)
    (tmp_path / f"{file}.windows").touch()
    assert file_name(name + "!") != file


@given(st.text(max_size=300))
def test_every_name_has_a_file_that_every_disk_takes(name):
    file = file_name(spelled(name)) if not any(map("\ud800".__le__, name)) else "x"
    assert 0 < len(file.encode()) <= LONGEST
    assert file not in (".", "..") and not set('<>:"/\\|?*') & set(file) and file[-1] not in ". "


def test_forms_and_capitals_share_a_file():
    name = "Épaulard"
    assert normal(unicodedata.normalize("NFD", name)) == name
    assert same_file(unicodedata.normalize("NFD", name)) == same_file(name.upper())


def test_names_that_would_share_a_file_are_told_apart_even_those_made_to_clash():
    wanted = [("Orca", "a"), ("Orca", "A"), ("orca", "a"), ("Orca", "b")]
    sources = ["Orca/a.wav", "Orca/A.wav", "orca/a.wav", "Orca/b.wav"]
    names = unique_names(wanted, sources)
    assert names[3] == "b" and len(set(names)) == 4
    wanted.append(("Orca", names[0]))  # somebody has called a recording like that
    again = unique_names(wanted, [*sources, f"Orca/{names[0]}.wav"])
    assert len({same_file(folder, name) for (folder, _), name in zip(wanted, again, strict=True)}) == 5
