"""`watkins prepare`: the layout, what is written, and what is left out for which reason."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from tests.support.folders import OTHER_FRONTEND, SIDES, spectrograms, stamps, table
from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.dataset.layout import read_prepared

# ---------------------------------------------------------------- what is written


def test_the_layout_is_that_of_design(prepared):
    found = {p.relative_to(prepared).as_posix() for p in prepared.rglob("*") if p.is_file() and p.name[0] != "."}
    annotations = {f"annotations/{name}.csv" for name in ("audio_annotations", "rejected", *SIDES)}
    tensors = {
        f"spectrograms/{row.species}/{Path(row.path).stem}.pt"
        for side in SIDES
        for row in table(prepared, side).itertuples()
    }
    assert found == {"dataset.json", "annotations/classes.json", *annotations, *tensors}
    assert len(tensors) == 36


def test_annotations_describe_each_recording(prepared, archive):
    rows = table(prepared, "audio_annotations")
    assert list(rows) == [
        "path",
        "species",
        "cut_id",
        "tape",
        "sample_rate",
        "channels",
        "duration_s",
        "sha256",
        "windows",
        "file_note",
    ]
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


def reasons(out: Path) -> dict[str, str]:
    return table(out, "rejected").set_index("path")["reason"].to_dict()


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
    assert again.computed == 0
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
