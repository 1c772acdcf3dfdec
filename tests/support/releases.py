"""Small releases in each published layout, and the hosts that serve them as the real ones do."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
from pyarrow import parquet

from tests.support.release_host import Host
from watkins_ml.fetch.archive import ITEM
from watkins_ml.fetch.catalogue import FULL_CUTS

RATE = 8_000
SPELLINGS = {"Fin_FinbackWhale": 400.0, "Grampus_Risso'sDolphin": 3000.0, "HarbourSeal": 1500.0}
BEST_OF = "confit/wmms-parquet"
BEST_OF_SPELLINGS = {
    "Fin_FinbackWhale": "Fin,_Finback_Whale",
    "Grampus_Risso'sDolphin": "Grampus,_Rissos_Dolphin",
    "HarbourSeal": "Harbour_Seal",
}
UPSTREAM_NAMES = {
    "Fin_FinbackWhale": "Balaenoptera physalus",
    "Grampus_Risso'sDolphin": "Grampus griseus",
    "HarbourSeal": "Tursiops truncatus",
}
LABELS = {"Fin_FinbackWhale": "FinWhale", "Grampus_Risso'sDolphin": "RissosDolphin", "HarbourSeal": "HarborSeal"}
ZIP = "Watkins_Marine_Mammal_Sound_Database_full_cuts.zip"
KAGGLE_API = "/api/v1/datasets.DatasetApiService/"

Cuts = dict[str, dict[str, bytes]]
"""Sounds by species (as the full cuts spell it) and cut id."""


def wav(frequency: float, seed: int, seconds: float = 0.4) -> bytes:
    file, rng, time = io.BytesIO(), np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    sound = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.05 * rng.standard_normal(len(time))
    soundfile.write(file, sound, RATE, format="WAV")
    return file.getvalue()


def cuts(tapes: int = 4, each: int = 3) -> Cuts:
    """36 cuts of three species on twelve tapes, with ids as in Watkins, some of which end in a letter."""
    made: Cuts = {}
    for number, (species, frequency) in enumerate(SPELLINGS.items()):
        made[species] = {
            f"5{number}{tape:03d}{'00' + 'ABC'[cut] if tape == 0 else f'{cut + 1:03d}'}": wav(
                frequency * (1 + tape / 100), 100 * number + 10 * tape + cut
            )
            for tape in range(tapes)
            for cut in range(each)
        }
    return made


def zipped(entries: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in entries:
            archive.writestr(name, body)
    return file.getvalue()


def archive_zip(some: Cuts) -> bytes:
    """The Internet Archive's layout: a root, species, years."""
    root = "Watkins_Marine_Mammal_Sound_Database"
    return zipped(
        (f"{root}/{species}/19{cut[:2]}/{cut}.wav", body) for species, of in some.items() for cut, body in of.items()
    )


def full_parquet(some: Cuts, part: slice = slice(None)) -> bytes:
    """The full cuts on the Hugging Face Hub, a part of its rows."""
    rows = [
        {
            "audio": {"bytes": body, "path": f"{cut}.wav"},
            "record_number": cut,
            "class_id": list(SPELLINGS).index(species),
            "display_name": species,
            "scientific_name": UPSTREAM_NAMES[species],
            "observation_date": f"19{cut[:2]}-08-06",
            "location": site_of(cut),
            "note": f"BE7A  Squeal.  Tape {cut[:5]}.",
        }
        for species, of in some.items()
        for cut, body in of.items()
    ]
    return as_parquet(rows[part])


def site_of(cut: str) -> dict:
    place, latitude = (("Saguenay River, Quebec, Canada", 48.0), ("St. Lucia", None))[int(cut[4]) % 2]
    return {"name": [place], "coordinates": [{"lat": latitude, "lon": latitude and -70.0}]}


