"""`watkins fetch huggingface` against a host that behaves, and misbehaves, as the Hugging Face Hub."""

import io
import json
import random

import pandas as pd
import pytest
from pyarrow import parquet

from tests.support.release_host import Fault
from tests.support.releases import (
    BEST_OF,
    as_parquet,
    best_of_parquet,
    expected,
    full_parquet,
    recordings,
    serve_catalogue,
    serve_hub,
)
from watkins_ml.core.errors import UserError
from watkins_ml.fetch.catalogue import FULL_CUTS, read_catalogue
from watkins_ml.fetch.http import TRIES

pytest.importorskip("huggingface_hub")


@pytest.fixture
def shards(at_host, some_cuts) -> list[str]:
    return serve_catalogue(at_host, some_cuts)


def table(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "metadata.csv", dtype=str, keep_default_na=False)


def test_the_full_cuts_end_complete_with_the_table_of_species_put_right(watkins, shards, some_cuts, tmp_path):
    said = watkins("fetch", "huggingface", "--out", "wk")
    assert said.status == 0
    assert recordings(tmp_path / "wk") == expected(some_cuts)
    assert {path.name for path in (tmp_path / "wk").iterdir()} == {"recordings", "metadata.csv", "release.json"}
    rows = table(tmp_path / "wk")
    assert set(rows[rows.species == "HarborSeal"].scientific_name) == {"Phoca vitulina"}
    assert said.err.strip() == "The release calls HarbourSeal Tursiops truncatus; the table has the species' own name"
    one = rows.set_index("path").loc["FinWhale/50001002.wav"]
    assert (one.site, one.date, one.tape) == ("St. Lucia", "1950-08-06", "50001")
    assert f"huggingface: {FULL_CUTS}" in said.out and "watkins prepare wk/recordings" in said.out


def test_a_file_that_is_done_is_never_fetched_again(watkins, shards, at_host, some_cuts, tmp_path):
    at_host.faults[shards[1]] = [Fault(cut_after=10_000), *[Fault(status=503)] * TRIES]
    said = watkins("fetch", "huggingface", "--out", "wk")
    assert said.status == 1 and "train-00001-of-00002.parquet: " in said.err and len(said.err.splitlines()) == 1
    assert {path.name for path in (tmp_path / "wk").iterdir()} == {".fetch"}
    staged = tmp_path / "wk" / ".fetch" / "recordings"
    (staged / "FinWhale" / ".5000000A.wav.77.partial").write_bytes(b"RI")  # as a kill leaves it
    at_host.faults.clear()
    at_host.asked.clear()
    assert watkins("fetch", "huggingface", "--out", "wk").status == 0
    assert recordings(tmp_path / "wk") == expected(some_cuts)
    assert at_host.of(shards[0]) == []
    assert [one.range for one in at_host.of(shards[1])] == ["bytes=10000-"]


def test_a_new_revision_begins_anew(watkins, shards, at_host, some_cuts, tmp_path):
    at_host.faults[shards[1]] = [Fault(status=503)] * TRIES
    assert watkins("fetch", "huggingface", "--out", "wk").status == 1
    fewer = {species: dict(list(of.items())[:4]) for species, of in some_cuts.items()}
    serve_hub(at_host, FULL_CUTS, {"data/train-00000-of-00001.parquet": full_parquet(fewer)}, version="d4e5f6")
    assert watkins("fetch", "huggingface", "--out", "wk").status == 0
    assert recordings(tmp_path / "wk") == expected(fewer)


