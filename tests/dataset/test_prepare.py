"""`watkins prepare`: the layout, the reasons, incremental runs, and nothing half-written whatever happens."""

from __future__ import annotations

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from watkins_ml.audio.frontend import Frontend, FrontendSettings
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.prepare import DEFAULT_GROUP_REGEX, PrepareOptions, prepare
from watkins_ml.errors import UsageError, UserError

SIDES = ("train", "val", "test")
OTHER_FRONTEND = FrontendSettings(sample_rate=8_000, n_fft=4096)


def table(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / "annotations" / f"{name}.csv", dtype={"tape": str, "cut_id": str}, keep_default_na=False)


def reasons(out: Path) -> dict[str, str]:
    return table(out, "rejected").set_index("path")["reason"].to_dict()


def stamps(out: Path) -> dict[str, tuple[int, int]]:
    """Inode and modification time of every file that a user sees."""
    files = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith(".scan")]
    return {path.relative_to(out).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def spectrograms(out: Path) -> dict[str, Path]:
    """Where the spectrogram of each recording lies."""
    return {
        f"{path.parent.name}/{path.stem}": path
        for side in SIDES
        for path in (out / "spectrograms" / side).rglob("*.pt")
    }


# ---------------------------------------------------------------- what is written


def test_the_layout_is_that_of_design(prepared):
    found = {p.relative_to(prepared).as_posix() for p in prepared.rglob("*") if p.is_file() and p.name[0] != "."}
    annotations = {f"annotations/{name}.csv" for name in ("audio_annotations", "rejected", *SIDES)}
    tensors = {
        f"spectrograms/{side}/{row.species}/{Path(row.path).stem}.pt"
        for side in SIDES
        for row in table(prepared, side).itertuples()
    }
    assert found == {"dataset.json", "annotations/classes.json", *annotations, *tensors}
    assert len(tensors) == 36


def test_annotations_describe_each_recording(prepared, archive):
    rows = table(prepared, "audio_annotations")
    assert list(rows) == ["path", "species", "cut_id", "tape", "sample_rate", "channels", "duration_s", "sha256"]
    for row in rows.itertuples():
        path = archive / row.path
        assert (row.species, row.cut_id, row.tape) == (path.parent.name, path.stem, path.stem[:5])
        assert (row.sample_rate, row.channels, row.duration_s) == (8_000, 1, pytest.approx(0.4))
        assert row.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_sides_divide_the_recordings_and_name_their_spectrograms(prepared, archive):
    classes = json.loads((prepared / "annotations" / "classes.json").read_text())
    assert list(classes.items()) == [(str(n), name) for n, name in enumerate(sorted(classes.values()))]
    sides = {name: table(prepared, name) for name in SIDES}
    everything = pd.concat(sides.values())
    assert sorted(everything["path"]) == sorted(table(prepared, "audio_annotations")["path"])
    for rows in sides.values():
        assert list(rows) == ["path", "species", "label", "tape", "spectrogram"]
        assert [classes[str(label)] for label in rows["label"]] == list(rows["species"])
    frontend = Frontend()
    for row in everything.iloc[::7].itertuples():
        stored = torch.load(prepared / row.spectrogram, weights_only=True)
        assert torch.equal(stored, frontend.file(archive / row.path))


def test_dataset_json_tells_settings_counts_and_digest(prepared):
    summary = json.loads((prepared / "dataset.json").read_text())
    assert (summary["split"], summary["seed"]) == ("tape", 0)
    assert FrontendSettings(**summary["frontend"]) == FrontendSettings()
    counts = summary["counts"]
    assert (counts["recordings"], counts["species"], counts["tapes"], counts["rejected"]) == (36, 3, 12, 0)
    assert [counts[side] for side in SIDES] == [len(table(prepared, side)) for side in SIDES]
    assert len(summary["data_digest"]) == 16


def test_the_data_digest_follows_split_and_frontend_but_not_the_place(ocean, tmp_path, run):
    def digest(name: str, **options) -> str:
        return run(ocean, tmp_path / name, **options).summary["data_digest"]

    first = digest("a")
    assert digest("b") == first
    others = {digest("b", seed=1), digest("b", split="random"), digest("b", frontend=OTHER_FRONTEND)}
    assert len(others | {first}) == 4


def test_awkward_names_survive_the_tables(tmp_path, cut, run, content):
    species = ["NA", "None", "Short_Finned(Pacific) Pilot, Whale", 'Risso\'s "grey" dolphin', "Ærfugl"]
    for kind, name in enumerate(species):
        for number in range(6):
            cut(tmp_path / "audio" / name / f"0000{number} it's, (a) “cut” {kind}.wav", kind * 100 + number)
    run(tmp_path / "audio")
    data = read_prepared(tmp_path / "out")
    assert data.classes == sorted(species)
    for frame in data.sides.values():
        assert frame["tape"].str.fullmatch(r"0000\d").all()
        for row in frame.itertuples():
            assert row.path.startswith(f"{row.species}/")
            assert (tmp_path / "out" / row.spectrogram).exists()


# ---------------------------------------------------------------- what is left out


@pytest.fixture
def messy(ocean, cut) -> Path:
    """The ocean with one file of each kind that cannot be used."""
    cut(ocean / "Orca" / "00090001.wav", 500).write_text("field notes")
    for name in ("00090002.wav", "00090003.flac", "00090004.ogg", "00090005.aiff", "00090006.mp3"):
        whole = cut(ocean / "Orca" / name, 501, seconds=2)
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5])
    (ocean / "Orca" / "00090007.wav").write_bytes(b"")
    soundfile.write(ocean / "Orca" / "00090008.wav", np.zeros(800), 8_000)
    soundfile.write(ocean / "Orca" / "00090009.wav", np.full(800, np.nan), 8_000, subtype="FLOAT")
    (ocean / "Orca" / "notes.txt").write_text("field notes")
    cut(ocean / "stray.wav", 510)
    cut(ocean / "Orca" / "00090010.flac", 0)  # the audio of Orca/00000000.wav in another container
    shutil.copy(ocean / "Orca" / "00001000.wav", ocean / "Orca" / "later copy.wav")
    shutil.copy(ocean / "Orca" / "00002000.wav", ocean / "Walrus" / "01090000.wav")
    cut(ocean / "Beluga" / "02000000.wav", 520)
    cut(ocean / "Beluga" / "02001000.wav", 521)
    return ocean


