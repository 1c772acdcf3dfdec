"""Class folders, the table of recordings and the seal: what `watkins fetch` leaves, whatever came in between."""

import json
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.dataset.metadata import read_metadata
from watkins_ml.fetch.layout import (
    Folder,
    complete,
    finish,
    read_seal,
    require_room,
    row,
    tape_rule,
    working,
)
from watkins_ml.fetch.recording_paths import RecordingPaths

ABOUT = {"release": "r", "page": "p", "version": "v", "licence": "l", "citation": "c"}


@pytest.mark.parametrize(
    "stems, rule, tape",
    [
        (["61025001", "5401800A", "61025002~2"], r"^.{5}", "61025"),
        (["2_ASD_0_1", "2_ASD_10_2"], r"^(\d+_[A-Z]+_\d+)_", "2_ASD_0"),
        (["61025001", "call of a whale"], r"^(.+?)(?:~\d+)?$", "61025001"),
    ],
)
def test_the_tape_is_found_by_the_rule_that_fits_every_name(tmp_path, stems, rule, tape):
    assert tape_rule(pd.Series([f"Walrus/{stem}.wav" for stem in stems])) == rule
    folder = Folder(tmp_path)
    (folder.staged / "Walrus").mkdir(parents=True)
    seal = finish(folder, pd.DataFrame([row(f"Walrus/{stem}.wav", "Walrus", {}) for stem in stems]), ABOUT)
    assert seal.group_regex == rule
    tapes = pd.read_csv(folder.metadata, dtype=str, keep_default_na=False).set_index("path").tape
    assert tapes[f"Walrus/{stems[0]}.wav"] == tape
    assert read_metadata(folder.metadata).rows.shape[0] == len(stems)


SPELLINGS = st.sampled_from(["Walrus", "../x", "A b/c", "", "..", "."])


@given(st.lists(st.tuples(SPELLINGS, st.text("aA~2./\\ \0é", max_size=6) | st.text(max_size=90)), max_size=9))
def test_no_name_leads_outside_and_no_two_meet(names):
    places, taken = RecordingPaths(), set()
    for species, name in names:
        path = places.of(species, f"{name}.wav")
        assert path.lower() not in taken and path.count("/") == 1
        taken.add(path.lower())
        label, file = path.split("/")
        assert label.strip(". ") and not label.startswith(".") and "\\" not in path and "\0" not in path
        assert (Path("/root") / path).resolve().parent == Path("/root") / label
        assert file.endswith(".wav") and not file.startswith(".") and len(file.encode()) < 256


def test_later_files_know_the_names_of_earlier_ones():
    first = RecordingPaths()
    paths = [first.of("Walrus", "a.wav"), first.of("Walrus", "A.WAV"), first.of("HarpSeal", "x/y\\a.wav")]
    assert paths == ["Walrus/a.wav", "Walrus/A~2.WAV", "HarpSeal/a.wav"]
    assert RecordingPaths(paths).of("Walrus", "a.wav") == "Walrus/a~3.wav"


def staged(folder: Folder) -> pd.DataFrame:
    place = folder.staged / "Walrus" / "61025001.wav"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"RIFF")
    return pd.DataFrame([row("Walrus/61025001.wav", "Walrus", {"site": "Igloolik"})])


@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_while_everything_is_moved_is_gone_on_with(tmp_path, monkeypatch, moved):
    folder = Folder(tmp_path)
    rows = staged(folder)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"watkins_ml.fetch.layout.{'write_bytes' if moved else 'complete'}", killed)
        with pytest.raises(KeyboardInterrupt):
            finish(folder, rows, ABOUT)
    assert folder.recordings.exists() == moved
    assert read_seal(folder, "r") is None
    with working(folder, None):
        seal = complete(folder)
    assert seal.recordings == 1 and read_seal(folder, "r") == seal
    assert (folder.recordings / "Walrus" / "61025001.wav").exists() and not folder.work.exists()


def test_two_commands_in_one_folder_do_not_meet(tmp_path):
    folder = Folder(tmp_path)
    folder.work.mkdir()
    with FileLock(folder.work / "lock"), pytest.raises(UserError, match="another watkins fetch is at work there"):
        with working(folder, ABOUT):
            pytest.fail("both at work")


def test_what_is_staged_of_another_version_is_dropped(tmp_path):
    folder = Folder(tmp_path)
    with working(folder, {"version": "1"}):
        staged(folder)
        (folder.work / "release.zip.part").write_bytes(b"x")
    with working(folder, {"version": "1"}):
        assert folder.staged.exists()
    with working(folder, {"version": "2"}):
        assert {path.name for path in folder.work.iterdir()} == {"lock", "source.json"}


def test_a_seal_that_cannot_be_read_or_is_of_another_release_is_said(tmp_path):
    folder = Folder(tmp_path)
    finish(folder, staged(folder), ABOUT)
    with pytest.raises(UsageError, match="holds r; choose another folder for other"):
        read_seal(folder, "other")
    odd = [{"recordings": "1"}, {"release": 3}, {"unknown_species": [1]}, {"other_scientific_names": [1]}, {"more": 1}]
    seal = json.loads(folder.seal.read_text())
    odd = [json.dumps(seal | one) for one in odd]
    for torn in ("", "{}", json.dumps({"unknown_species": []}), "[" * 100_000, *odd):
        folder.seal.write_text(torn)
        with pytest.raises(UserError, match=r"release\.json: cannot be read"):
            read_seal(folder, "r")


def test_room_is_asked_for_with_a_little_more(tmp_path):
    require_room(Folder(tmp_path), 1000)
    with pytest.raises(UserError, match=r"needs 1.1 EB of free disk"):
        require_room(Folder(tmp_path), 10**18)