def test_a_file_that_is_not_as_published_leaves_nothing(watkins, shards, at_host, some_cuts, tmp_path):
    body = bytearray(at_host.files[shards[0]])
    body[len(body) // 2] ^= 1
    at_host.files[shards[0]] = bytes(body)
    said = watkins("fetch", "huggingface", "--out", "wk")
    assert said.status == 1 and "its sha256 is" in said.err and len(said.err.splitlines()) == 1
    assert not (tmp_path / "wk" / "recordings").exists() and not list((tmp_path / "wk").rglob("*.parquet*"))


def test_the_best_of_set_takes_its_sites_from_the_full_cuts(watkins, at_host, shards, some_cuts, tmp_path):
    half = {species: dict(list(of.items())[:6]) for species, of in some_cuts.items()}
    rest = {species: dict(list(of.items())[5:]) for species, of in some_cuts.items()}  # one cut stands in both
    sides = {"data/train.parquet": best_of_parquet(half), "data/test.parquet": best_of_parquet(rest)}
    serve_hub(at_host, BEST_OF, sides)
    said = watkins("fetch", "huggingface", "--release", "best-of", "--out", "best")
    assert said.status == 0 and said.err == ""
    found = recordings(tmp_path / "best")
    assert len(found) == 39 and {path: found[path] for path in expected(some_cuts)} == expected(some_cuts)
    assert found["FinWhale/50001003~2.wav"] == found["FinWhale/50001003.wav"]
    rows = table(tmp_path / "best").set_index("path")
    assert rows.loc["FinWhale/50001003~2.wav"].tape == "50001"
    assert set(rows.site) == {"Saguenay River, Quebec, Canada", "St. Lucia"}
    assert "--group-regex" not in said.out


def test_species_may_be_numbers_whose_names_the_file_notes(watkins, at_host, shards, some_cuts, tmp_path):
    whole = parquet.read_table(io.BytesIO(best_of_parquet(some_cuts)))
    body = io.BytesIO()
    parquet.write_table(whole.drop_columns(["species"]), body)
    serve_hub(at_host, BEST_OF, {"data/train.parquet": body.getvalue()})
    assert watkins("fetch", "huggingface", "--release", "best-of", "--out", "best").status == 0
    assert recordings(tmp_path / "best") == expected(some_cuts)


@pytest.mark.parametrize(
    "rows, says",
    [
        ([{"text": "x"}], "has no columns audio and species; its columns are text"),
        ([{"audio": {"bytes": b"", "path": "a.wav"}, "species": "Walrus"}], "has no recordings"),
        ([{"audio": {"bytes": b"RIFF", "path": "a.wav"}, "label": 3}], "cannot be read"),
    ],
)
def test_a_data_set_that_is_no_release_is_one_sentence(watkins, at_host, shards, tmp_path, rows, says):
    serve_hub(at_host, BEST_OF, {"data/train.parquet": as_parquet(rows)})
    said = watkins("fetch", "huggingface", "--release", "best-of", "--out", "best")
    assert said.status == 1 and says in said.err and len(said.err.splitlines()) == 1
    assert not (tmp_path / "best" / "recordings").exists()


def test_a_hub_that_has_it_no_more_or_is_away_is_one_sentence(watkins, at_host, shards, monkeypatch):
    api = f"/api/datasets/{FULL_CUTS}"
    at_host.faults[api] = [Fault(status=503), Fault(status=500)]
    assert watkins("fetch", "huggingface", "--out", "wk").status == 0
    at_host.faults[api] = [Fault(status=503)] * TRIES
    said = watkins("fetch", "huggingface", "--out", "wk2")
    assert said.status == 1 and "answers 503 Service Unavailable, after 6 tries" in said.err
    told = at_host.answers.pop(api)
    said = watkins("fetch", "huggingface", "--out", "wk2")
    assert said.status == 1 and "is not there (any more)" in said.err and len(said.err.splitlines()) == 1
    at_host.answers[api] = lambda _: told(_) | {"siblings": [{"rfilename": "README.md"}]}
    said = watkins("fetch", "huggingface", "--out", "wk2")
    assert said.status == 1 and "has no parquet files" in said.err
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    said = watkins("fetch", "huggingface", "--out", "wk2")
    assert said.status == 1 and "no answer from 127.0.0.1:9" in said.err and len(said.err.splitlines()) == 1


def test_the_catalogue_costs_only_its_text(at_host):
    noise = {f"5000000{cut}": random.randbytes(500_000) for cut in range(8)}
    (shard,) = serve_hub(at_host, FULL_CUTS, {"data/train.parquet": full_parquet({"Fin_FinbackWhale": noise})})
    assert set(read_catalogue()) == set(noise)
    assert at_host.sent(shard) < len(at_host.files[shard]) / 10


def test_the_catalogue_is_read_as_it_is(at_host, shards, some_cuts):
    found = read_catalogue()
    assert len(found) == 36
    assert found["5000000A"] == {
        "site": "Saguenay River, Quebec, Canada", "latitude": "48.0", "longitude": "-70.0", "date": "1950-08-06",
        "note": "BE7A Squeal. Tape 50000.",
    }  # fmt: skip
    at_host.files[shards[0]] = b"PAR1 nothing".ljust(len(at_host.files[shards[0]]))
    with pytest.raises(UserError, match="not a sound parquet file"):
        read_catalogue()
    at_host.answers[f"/api/datasets/{FULL_CUTS}"] = lambda _: ["no"]
    with pytest.raises(UserError, match="answers otherwise than expected"):
        read_catalogue()


@pytest.mark.real_data
def test_the_real_labels_come_through_as_they_are(watkins, at_host, shared_folder, tmp_path):
    """All 15,248 rows of the real release, each with the first bytes of a sound."""
    real = pd.read_csv(shared_folder / "data" / "watkins_full_cuts.csv", dtype=str, keep_default_na=False)
    rows = [
        {
            "audio": {"bytes": b"RIFF" + one.clip_id.encode(), "path": f"{one.clip_id}.wav"},
            "record_number": one.clip_id,
            "display_name": one.species,
            "location": {
                "name": [one.site] if one.site else [],
                "coordinates": [{"lat": float(one.latitude), "lon": float(one.longitude)}] if one.latitude else None,
            },
            "note": one.note or None,
        }
        for one in real.itertuples()
    ]
    serve_hub(at_host, FULL_CUTS, {"data/train-00000-of-00001.parquet": as_parquet(rows)})
    assert watkins("fetch", "huggingface", "--out", "wk").status == 0
    seal = json.loads((tmp_path / "wk" / "release.json").read_text())
    assert (seal["recordings"], seal["species"], seal["tapes"]) == (15_248, 54, 393)
    assert seal["group_regex"] == "^.{5}" and seal["unknown_species"] == []
    found = table(tmp_path / "wk")
    found = found.assign(clip_id=found.path.str.extract(r"/(\w+)\.wav$")[0]).set_index("clip_id").loc[real.clip_id]
    assert (found.named_in_release.to_numpy() == real.species).all()
    for column in ("site", "latitude", "longitude", "note"):
        assert (found[column].to_numpy() == real[column].str.split().str.join(" ")).all()
    assert (found.tape.to_numpy() == real.clip_id.str[:5]).all()