def test_each_recording_that_cannot_be_used_is_listed_with_its_reason(messy, run, tmp_path):
    summary = run(messy).summary
    found = reasons(tmp_path / "out")
    conflict = "conflict: the same audio is filed under Orca and Walrus"
    exactly = {
        "Orca/00090007.wav": "empty: no bytes",
        "Orca/00090009.wav": "holds samples that are not numbers",
        "Orca/notes.txt": "not an audio file",
        "stray.wav": "not in a species folder",
        "Orca/00090010.flac": "duplicate of Orca/00000000.wav",
        "Orca/later copy.wav": "duplicate of Orca/00001000.wav",
        "Orca/00002000.wav": conflict,
        "Walrus/01090000.wav": conflict,
        "Beluga/02000000.wav": "too few in class: 2 of 3",
        "Beluga/02001000.wav": "too few in class: 2 of 3",
    }
    begins = {
        "1.wav": "unreadable",
        "2.wav": "truncated",
        "5.aiff": "truncated",
        "6.mp3": "truncated",
        "8.wav": "silent",
    }
    assert {path: found.get(path) for path in exactly} == exactly
    for name, word in begins.items():
        assert found[f"Orca/0009000{name}"].startswith(word)
    assert {"Orca/00090003.flac", "Orca/00090004.ogg"} <= set(found)
    assert len(found) == len(exactly) + len(begins) + 2

    kept = table(tmp_path / "out", "audio_annotations")["path"]
    assert not set(kept) & set(found)
    assert len(kept) == 23
    assert len(spectrograms(tmp_path / "out")) == 23
    assert summary["counts"]["rejected"] == len(found)
    assert summary["species_left_out"] == {"Beluga": 2}


def test_a_second_run_over_unusable_files_does_nothing(messy, run, tmp_path):
    run(messy)
    before = stamps(tmp_path / "out")
    again = run(messy)
    assert (again.computed, again.moved) == (0, 0)
    assert stamps(tmp_path / "out") == before


