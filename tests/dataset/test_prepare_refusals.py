"""`watkins prepare` misused or on a faulty disk: one line that says what to do, and nothing half-written."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

from tests.support.folders import start, table
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.prepare import DEFAULT_GROUP_REGEX


def refused(kind: type[UserError], run, *arguments, **options) -> str:
    with pytest.raises(kind) as error:
        run(*arguments, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_folder_is_named_and_nothing_written(tmp_path, run):
    assert "gone: no such folder" in refused(UsageError, run, tmp_path / "gone")
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(tmp_path, cut, run):
    assert "no such folder" in refused(UsageError, run, cut(tmp_path / "a.wav", 0))


@pytest.mark.parametrize("content", [[], ["notes.txt"], ["Orca/notes.txt"], ["flat.wav"], [".hidden/00001001.wav"]])
def test_a_folder_without_recordings_is_refused(tmp_path, run, content):
    audio = tmp_path / "audio"
    audio.mkdir()
    for name in content:
        (audio / name).parent.mkdir(exist_ok=True)
        (audio / name).write_text("x")
    assert "no recordings; expected SPECIES/FILE" in refused(UsageError, run, audio)
    assert not (tmp_path / "out").exists()


def test_one_species_only_is_refused(tmp_path, make_ocean, run):
    audio = make_ocean(tmp_path / "audio", species=("Orca",))
    assert "one species only (Orca)" in refused(UsageError, run, audio)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spoiled", "words"),
    [(["Orca"], "only one species is left (Walrus) after 12"), (["Orca", "Walrus"], "no usable recording is left")],
)
def test_too_little_that_can_be_used_is_refused(ocean, run, tmp_path, spoiled, words):
    for species in spoiled:
        for path in (ocean / species).iterdir():
            path.write_text("no audio")
    assert words in refused(UserError, run, ocean)
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_min_clips_that_no_species_reaches_is_refused(ocean, run):
    assert "--min-clips" in refused(UserError, run, ocean, min_clips=13)


def test_one_tape_a_species_names_group_regex(tmp_path, cut, run):
    for kind, species in enumerate(["Dog", "Rain"]):
        for number in range(6):
            cut(tmp_path / "audio" / species / f"class{kind} take{number}.wav", kind * 100 + number)
    out = tmp_path / "out"
    for regex in (r"^class\d", r"(class\d) "):
        assert "--group-regex" in refused(UserError, run, tmp_path / "audio", group_regex=regex)
        assert not (out / "dataset.json").exists()
    again = run(tmp_path / "audio", group_regex=r"take(\d+)")
    assert again.computed == 0
    assert set(table(out, "audio_annotations")["tape"]) == set("012345")


def test_the_default_tape_on_names_that_hold_none_names_group_regex(tmp_path, cut, run):
    for kind, species in enumerate(["chirping_bird", "crying_baby"]):
        for number in range(6):
            cut(tmp_path / "audio" / species / f"{species}{number}.wav", kind * 100 + number)
    message = refused(UserError, run, tmp_path / "audio", group_regex=DEFAULT_GROUP_REGEX)
    assert "--group-regex" in message


def test_output_inside_the_audio_folder_is_refused(ocean, run):
    for out in (ocean, ocean / "data", ocean / "Orca" / ".." / "data"):
        assert "inside the audio folder" in refused(UserError, run, ocean, out)
    assert sorted(path.name for path in ocean.iterdir()) == ["Orca", "Walrus"]


@pytest.mark.parametrize("below", ["file", "file/data"])
def test_output_where_a_file_is_cannot_be_written(ocean, run, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    assert "cannot write prepared data" in refused(UserError, run, ocean, tmp_path / below)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_cannot_be_written(ocean, run, tmp_path):
    (tmp_path / "fixed").mkdir(mode=0o555)
    assert "Permission denied" in refused(UserError, run, ocean, tmp_path / "fixed" / "data")


def test_a_failed_change_leaves_the_finished_data_set_as_it_was(ocean, run, tmp_path, content):
    run(ocean)
    before = content(tmp_path / "out")
    refused(UserError, run, ocean, group_regex=r"^.")
    assert content(tmp_path / "out") == before
    read_prepared(tmp_path / "out")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MiB: room for nine spectrograms."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_told_and_the_next_run_goes_on(ocean, run, small_disk, tmp_path, content):
    message = refused(UserError, run, ocean, small_disk / "data")
    assert "No space left on device" in message
    assert "goes on from there" in message
    assert not (small_disk / "data" / "dataset.json").exists()
    assert not list(small_disk.rglob("*.partial"))
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert 0 < run(ocean, small_disk / "data").computed < 24
    run(ocean, tmp_path / "other" / "fresh")
    assert content(small_disk / "data") == content(tmp_path / "other" / "fresh")


def test_a_file_that_cannot_grow_ends_the_command_with_one_line(ocean, tmp_path, run):
    limits = {resource.RLIMIT_FSIZE: 100_000}  # bytes; a spectrogram needs twice as many
    process = start(ocean, "--out", tmp_path / "out", stderr=subprocess.PIPE, limits=limits)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert errors.startswith("watkins: cannot write prepared data")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".pt", ".partial", ".csv")]
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert run(ocean).computed == 24


def test_spectrograms_of_others_are_not_deleted(ocean, run, tmp_path):
    foreign = tmp_path / "out" / "spectrograms" / "train" / "years of work.png"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("x")
    assert "give another --out" in refused(UserError, run, ocean)
    assert foreign.read_text() == "x"
