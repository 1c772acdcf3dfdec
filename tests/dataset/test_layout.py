"""Opening a prepared folder: what it holds, and one sentence for each way in which it can be broken."""

from __future__ import annotations

import json
import os
import shutil

import pytest

from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared, read_table
from watkins_ml.dataset.loading import load_side
from watkins_ml.dataset.prepare import PrepareOptions, prepare


@pytest.fixture
def copy(prepared, tmp_path):
    return shutil.copytree(prepared, tmp_path / "data")


def problem(root) -> str:
    with pytest.raises(UserError, match="watkins prepare") as error:
        read_prepared(root)
    assert str(root) in str(error.value)
    return str(error.value)


def test_a_prepared_folder_opens_with_all_its_recordings(prepared):
    data = read_prepared(prepared)
    assert data.classes == sorted(data.classes)
    assert sum(map(len, data.sides.values())) == data.summary["counts"]["recordings"] == 36
    assert data.protocol == "tape"
    assert data.frontend == FrontendSettings()
    for frame in data.sides.values():
        assert [data.classes[label] for label in frame["label"]] == frame["species"].tolist()
        assert (frame["sample_rate"] == 8_000).all()
        assert frame["tape"].tolist() == frame["cut_id"].str[:5].tolist()
        assert frame["tape"].str.startswith("0").all()


def test_a_missing_folder_is_told_from_an_unfinished_one(copy, tmp_path):
    assert "missing" in problem(tmp_path / "none")
    (copy / "dataset.json").unlink()
    assert "not finished" in problem(copy)


def cut_json(root):
    path = root / "dataset.json"
    path.write_text(path.read_text()[:-50])


def no_mapping(root):
    (root / "dataset.json").write_text("[]")


def no_counts(root):
    path = root / "dataset.json"
    path.write_text(json.dumps({"split": "tape"}))


def other_classes(root):
    (root / "annotations" / "classes.json").write_text('{"7": "Orca"}')


def cut_table(root):
    path = root / "annotations" / "train.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-2]))


def empty_table(root):
    (root / "annotations" / "val.csv").write_bytes(b"")


def lost_table(root):
    (root / "annotations" / "test.csv").unlink()


def lost_columns(root):
    (root / "annotations" / "audio_annotations.csv").write_text("path\nx.wav\n")


def twice_in_a_table(root):
    path = root / "annotations" / "val.csv"
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])


DAMAGES = [
    cut_json, no_mapping, no_counts, other_classes, cut_table, empty_table, lost_table, lost_columns, twice_in_a_table,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_and_the_advice_mends_it(archive, prepared, copy, damage):
    damage(copy)
    assert "damaged" in problem(copy)
    mended = prepare(archive, copy, PrepareOptions(workers=1))
    assert mended.computed == 0
    found, expected = (read_prepared(root).summary for root in (copy, prepared))
    assert found == expected | {"audio_dir_from_here": found["audio_dir_from_here"]}
    for path in (copy / "annotations").glob("*.csv"):
        assert path.read_bytes() == (prepared / "annotations" / path.name).read_bytes()


def test_recordings_moved_together_with_the_data_are_found_at_the_new_place(archive, tmp_path):
    shutil.copytree(archive, tmp_path / "project" / "recordings")
    prepare(tmp_path / "project" / "recordings", tmp_path / "project" / "data", PrepareOptions(workers=1))
    shutil.copytree(tmp_path / "project", tmp_path / "elsewhere")
    data = read_prepared(tmp_path / "elsewhere" / "data")
    assert data.audio_dir == tmp_path / "elsewhere" / "recordings"
    assert (data.audio_dir / data.sides["train"]["path"][0]).is_file()
    # moved alone they leave the recordings where they were
    (tmp_path / "project" / "data").rename(tmp_path / "alone")
    assert read_prepared(tmp_path / "alone").audio_dir == tmp_path / "project" / "recordings"
    # and data of an earlier version say only that
    summary = json.loads((tmp_path / "alone" / "dataset.json").read_text())
    del summary["audio_dir_from_here"]
    (tmp_path / "alone" / "dataset.json").write_text(json.dumps(summary))
    assert read_prepared(tmp_path / "alone").audio_dir == tmp_path / "project" / "recordings"


PLACES = ["/etc/hostname", "../outside.pt", "spectrograms/../../outside.pt", "up/outside.pt", "link.pt"]


ENTRIES = [("spectrogram", entry) for entry in PLACES]
ENTRIES += [("path", entry) for entry in [*PLACES[:3], r"\x2e\x2e/outside.pt", r"a\x00b"]]  # recordings may be links


@pytest.mark.parametrize(("column", "entry"), ENTRIES)
def test_a_table_that_names_files_elsewhere_is_refused(copy, tmp_path, column, entry):
    (tmp_path / "outside.pt").write_bytes(b"not mine")
    (copy / "up").symlink_to("..")
    (copy / "link.pt").symlink_to(tmp_path / "outside.pt")
    file = copy / "annotations" / "test.csv"
    table = read_table(file)
    before, table.loc[0, column] = table[column][0], entry
    table.to_csv(file, index=False)
    if column == "path":
        everything = copy / "annotations" / "audio_annotations.csv"
        everything.write_text(everything.read_text().replace(before, entry))
    with pytest.raises(UserError, match=r"leads out of|is a link") as refused:
        load_side(read_prepared(copy), "test")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["dataset.json", "annotations/test.csv", "annotations/classes.json", "annotations"])
def test_a_part_that_is_a_link_to_elsewhere_or_has_no_end_is_refused(prepared, copy, tmp_path, name):
    part = copy / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    part.symlink_to(prepared / name)
    with pytest.raises(UserError, match="leads out of"):
        read_prepared(copy)
    part.unlink()
    os.mkfifo(part)
    with pytest.raises(UserError, match=r"regular file|damaged"):
        read_prepared(copy)


def test_a_spectrogram_that_is_a_pipe_is_refused(copy):
    spectrogram = copy / read_prepared(copy).sides["test"]["spectrogram"][0]
    spectrogram.unlink()
    os.mkfifo(spectrogram)
    with pytest.raises(UserError, match="is a link or no file"):
        load_side(read_prepared(copy), "test")