def test_other_min_clips_need_no_new_reading(messy, run, tmp_path):
    run(messy)
    again = run(messy, min_clips=2)
    assert again.computed == 0
    assert set(table(tmp_path / "out", "audio_annotations")["species"]) == {"Beluga", "Orca", "Walrus"}


def test_a_conflict_that_is_resolved_brings_the_recording_back(messy, run, tmp_path):
    run(messy)
    (messy / "Walrus" / "01090000.wav").unlink()
    assert run(messy).computed == 0
    assert "Orca/00002000.wav" in set(table(tmp_path / "out", "audio_annotations")["path"])


def test_name_collisions_in_subfolders_keep_every_recording(ocean, cut, run, tmp_path):
    for seed, path in enumerate(["a/00000000.wav", "b/00000000.wav", "c/00000000.FLAC"]):
        cut(ocean / "Orca" / path, 900 + seed)
    run(ocean)
    rows = table(tmp_path / "out", "audio_annotations")
    assert len(rows) == 27
    assert not rows.duplicated(["species", "cut_id"]).any()
    assert len(spectrograms(tmp_path / "out")) == 27


# ---------------------------------------------------------------- incremental runs


def test_a_second_run_computes_and_touches_nothing(ocean, run, tmp_path):
    assert run(ocean).computed == 24
    before = stamps(tmp_path / "out")
    again = run(ocean)
    assert (again.computed, again.moved) == (0, 0)
    assert stamps(tmp_path / "out") == before


def test_another_frontend_computes_everything_anew(ocean, run, tmp_path, content):
    run(ocean)
    assert run(ocean, frontend=OTHER_FRONTEND).computed == 24
    changed = content(tmp_path / "out")
    run(ocean, tmp_path / "fresh", frontend=OTHER_FRONTEND)
    assert changed == content(tmp_path / "fresh")


@pytest.mark.parametrize("change", [{"split": "random"}, {"seed": 1}, {"group_regex": r"^.{6}"}])
def test_another_split_only_moves_files(ocean, run, tmp_path, content, change):
    out = tmp_path / "out"
    run(ocean)
    before = {cut: (path.stat().st_ino, path.stat().st_mtime_ns) for cut, path in spectrograms(out).items()}
    places = spectrograms(out)
    again = run(ocean, **change)
    assert again.computed == 0
    assert again.moved == sum(place != places[cut] for cut, place in spectrograms(out).items())
    assert {cut: (p.stat().st_ino, p.stat().st_mtime_ns) for cut, p in spectrograms(out).items()} == before
    run(ocean, tmp_path / "fresh", **change)
    assert content(out) == content(tmp_path / "fresh")


def add(ocean: Path, cut) -> None:
    cut(ocean / "Orca" / "00001777.wav", 700)


def change(ocean: Path, cut) -> None:
    cut(ocean / "Orca" / "00001000.wav", 700, seconds=0.06)


def delete(ocean: Path, cut) -> None:
    (ocean / "Orca" / "00001000.wav").unlink()


def spoil(ocean: Path, cut) -> None:
    (ocean / "Orca" / "00001000.wav").write_text("no longer audio")


def rename(ocean: Path, cut) -> None:
    (ocean / "Orca" / "00001000.wav").rename(ocean / "Walrus" / "01009999.wav")


def add_a_namesake(ocean: Path, cut) -> None:
    cut(ocean / "Orca" / "later" / "00001000.wav", 700)


