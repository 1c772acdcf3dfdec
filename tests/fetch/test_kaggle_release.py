"""`watkins fetch kaggle`: Kaggle's own client against a host that behaves, and misbehaves, as Kaggle."""

import json

import pytest

from tests.support.release_host import Fault
from tests.support.releases import KAGGLE_API, expected, recordings, serve_catalogue, serve_kaggle, zipped
from watkins_ml.fetch.http import TRIES

pytest.importorskip("kagglehub")


def folders(some) -> bytes:
    """Class folders without years."""
    return zipped((f"{species}/{cut}.wav", body) for species, of in some.items() for cut, body in of.items())


@pytest.fixture
def storage(as_kaggle, some_cuts) -> str:
    serve_catalogue(as_kaggle, some_cuts)
    return serve_kaggle(as_kaggle, folders(some_cuts))


def test_class_folders_end_complete_with_sites(watkins, storage, some_cuts, tmp_path):
    said = watkins("fetch", "kaggle", "--out", "kg")
    assert said.status == 0 and said.err == ""
    assert recordings(tmp_path / "kg") == expected(some_cuts)
    seal = json.loads((tmp_path / "kg" / "release.json").read_text())
    assert (seal["version"], seal["with_site"], seal["tapes"]) == ("version 3", 36, 12)
    assert "kaggle: shreyj1729/best-of-watkins" in said.out and "free for personal and academic use" in said.out


def test_signed_addresses_are_asked_for_anew_after_every_cut(watkins, storage, as_kaggle, some_cuts, tmp_path):
    as_kaggle.download_faults[storage] = [Fault(), Fault(), *[Fault(cut_after=30_000) for _ in range(3)]]
    assert watkins("fetch", "kaggle", "--out", "kg").status == 0
    assert recordings(tmp_path / "kg") == expected(some_cuts)
    going_on = [one.range for one in as_kaggle.of(storage) if one.range.endswith("-")]
    assert going_on and len(as_kaggle.of(KAGGLE_API + "DownloadDataset")) > len(going_on)


def test_kaggle_without_an_account_is_told_how_to_get_one(watkins, storage, as_kaggle):
    for status in (401, 403):
        as_kaggle.faults[KAGGLE_API + "GetDataset"] = [Fault(status=status)]
        said = watkins("fetch", "kaggle", "--out", "kg")
        assert said.status == 1 and len(said.err.splitlines()) == 1
        assert "kaggle.com/settings" in said.err and "KAGGLE_API_TOKEN" in said.err


def test_what_kaggle_has_no_more_or_cannot_say_now_is_one_sentence(watkins, storage, as_kaggle):
    as_kaggle.faults[KAGGLE_API + "GetDataset"] = [Fault(status=404)]
    said = watkins("fetch", "kaggle", "--out", "kg")
    assert said.status == 1 and "may have moved, see its page" in said.err and len(said.err.splitlines()) == 1
    as_kaggle.faults[KAGGLE_API + "GetDataset"] = [Fault(status=503)] * TRIES
    said = watkins("fetch", "kaggle", "--out", "kg")
    assert said.status == 1 and "Kaggle: it answers 503, after 6 tries" in said.err


def test_the_checksum_of_its_storage_counts(watkins, as_kaggle, some_cuts, tmp_path):
    serve_catalogue(as_kaggle, some_cuts)
    serve_kaggle(as_kaggle, folders(some_cuts), md5=b"0" * 16)
    said = watkins("fetch", "kaggle", "--out", "kg")
    assert said.status == 1 and "its md5 is" in said.err
    assert not (tmp_path / "kg" / "recordings").exists()


@pytest.mark.real_data
def test_names_that_are_no_cut_ids_get_the_group_of_their_original_cut(watkins, as_kaggle, shared_folder, tmp_path):
    """Real cuts of the best-of set under the names of another release: halves, numbered within a species."""
    files = [
        path
        for species in ("RossSeal", "SpermWhale", "Long_FinnedPilotWhale")
        for path in sorted((shared_folder / "data" / "watkins10" / species).iterdir())[:12]
    ]
    serve_kaggle(as_kaggle, zipped((f"{path.parent.name}/{path.name}", path.read_bytes()) for path in files))
    said = watkins("fetch", "kaggle", "--out", "kg")
    assert said.status == 0 and "No sites, dates and notes" in said.err
    rule = r"--group-regex '^(\d+_[A-Z]+_\d+)_'"
    assert f"watkins prepare kg/recordings --metadata kg/metadata.csv {rule} --out data" in said.out
    found = recordings(tmp_path / "kg")
    assert len(found) == len(files) and found[f"RossSeal/{files[0].name}"] == files[0].read_bytes()
    command = ["--metadata", "kg/metadata.csv", "--group-regex", r"^(\d+_[A-Z]+_\d+)_", "--min-clips", "3"]
    assert watkins("prepare", "kg/recordings", *command, "--workers", "1", "--out", "data").status == 0
