"""Archives whose names are longer, older or stranger than a file may be called: a name is data."""

from __future__ import annotations

import json
import os
import unicodedata

import pytest

from tests.support.folders import spectrograms, table
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import load_side
from watkins_ml.dataset.scan import scan

NFC, NFD = (unicodedata.normalize(form, "Épaulard") for form in ("NFC", "NFD"))
ODD = {
    "as long as names can be": "a" * 251 + ".wav",
    "long in bytes, not in characters": "鯨" * 80 + ".wav",
    "Latin-1": os.fsdecode(b"9999\xe9t\xe9.wav"),
    "new line": "00000\n1.wav",
    "separator of lines": "00000\u20281.wav",
    "escape sequence": "00000\x1b[31m.wav",
    "table": '0000,"x"\t;1.wav',
    "formula": "=1+1000.wav",
    "not on Windows": "00000:1*?.wav",
    "a device of Windows": "NUL.0000.wav",
    "ends in a dot": "000001..wav",
    "a spelling": "00000\\xe9.wav",
    "carriage return": "00000\r1.wav",
    "short": "1.wav",
}


@pytest.mark.parametrize("name", ODD.values(), ids=ODD.keys())
def test_a_recording_of_any_name_is_prepared_and_found_again(ocean, run, cut, tmp_path, name):
    file = cut(tmp_path / "cut.wav", 999).rename(ocean / "Orca" / name)
    assert run(ocean).summary["counts"]["recordings"] == 25
    out = tmp_path / "out"
    assert len(spectrograms(out)) == 25
    data = read_prepared(out)
    for side, frame in data.sides.items():
        load_side(data, side)
        assert all(data.recording(path).is_file() for path in frame["path"])
    paths = [data.recording(path) for frame in data.sides.values() for path in frame["path"]]
    assert file.resolve() in paths
    lines = (out / "annotations" / "audio_annotations.csv").read_bytes().decode().splitlines()
    assert len(lines) == 26, "a row a line"
    assert run(ocean).computed == 0


SPECIES = ["鯨" * 85, "a" * 255, "new\nline", os.fsdecode(b"bal\xe9"), "train", "CON", "x:y.", "$x$"]


@pytest.mark.parametrize("species", SPECIES, ids=range(len(SPECIES)))
def test_a_species_of_any_name_is_prepared(make_ocean, run, tmp_path, species):
    ocean = make_ocean(tmp_path / "ocean", ("Orca", "Walrus"))
    (ocean / "Orca").rename(ocean / species)
    assert run(ocean).summary["counts"]["species"] == 2
    data = read_prepared(tmp_path / "out")
    for side in data.sides:
        load_side(data, side)
    assert run(ocean).computed == 0


def test_a_name_without_tape_is_a_row_with_a_reason(ocean, run, cut, tmp_path):
    cut(ocean / "Orca" / "x-1.wav", 999)
    run(ocean, group_regex=r"^\d{5}")
    rejected = table(tmp_path / "out", "rejected").set_index("path")["reason"]
    assert rejected.to_dict() == {"Orca/x-1.wav": "no tape: --group-regex finds none in its name"}


def test_what_was_rejected_acts_on_no_terminal_and_no_spreadsheet(make_ocean, run, tmp_path):
    ocean = make_ocean(tmp_path / "ocean", ("=Orca", "Walrus"))
    (ocean / "=Orca" / "0000\x1b[31m\n.wav").write_bytes(b"RIFF, but not really")
    run(ocean)
    text = (tmp_path / "out" / "annotations" / "rejected.csv").read_bytes().decode()
    assert text.splitlines()[1].startswith("'=Orca/0000\\x1b[31m\\x0a.wav,'=Orca,") and len(text.splitlines()) == 2
    data = read_prepared(tmp_path / "out")
    assert data.classes == ["=Orca", "Walrus"], "what is read back is as it was"


def test_names_that_differ_in_capitals_keep_spectrograms_of_their_own_on_any_disk(make_ocean, run, cut, tmp_path):
    ocean = make_ocean(tmp_path / "ocean", ("Orca", "orca", "Walrus"), cuts=2)
    for number, name in enumerate(("00000A.wav", "00000a.wav", "00000a.flac")):
        cut(ocean / "Orca" / name, 900 + number)
        cut(ocean / "orca" / name, 950 + number)
    run(ocean)
    found = spectrograms(tmp_path / "out")
    assert len(found) == 24 + 6
    assert len({name.casefold() for name in found}) == len(found)


def test_both_forms_of_a_name_are_one_species_one_tape_and_one_id(ocean, run, tmp_path, capsys):
    (ocean / NFD).mkdir()
    (ocean / NFC).mkdir()
    for number, file in enumerate(sorted((ocean / "Orca").iterdir())):
        form = "NFD" if number % 2 else "NFC"
        file.rename(ocean / (NFD if number % 2 else NFC) / unicodedata.normalize(form, f"été{file.name}"))
    (ocean / "Orca").rmdir()
    run(ocean, group_regex="^(?:été)?.{5}")
    assert "Épaulard: 2 folders of this name, spelled in different forms of Unicode" in capsys.readouterr().err
    assert json.loads((tmp_path / "out/annotations/classes.json").read_text()) == {"0": "Walrus", "1": NFC}
    annotations = table(tmp_path / "out", "audio_annotations")
    ours = annotations[annotations["species"] == NFC]
    assert len(ours) == 12 and ours["tape"].nunique() == 4
    assert all(unicodedata.is_normalized("NFC", name) for name in [*ours["cut_id"], *ours["tape"]])
    data = read_prepared(tmp_path / "out")
    assert all(data.recording(path).is_file() for path in annotations["path"]), "the disk keeps its own spelling"


def test_two_recordings_of_one_name_in_two_forms_are_told_and_kept(ocean, run, cut, tmp_path, capsys):
    for seed, form in enumerate(("NFC", "NFD")):
        cut(ocean / "Orca" / unicodedata.normalize(form, "00000é.wav"), 990 + seed)
    assert run(ocean).summary["counts"]["recordings"] == 26
    assert "Orca/00000é.wav: 2 files of this name, spelled in different forms of Unicode" in capsys.readouterr().err


def test_a_folder_made_before_names_were_compared_in_one_form_still_opens(make_ocean, run, tmp_path):
    ocean = make_ocean(tmp_path / "ocean", (NFC, "Walrus"))
    run(ocean)
    annotations = tmp_path / "out" / "annotations"
    for file in annotations.iterdir():
        file.write_text(unicodedata.normalize("NFD", file.read_text()))
    assert read_prepared(tmp_path / "out").classes == ["Walrus", NFC]


def test_hidden_names_are_no_recordings(ocean, cut):
    cut(ocean / "cut.wav", 1).rename(ocean / "Orca" / ".wav")
    candidates, others = scan(ocean, "^.{5}")
    assert len(candidates) == 24 and others == []
