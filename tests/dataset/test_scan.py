"""Finding recordings and their tapes, and remembering what was examined."""

from __future__ import annotations

import os

import pytest

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UsageError
from watkins_ml.dataset.layout import DataFolder
from watkins_ml.dataset.scan import scan
from watkins_ml.dataset.spectrograms import decide, write_spectrograms

TAPE = r"^.{5}"


def names(folder, regex=TAPE):
    return {candidate.path: (candidate.cut_id, candidate.tape) for candidate in scan(folder, regex)[0]}


@pytest.mark.parametrize(
    ("regex", "name", "tape"),
    [
        (TAPE, "61025001.wav", "61025"),
        (TAPE, "5401800A.wav", "54018"),
        (TAPE, "00012001.wav", "00012"),
        (r"^(\d+)_\d+", "17_004.wav", "17"),
        (r"\d+", "take17_004.wav", "17"),
        (r"-(\w+)-(\w+)$", "1-tapeA-cut3.wav", "tapeA"),
        (TAPE, "ab.wav", "ab.wa"),
    ],
)
def test_the_tape_is_the_first_group_or_the_whole_match(tmp_path, cut, regex, name, tape):
    cut(tmp_path / "Orca" / name, 0)
    assert names(tmp_path, regex)[f"Orca/{name}"] == (name.removesuffix(".wav"), tape)


@pytest.mark.parametrize("regex", [r"tape(\d+)", r"^(\d+)?x?", r"z*"], ids=["no match", "unused group", "empty match"])
def test_a_file_without_a_tape_is_named(tmp_path, cut, regex):
    cut(tmp_path / "Orca" / "a long name.wav", 0)
    with pytest.raises(UsageError, match=r"finds no tape in 'Orca/a long name.wav'"):
        scan(tmp_path, regex)


def test_a_broken_regular_expression_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"--group-regex '\(' is not a regular expression"):
        scan(tmp_path, "(")


@pytest.mark.parametrize("name", ["a.WAV", "a.Flac", "b c.ogg", "it's (1), x.aiff"])
def test_suffixes_of_any_case_and_awkward_names_are_found(tmp_path, cut, name):
    cut(tmp_path / "Short_Finned(Pacific) Pilot, Whale" / name, 0)
    assert list(names(tmp_path)) == [f"Short_Finned(Pacific) Pilot, Whale/{name}"]


def test_a_linked_species_folder_is_a_species_folder(tmp_path, cut):
    cut(tmp_path / "disk" / "orcas" / "1990" / "00001001.wav", 0)
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "Orca").symlink_to(tmp_path / "disk" / "orcas")
    assert list(names(tmp_path / "archive")) == ["Orca/1990/00001001.wav"]


def test_an_archive_of_nothing_but_lost_links_names_one(tmp_path):
    (tmp_path / "Orca").mkdir()
    (tmp_path / "Orca" / "00001001.wav").symlink_to(tmp_path / "a disk that is away")
    with pytest.raises(UsageError, match=r"no recordings; .*Orca/00001001.wav is a link to nothing"):
        scan(tmp_path, TAPE)


def test_other_files_are_listed_with_a_reason_and_hidden_ones_skipped(tmp_path, cut):
    cut(tmp_path / "Orca" / "00001001.wav", 0)
    cut(tmp_path / "stray.wav", 1)
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "Orca" / "notes.txt").write_text("x")
    (tmp_path / "Orca" / "._00001001.wav").write_bytes(b"mac")
    (tmp_path / "Orca" / "00001002.wav").symlink_to(tmp_path / "a disk that is away" / "00001002.wav")
    candidates, others = scan(tmp_path, TAPE)
    assert [candidate.path for candidate in candidates] == ["Orca/00001001.wav"]
    assert {other["path"]: (other["species"], other["reason"]) for other in others} == {
        "Orca/00001002.wav": ("Orca", "unreadable: a link to nothing"),
        "Orca/notes.txt": ("Orca", "not an audio file"),
        "notes.txt": ("", "not in a species folder"),
        "stray.wav": ("", "not in a species folder"),
    }


def test_equal_names_in_subfolders_and_formats_get_ids_of_their_own(tmp_path, cut):
    paths = ["Orca/1990/00001001.wav", "Orca/1991/00001001.wav", "Orca/00001001.FLAC", "Walrus/00001001.wav"]
    for seed, path in enumerate(paths):
        cut(tmp_path / path, seed)
    found = names(tmp_path)
    ids = {(path.split("/")[0], cut_id.lower()) for path, (cut_id, _) in found.items()}
    assert len(ids) == 4
    assert found["Walrus/00001001.wav"][0] == "00001001"
    assert {tape for _, tape in found.values()} == {"00001"}
    assert names(tmp_path) == found


def examine(audio, out):
    candidates, _ = scan(audio, TAPE)
    known, todo = decide(candidates, DataFolder(out))
    known |= write_spectrograms(todo, audio, DataFolder(out), FrontendSettings(), workers=1)
    return known, len(todo)


def test_a_journal_with_torn_or_foreign_lines_costs_only_those_lines(ocean, tmp_path):
    out = tmp_path / "out"
    first, computed = examine(ocean, out)
    assert computed == 24
    journal = DataFolder(out).scan_journal
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:-2], '{"path": 1}', "rubbish", lines[-2], lines[-1][:40]]))
    assert examine(ocean, out) == (first, 1)
    assert examine(ocean, out) == (first, 0)


def test_each_candidate_has_a_result(ocean, tmp_path):
    candidates, _ = scan(ocean, TAPE)
    results, _ = examine(ocean, tmp_path / "out")
    assert set(results) == {candidate.path for candidate in candidates}


def test_a_file_that_took_the_place_of_another_is_not_mistaken_for_it(tmp_path, cut):
    """a.wav gives way to another a.flac, then comes back as it was: its spectrogram must be its own."""
    audio, out = tmp_path / "audio", tmp_path / "out"
    wav = cut(audio / "Orca" / "00001001.wav", 1)
    cut(audio / "Orca" / "00002001.wav", 3)
    examine(audio, out)
    spectrogram = DataFolder(out).spectrogram("Orca", "00001001")
    own = spectrogram.read_bytes()
    aside = wav.rename(tmp_path / "aside.wav")
    flac = cut(audio / "Orca" / "00001001.flac", 2)
    examine(audio, out)
    assert spectrogram.read_bytes() != own
    flac.unlink()
    aside.rename(wav)
    examine(audio, out)
    assert spectrogram.read_bytes() == own


def test_what_is_no_file_or_another_kind_of_audio_is_told_so(tmp_path, cut):
    cut(tmp_path / "Orca" / "00001001.wav", 0)
    os.mkfifo(tmp_path / "Orca" / "00001002.wav")
    (tmp_path / "Orca" / "00001003.wav").symlink_to("/dev/zero")
    (tmp_path / "Orca" / "00001004.wav").symlink_to("00001004.wav")
    (tmp_path / "Orca" / "00001005.m4a").touch()
    cut(tmp_path / "Orca" / "00001006.wav" / "00001007.wav", 1)
    candidates, others = scan(tmp_path, TAPE)
    assert [candidate.cut_id for candidate in candidates] == ["00001001", "00001007"]
    assert {other["path"][-8:]: other["reason"] for other in others} == {
        "1002.wav": "unreadable: a pipe, not a file",
        "1003.wav": "unreadable: a device, not a file",
        "1004.wav": "unreadable: Too many levels of symbolic links",
        "1005.m4a": "a format that cannot be read (.m4a); convert it to WAV or FLAC",
    }