@pytest.mark.parametrize(
    ("edit", "computed"), [(add, 1), (change, 1), (delete, 0), (spoil, 1), (rename, 1), (add_a_namesake, 2)]
)
def test_after_an_edit_the_folder_is_as_if_made_anew(ocean, cut, run, tmp_path, content, edit, computed):
    run(ocean)
    edit(ocean, cut)
    assert run(ocean).computed == computed
    run(ocean, tmp_path / "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_a_lost_spectrogram_is_made_again(ocean, run, tmp_path, content):
    out = tmp_path / "out"
    run(ocean)
    before = content(out)
    next(iter(spectrograms(out).values())).unlink()
    assert run(ocean).computed == 1
    assert content(out) == before


# ---------------------------------------------------------------- killed and continued


class Killed(BaseException):
    """Ends a run at once, as a kill does."""


def killed_at(step: int, monkeypatch, *arguments) -> bool:
    """Prepare, but die before the given change of the file system; False if the run ended before."""
    left = [step]

    def dying(call):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return call(*args, **kwargs)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(shutil, "rmtree", dying(shutil.rmtree))
        try:
            prepare(*arguments)
        except Killed:
            return True
    return False


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "another split and files", "another frontend"])
def test_a_run_killed_at_any_step_continues_to_the_same_result(
    tmp_path, make_ocean, cut, monkeypatch, content, run, before
):
    """Every rename, removal and table in turn; sampled where a run has many alike."""
    audio, base, fresh = make_ocean(tmp_path / "audio", tapes=3, cuts=1), tmp_path / "base", tmp_path / "fresh"
    if before == "another split and files":
        run(audio, base, seed=3)
        places = {name: path.parts[-3] for name, path in spectrograms(base).items()}
        for seed, path in enumerate(sorted(audio.rglob("*.wav"))):
            cut(path, 800 + seed, seconds=0.06)
    elif before == "another frontend":
        run(audio, base, frontend=OTHER_FRONTEND)
    run(audio, fresh)
    expected = content(fresh)
    if before == "another split and files":
        assert places != {name: path.parts[-3] for name, path in spectrograms(fresh).items()}
    options = PrepareOptions(workers=1, min_clips=3)
    step, out = 1, tmp_path / "out"
    while True:
        shutil.rmtree(out, ignore_errors=True)
        if base.exists():
            shutil.copytree(base, out)
        if not killed_at(step, monkeypatch, audio, out, options):
            break
        run(audio, out)
        assert content(out) == expected, f"killed at step {step}"
        step += 1
    assert step > 10


def start(*arguments: object, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "watkins_ml", "prepare", *map(str, arguments), "--min-clips", "3"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, **options)


def wait_for(path: Path, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)


@pytest.mark.slow
def test_a_process_killed_at_random_moments_continues_to_the_same_result(tmp_path, make_ocean, run, content):
    audio, out, fresh = make_ocean(tmp_path / "audio", cuts=12), tmp_path / "out", tmp_path / "fresh"
    begin = time.monotonic()
    run(audio, fresh)
    duration = time.monotonic() - begin
    kills = []
    for _ in range(3):
        process = start(audio, "--out", out, "--workers", 1)
        wait_for(out / "annotations" / ".scan.jsonl", process)
        delay = random.uniform(0, duration / 2)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills.append((round(delay, 3), process.returncode))
    process = start(audio, "--out", out, "--workers", 1)
    assert process.wait() == 0, kills
    assert content(out) == content(fresh), kills
    assert not list(out.rglob("*.partial")), kills


def children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_two_workers_give_the_same_as_one_and_die_with_a_killed_run(tmp_path, make_ocean, run, content):
    audio, out = make_ocean(tmp_path / "audio", tapes=5, cuts=12), tmp_path / "out"
    run(audio, tmp_path / "fresh", workers=1)
    process = start(audio, "--out", out, "--workers", 2)
    staging = out / "spectrograms" / ".staging"
    wait_for(staging, process)  # the first worker has begun to write
    workers = children(process.pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while (left := {pid for pid in workers if alive(pid)}) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert workers
    assert not left, "worker processes outlive a killed run"
    shutil.rmtree(out)
    assert run(audio, workers=2).computed == 120
    assert content(out) == content(tmp_path / "fresh")


# ---------------------------------------------------------------- misuse and faults


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
    run(ocean, tmp_path / "fresh")
    assert content(small_disk / "data") == content(tmp_path / "fresh")


def test_a_file_that_cannot_grow_ends_the_command_with_one_line(ocean, tmp_path, run):
    limit = 100_000  # bytes; a spectrogram needs twice as many

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    process = start(ocean, "--out", tmp_path / "out", stderr=subprocess.PIPE, preexec_fn=limited)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert errors.count("\n") == 1
    assert errors.startswith("watkins: cannot write prepared data")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".pt", ".partial", ".csv")]
    assert not (tmp_path / "out" / "dataset.json").exists()
    assert run(ocean).computed == 24