def best_of_parquet(some: Cuts) -> bytes:
    """The best-of set on the Hub: species as names, and as numbers whose names are in the file's notes."""
    names = [BEST_OF_SPELLINGS[species] for species in some]
    rows = [
        {"audio": {"bytes": body, "path": f"{cut}.wav"}, "species": BEST_OF_SPELLINGS[species], "label": label}
        for label, (species, of) in enumerate(some.items())
        for cut, body in of.items()
    ]
    notes = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
    return as_parquet(rows, {"huggingface": json.dumps(notes)})


def as_parquet(rows: list[dict], notes: dict[str, str] | None = None) -> bytes:
    file = io.BytesIO()
    table = pa.Table.from_pylist(rows).replace_schema_metadata(notes)
    parquet.write_table(table, file, row_group_size=5)
    return file.getvalue()


def serve_archive(host: Host, body: bytes, sha1: str | None = None) -> str:
    """As archive.org: the item's files, and a download that is redirected to a mirror. The mirror's path."""
    mirror = f"/mirror7/items/{ITEM}/{ZIP}"
    told = [
        {"name": f"{ITEM}_meta.xml", "format": "Metadata"},
        {"name": ZIP, "size": str(len(body)), "sha1": sha1 or hashlib.sha1(body).hexdigest(), "source": "original"},
        {"name": "cover.zip", "size": "10", "md5": "0" * 32},
    ]
    host.answers[f"/metadata/{ITEM}"] = lambda _: {"files": told}
    host.redirects[f"/download/{ITEM}/{ZIP}"] = mirror
    host.files[mirror] = body
    return mirror


def serve_hub(host: Host, dataset: str, files: dict[str, bytes], version: str = "a1b2c3") -> list[str]:
    """As the Hugging Face Hub: the data set's files, each redirected to a CDN. Their paths there."""
    listed = [{"rfilename": "README.md", "size": 3, "blobId": "1"}]
    places = []
    for name, body in files.items():
        sha256 = hashlib.sha256(body).hexdigest()
        lfs = {"sha256": sha256, "size": len(body), "pointerSize": 134}
        listed.append({"rfilename": name, "size": len(body), "blobId": sha256[:40], "lfs": lfs})
        place = f"/cdn/{dataset}/{version}/{name}"
        host.redirects[f"/datasets/{dataset}/resolve/{version}/{name}"] = place
        host.files[place] = body
        places.append(place)
    host.answers[f"/api/datasets/{dataset}"] = lambda _: {
        "_id": "1", "id": dataset, "sha": version, "private": False, "tags": [], "downloads": 0, "siblings": listed,
    }  # fmt: skip
    return places


def serve_catalogue(host: Host, some: Cuts) -> list[str]:
    """The full cuts in two files, as the Hub has them in many."""
    count = sum(map(len, some.values()))
    names = [f"data/train-{number:05d}-of-00002.parquet" for number in range(2)]
    parts = (slice(0, count // 2), slice(count // 2, None))
    return serve_hub(host, FULL_CUTS, {name: full_parquet(some, part) for name, part in zip(names, parts, strict=True)})


def serve_kaggle(host: Host, body: bytes, md5: bytes | None = None) -> str:
    """As Kaggle: the data set's version, and a download that is redirected to Google's storage. The path there."""
    storage = "/storage/bundle.zip"
    digest = base64.b64encode(md5 or hashlib.md5(body).digest()).decode()
    host.answers[KAGGLE_API + "GetDataset"] = lambda asked: {"currentVersionNumber": 3, "ref": asked["datasetSlug"]}
    host.redirects[KAGGLE_API + "DownloadDataset"] = f"{host.address}{storage}"
    host.files[storage] = body
    host.headers[storage] = {"x-goog-hash": f"crc32c=n03x6A==,md5={digest}"}
    return storage


def recordings(folder: Path) -> dict[str, bytes]:
    root = folder / "recordings"
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def expected(some: Cuts, name: Callable[[str], str] = lambda cut: f"{cut}.wav") -> dict[str, bytes]:
    return {f"{LABELS[species]}/{name(cut)}": body for species, of in some.items() for cut, body in of.items()}
