"""`watkins fetch archive` against a host that behaves, and misbehaves, as the Internet Archive."""

import json
import shutil
from collections import namedtuple

import pandas as pd
import pytest

from tests.support.release_host import Fault
from tests.support.releases import archive_zip, expected, recordings, serve_archive, serve_catalogue, zipped
from watkins_ml.fetch.archive import ITEM
from watkins_ml.fetch.catalogue import FULL_CUTS
from watkins_ml.fetch.http import TRIES


@pytest.fixture
def mirror(at_host, some_cuts) -> str:
    serve_catalogue(at_host, some_cuts)
    return serve_archive(at_host, archive_zip(some_cuts))


def table(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)


def left(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def test_the_release_ends_complete_with_its_table(watkins, mirror, some_cuts, tmp_path):
    said = watkins("fetch", "archive", "--out", tmp_path / "wk")
    assert said.status == 0 and said.err == ""
    assert recordings(tmp_path / "wk") == expected(some_cuts)
    assert left(tmp_path / "wk") == {"recordings", "metadata.csv", "release.json"}
    rows = table(tmp_path / "wk").set_index("path")
    assert list(rows.index) == sorted(expected(some_cuts))
    one = rows.loc["RissosDolphin/51001002.wav"]
    assert one.to_dict() == {
        "species": "RissosDolphin", "scientific_name": "Grampus griseus", "family": "Delphinidae",
        "site": "St. Lucia", "latitude": "", "longitude": "", "date": "1951-08-06",
        "note": "BE7A Squeal. Tape 51001.", "tape": "51001", "named_in_release": "Grampus_Risso'sDolphin",
    }  # fmt: skip
    assert rows.loc["FinWhale/5000000A.wav"].site == "Saguenay River, Quebec, Canada"
    assert rows.loc["FinWhale/5000000A.wav"].latitude == "48.0"
    seal = json.loads((tmp_path / "wk" / "release.json").read_text())
    assert (seal["recordings"], seal["species"], seal["tapes"], seal["with_site"]) == (36, 3, 12, 36)


def test_size_licence_and_citation_come_first_and_the_next_commands_last(watkins, mirror, tmp_path):
    lines = watkins("fetch", "archive", "--out", "wk").out.splitlines()
    assert f"archive.org/details/{ITEM}" in lines[0]
    assert "free for personal and academic use" in lines[1] and "Citation to give" in lines[1]
    assert "Woods Hole Oceanographic Institution and the New Bedford Whaling Museum" in lines[2]
    assert lines[3].startswith("Download: ") and "kB" in lines[3] and "the recordings will take" in lines[3]
    assert lines[-2:] == [
        "  watkins prepare wk/recordings --metadata wk/metadata.csv --out data",
        "  watkins train experiments/baseline.yaml",
    ]


def test_a_complete_release_says_so_and_asks_nobody(watkins, mirror, at_host, tmp_path):
    watkins("fetch", "archive", "--out", "wk")
    at_host.asked.clear()
    before = recordings(tmp_path / "wk")
    (tmp_path / "wk" / ".fetch").mkdir()  # as a kill just after the seal leaves it
    (tmp_path / "wk" / ".fetch" / "release.zip").write_bytes(b"x")
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 0 and "Already complete" in said.out and at_host.asked == []
    assert recordings(tmp_path / "wk") == before and ".fetch" not in left(tmp_path / "wk")
    next((tmp_path / "wk" / "recordings").rglob("*.wav")).unlink()
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 1 and "1 of 36 recordings removed; remove wk and fetch again" in said.err


def test_a_bad_network_costs_nothing_but_time(watkins, mirror, at_host, some_cuts, tmp_path):
    at_host.faults = {
        f"/metadata/{ITEM}": [Fault(status=503), Fault(status=500)],
        f"/download/{ITEM}/{mirror.rpartition('/')[2]}": [Fault(status=503), Fault(status=502)],
        mirror: [Fault(status=503), Fault(cut_after=5)],
    }
    cuts = [Fault(cut_after=20_000) for _ in range(9)]
    at_host.download_faults[mirror] = [*cuts, Fault(cut_after=9, stall_s=0.7)]
    assert watkins("fetch", "archive", "--out", "wk").status == 0
    assert recordings(tmp_path / "wk") == expected(some_cuts)


def test_an_interrupted_download_is_not_finished_and_goes_on(watkins, mirror, at_host, some_cuts, tmp_path):
    out = tmp_path / "wk"
    size = len(at_host.files[mirror])
    at_host.download_faults[mirror] = [Fault(cut_after=size // 3), *[Fault(status=503)] * TRIES]
    said = watkins("fetch", "archive", "--out", out)
    assert said.status == 1 and len(said.err.splitlines()) == 1 and "same command again" in said.err
    assert left(out) == {".fetch"}
    assert watkins("prepare", out, "--out", "data").status == 2, "what is staged is no archive"
    at_host.download_faults.clear()
    at_host.asked.clear()
    assert watkins("fetch", "archive", "--out", out).status == 0
    assert recordings(out) == expected(some_cuts)
    assert any(one.range == f"bytes={size // 3}-" for one in at_host.of(mirror))


def test_a_wrong_checksum_is_one_sentence_and_leaves_no_recording(watkins, at_host, some_cuts, tmp_path):
    serve_catalogue(at_host, some_cuts)
    serve_archive(at_host, archive_zip(some_cuts), sha1="0" * 40)
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 1 and len(said.err.splitlines()) == 1
    assert "its sha1 is" in said.err and "nothing of it is kept" in said.err
    assert left(tmp_path / "wk") == {".fetch"}
    assert not list((tmp_path / "wk").rglob("*.part"))
    assert watkins("prepare", "wk/recordings", "--out", "data").status == 2


def test_a_release_that_changes_between_two_calls_is_fetched_anew(watkins, at_host, mirror, some_cuts, tmp_path):
    at_host.download_faults[mirror] = [Fault(cut_after=50_000), *[Fault(status=503)] * TRIES]
    assert watkins("fetch", "archive", "--out", "wk").status == 1
    at_host.download_faults.clear()
    fewer = {species: dict(list(of.items())[:4]) for species, of in some_cuts.items()}
    serve_archive(at_host, archive_zip(fewer))
    assert watkins("fetch", "archive", "--out", "wk").status == 0
    assert recordings(tmp_path / "wk") == expected(fewer)


@pytest.mark.parametrize(
    "files, says",
    [
        ({}, "has no zip file"),
        ({"files": [{"name": "a.zip", "size": "many", "md5": "1"}]}, "answers otherwise than expected"),
        ({"files": [{"name": "a.zip", "size": "5"}]}, "answers otherwise than expected"),
        ([], "answers otherwise than expected"),
    ],
)
def test_an_item_that_is_not_as_it_was_is_one_sentence(watkins, at_host, tmp_path, files, says):
    at_host.answers[f"/metadata/{ITEM}"] = lambda _: files
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 1 and says in said.err and len(said.err.splitlines()) == 1
    assert left(tmp_path) <= {"hub-home"}


@pytest.mark.parametrize("path", ["metadata", "download"])
def test_what_is_not_there_is_one_sentence(watkins, at_host, mirror, path, tmp_path):
    at_host.answers.pop(f"/metadata/{ITEM}") if path == "metadata" else at_host.redirects.clear()
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 1 and "is not there (any more) (404 Not Found)" in said.err
    assert left(tmp_path) <= {"hub-home"}


def test_a_full_disk_is_refused_before_the_first_byte(watkins, mirror, at_host, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 200_000, 200_000))
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 1
    assert "needs 488.8 kB of free disk and has 200.0 kB; make room" in said.err
    assert all(one.range for one in at_host.of(mirror)), "only its directory was read"
    assert not list((tmp_path / "wk").rglob("*.part"))


def test_a_host_without_ranges_is_enough(watkins, mirror, at_host, some_cuts, tmp_path):
    at_host.ranges = False
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 0 and recordings(tmp_path / "wk") == expected(some_cuts)
    assert "No sites, dates and notes: " in said.err and "gives no ranges" in said.err, "the catalogue needs them"


def test_sites_that_could_not_be_had_come_with_the_next_call(watkins, mirror, at_host, tmp_path):
    told = at_host.answers.pop(f"/api/datasets/{FULL_CUTS}")
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 0 and "No sites, dates and notes" in said.err
    assert set(table(tmp_path / "wk").site) == {""}
    assert set(table(tmp_path / "wk").date) == {"1950", "1951", "1952"}, "from the folders of years"
    said = watkins("fetch", "archive", "--out", "wk")
    assert "Already complete" in said.out and "No sites" in said.err
    at_host.answers[f"/api/datasets/{FULL_CUTS}"] = told
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.err == "" and "a site for 36 of them" in said.out
    assert set(table(tmp_path / "wk").date) == {"1950-08-06", "1951-08-06", "1952-08-06"}
    at_host.asked.clear()
    assert "Already complete" in watkins("fetch", "archive", "--out", "wk").out and at_host.asked == []


def test_a_folder_that_holds_something_else_is_left_alone(watkins, mirror, tmp_path):
    (tmp_path / "mine" / "recordings").mkdir(parents=True)
    said = watkins("fetch", "archive", "--out", "mine")
    assert said.status == 2 and "has other recordings in it; choose another folder" in said.err
    watkins("fetch", "archive", "--out", "wk")
    said = watkins("fetch", "huggingface", "--out", "wk")
    assert said.status == 2 and f"--out wk: holds archive.org: {ITEM}" in said.err


def test_an_unknown_species_is_kept_and_said(watkins, at_host, some_cuts, tmp_path):
    serve_catalogue(at_host, some_cuts)
    entries = [("Root/Kraken/1950/5000000A.wav", some_cuts["HarbourSeal"]["52001001"]), ("Root/read me.txt", b"hi")]
    serve_archive(at_host, zipped([*entries, ("Root/HarbourSeal/52001001.wav", b"x"), ("loose.wav", b"y")]))
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 0 and "Not in the table of species, so without scientific name: Kraken" in said.err
    assert set(recordings(tmp_path / "wk")) == {"Kraken/5000000A.wav", "HarborSeal/52001001.wav"}
