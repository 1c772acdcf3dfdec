"""A host that says anything, and never stops: one sentence, a bounded number of bytes, and nothing half-written."""

from __future__ import annotations

import io
import itertools
import random
import re
import time
import zipfile

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pyarrow import parquet

from tests.support.releases import (
    BEST_OF,
    KAGGLE_API,
    ZIP,
    archive_zip,
    full_parquet,
    recordings,
    serve_archive,
    serve_hub,
    serve_kaggle,
    zipped,
)
from watkins_ml.core.errors import UserError
from watkins_ml.fetch import catalogue, http, huggingface, ranges, unpack
from watkins_ml.fetch.archive import ITEM, _remote
from watkins_ml.fetch.catalogue import FULL_CUTS, read_catalogue
from watkins_ml.fetch.http import get_json
from watkins_ml.fetch.ranges import RangeFile

LIST = f"/metadata/{ITEM}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BLOCK = b" " * 65_536
PATIENCE_S = 20.0
"""A server without end gives up after this, so that a test of a client without bounds fails instead of hanging."""


def refused(watkins, *arguments: str) -> str:
    said = watkins("fetch", *arguments, "--out", "wk")
    assert said.status == 1 and len(said.err.splitlines()) == 1 and "unexpected" not in said.err
    assert said.err.strip().isprintable() and len(said.err) < 1000
    return said.err


def left(folder) -> list[str]:
    """What lies in a folder beside the client's own notes of what it does."""
    mine = ("lock", "source.json")
    return [path.name for path in folder.rglob("*") if path.is_file() and path.name not in mine]


def again_and_again(data: bytes, pause_s: float = 0.0):
    """Sends the same for ever."""

    def send(say) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            say(data)
            time.sleep(pause_s)

    return send


def after(head: bytes, data: bytes, pause_s: float = 0.0):
    def send(say) -> None:
        say(head)
        again_and_again(data, pause_s)(say)

    return send


ENDLESS = {
    "a list without length": after(HEAD + b"\r\n[", BLOCK),
    "a list of terabytes": after(HEAD + b"Content-Length: 9000000000000\r\n\r\n[", BLOCK),
    "a list in chunks": after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"10000\r\n" + BLOCK + b"\r\n"),
    "a page": after(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", BLOCK),
    "a packed list": after(HEAD + b"Content-Encoding: gzip\r\n\r\n\x1f\x8b\x08", bytes(65_536)),
    "a redirect with a body": after(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", BLOCK),
    "an error with a body": after(b"HTTP/1.1 404 Not Found\r\n\r\n", BLOCK),
    "lines of a head": after(b"HTTP/1.1 200 OK\r\n", b"X-Name: value\r\n"),
    "a line of a head": after(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1000),
    "no HTTP": again_and_again(b"hello" * 1000),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_list_without_end_is_given_up_after_a_few_megabytes(watkins, at_host, tmp_path, what):
    at_host.raw[LIST] = ENDLESS[what]
    refused(watkins, "archive")
    each = max(one.sent for one in at_host.of(LIST))
    assert each < http.MOST_LIST_BYTES + 16_000_000, "what the buffers between here and there hold comes on top"
    assert len(at_host.of(LIST)) <= http.TRIES and left(tmp_path / "wk") == []


SLOW = {
    "the head": again_and_again(b"H", 0.05),
    "only 'go on'": again_and_again(b"HTTP/1.1 100 Continue\r\n\r\n", 0.02),
    "the body": after(HEAD + b"\r\n[", b" ", 0.05),
    "the size of a chunk": after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0", 0.05),
    "what comes after the last chunk": after(HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X: y\r\n", 0.02),
}


@pytest.mark.parametrize("what", SLOW)
def test_a_server_that_speaks_letter_by_letter_counts_as_silent(watkins, at_host, monkeypatch, what):
    monkeypatch.setattr(http, "HEADERS_S", 0.3)
    monkeypatch.setattr(http, "WATCH_S", 0.3)
    at_host.raw[LIST] = SLOW[what]
    assert "after 2 tries" in refused(watkins, "archive")


def test_a_download_letter_by_letter_is_given_up_too(watkins, at_host, some_cuts, monkeypatch, tmp_path):
    monkeypatch.setattr(http, "WATCH_S", 0.3)
    at_host.ranges = False
    mirror = serve_archive(at_host, body := archive_zip(some_cuts))
    at_host.raw[mirror] = after(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode(), b"P", 0.01)
    assert "sends almost nothing, after 2 tries" in refused(watkins, "archive")


def test_a_download_that_begins_anew_again_and_again_ends(watkins, at_host, some_cuts):
    """Each answer but the last brings most of the file, and each goes on, or begins anew, by turns."""
    at_host.ranges = False
    mirror = serve_archive(at_host, body := archive_zip(some_cuts))
    turns = itertools.count()

    def send(say) -> None:
        rest = at_host.asked[-1].range.removeprefix("bytes=").removesuffix("-")
        head, start = b"HTTP/1.1 200 OK\r\n", 0
        if rest and not rest.startswith("0-") and next(turns) % 2:
            start = int(rest)
            head = f"HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\n".encode()
        say(head + f"Content-Length: {len(body) - start}\r\n\r\n".encode() + body[start:][:30_000])

    at_host.raw[mirror] = send
    assert "after 6 tries" in refused(watkins, "archive")
    assert len(at_host.of(mirror)) < 60


MORE = {
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n",
    "no length": b"\r\n",
    "no number as length": "Content-Length: ²\r\n\r\n".encode("latin-1"),
    "a negative length": b"Content-Length: -1\r\n\r\n",
}


@pytest.mark.parametrize("what", MORE)
def test_no_more_is_written_than_was_announced(watkins, at_host, some_cuts, tmp_path, what):
    mirror, body = serve_archive(at_host, archive_zip(some_cuts)), archive_zip(some_cuts)
    at_host.ranges = False
    block = b"10000\r\n" + BLOCK + b"\r\n" if what == "chunks" else BLOCK
    at_host.raw[mirror] = after(b"HTTP/1.1 200 OK\r\n" + MORE[what], block)
    said = refused(watkins, "archive")
    assert f"sends more than the {len(body):,} bytes that were announced; nothing of it is kept" in said
    assert left(tmp_path / "wk") == []
    assert max(one.sent for one in at_host.of(mirror)) < len(body) + 16_000_000


def test_a_range_with_more_than_was_asked_for_is_refused(watkins, at_host, some_cuts):
    body = archive_zip(some_cuts)
    mirror = serve_archive(at_host, body)
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/{len(body)}\r\n\r\n".encode()
    at_host.raw[mirror] = after(head, BLOCK)
    assert "sends more than the 1 bytes" in refused(watkins, "archive")


@pytest.mark.parametrize("size", [0, 22, 400_000, 10**14])
def test_a_zip_of_another_size_than_published_is_refused_before_its_download(watkins, at_host, some_cuts, size):
    mirror = serve_archive(at_host, archive_zip(some_cuts))
    head = f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-0/{size}\r\nContent-Length: 1\r\n\r\nx".encode()
    at_host.raw[mirror] = lambda say: say(head)
    assert f"has {size:,} bytes on the server where" in refused(watkins, "archive")


def test_an_empty_zip_of_22_bytes_is_asked_for_no_byte_before_its_first(watkins, at_host):
    mirror = serve_archive(at_host, zipped([]))
    assert "no recordings in species folders" in refused(watkins, "archive")
    assert not [one.range for one in at_host.of(mirror) if "--" in one.range or "=-" in one.range]


@pytest.mark.parametrize("ranged", [True, False])
def test_a_directory_without_end_is_not_read(watkins, at_host, monkeypatch, ranged):
    monkeypatch.setattr(unpack, "MOST_DIRECTORY_BYTES", 200_000)  # the end of a zip is looked for in 65 kB
    body = zipped([(f"Walrus/{number:090d}.wav", b"x") for number in range(2000)])
    at_host.ranges = ranged
    serve_archive(at_host, body)
    assert "a list of files of 294,000 bytes, more than 200,000" in refused(watkins, "archive")


def test_a_file_of_which_too_much_would_be_read_is_given_up(host, monkeypatch):
    monkeypatch.setattr(ranges, "MOST_BYTES", 10_000)
    host.files["/a"] = bytes(100_000)
    for count in (20_000, -1):
        with pytest.raises(UserError, match="would have to be read to know what is in it"):
            RangeFile("a", host.address + "/a").read(count)
    file = RangeFile("a", host.address + "/a")
    with pytest.raises(UserError, match="would have to be read to know what is in it"):
        while True:
            file.seek(0)
            file.read(900)
    assert host.sent("/a") < 25_000
    with pytest.raises(OSError, match="before the beginning"):
        file.seek(-1)


@pytest.mark.parametrize("name", ["method", "flags"])
def test_a_zip_packed_by_other_means_is_refused(watkins, at_host, name):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA if name == "method" else zipfile.ZIP_STORED) as archive:
        archive.writestr("Walrus/é.wav" if name == "flags" else "Walrus/a.wav", b"x" * 100)
    body = file.getvalue()
    serve_archive(at_host, body if name == "method" else body.replace("é".encode(), b"\xff\xff"))
    says = {"method": "is packed by another method than deflate", "flags": "not a sound zip file"}
    assert says[name] in refused(watkins, "archive")


@pytest.mark.parametrize("told", ["[" * 100_000, "9" * 5000, "{", "", "\ud800", '"\\ud800"', "NaN"])
def test_json_of_any_kind_is_one_sentence(watkins, at_host, told):
    at_host.raw[LIST] = lambda say: say(HEAD + b"\r\n" + told.encode("utf-8", "surrogatepass"))
    refused(watkins, "archive")


ANYTHING = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=9)
    | some.sampled_from(["a.zip", "b.parquet", "²", "-5", "1e9", "10" * 20, "ab:cd", "0" * 40, "G" * 40, "a1b2c3"]),
    lambda of: some.lists(of, max_size=3)
    | some.dictionaries(some.sampled_from(["name", "size", "sha1", "lfs", "sha256", "rfilename"]), of, max_size=4),
    max_leaves=8,
)  # fmt: skip
A_FILE = some.fixed_dictionaries({}, optional={
    "name": some.just("a.zip") | ANYTHING, "size": some.just("5") | ANYTHING, "sha1": some.just("0" * 40) | ANYTHING,
    "md5": ANYTHING, "rfilename": some.just("b.parquet") | ANYTHING, "lfs": some.just({"sha256": "0" * 64}) | ANYTHING,
})  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.fixed_dictionaries({}, optional={
    "files": some.lists(A_FILE, max_size=3) | ANYTHING, "sha": some.just("a1b2c3") | ANYTHING,
    "siblings": some.lists(A_FILE, max_size=3) | ANYTHING,
}) | ANYTHING)  # fmt: skip
def test_a_list_of_any_shape_is_a_release_or_one_sentence(at_host, told):
    at_host.answers[LIST] = at_host.answers[f"/api/datasets/{FULL_CUTS}"] = lambda _: told
    for ask in (_remote, read_catalogue, huggingface.release("full").look):
        try:
            ask()
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 600


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"sha1": "ab:cd"}, "publishes no sha1 of it but 'ab:cd'"),
        ({"sha1": "0" * 41}, "publishes no sha1"),
        ({"sha1": "g" * 40}, "publishes no sha1"),
        ({"sha1": ["0" * 40]}, "answers otherwise than expected"),
        ({"size": "²"}, "answers otherwise than expected"),
        ({"size": "-5"}, "answers otherwise than expected"),
        ({"size": -5}, "answers otherwise than expected"),
        ({"size": True}, "answers otherwise than expected"),
        ({"size": 5.0}, "answers otherwise than expected"),
        ({"size": "9" * 30}, "answers otherwise than expected"),
        ({"size": str(10**12)}, "announces 1,000,000,000,000 bytes; no release of the archive has more"),
        ({"name": None}, "answers otherwise than expected"),
        ({"name": "\ud800.zip"}, "no name of a file"),
        ({"name": "\x1b[31m.zip"}, "no name of a file"),
        ({"name": "a" * 300 + ".zip"}, "no name of a file"),
    ],
)
def test_what_is_listed_of_a_file_is_checked(watkins, at_host, changed, says, tmp_path):
    file = {"name": ZIP, "size": "5", "sha1": "0" * 40}
    at_host.answers[LIST] = lambda _: {"files": [file | changed]}
    assert says in refused(watkins, "archive")
    assert left(tmp_path / "wk") == []


@pytest.mark.parametrize("header, value", [
    ("Retry-After", "²"), ("Retry-After", "9" * 400), ("Location", "http://[::1"), ("Location", "http://" + "a" * 70),
    ("Location", "http://\xff\xfe/"), ("Location", "file:///etc/passwd"), ("Location", "http://host:99999/"),
    ("Location", "//"), ("Location", "gopher://x"), ("Content-Length", "²"), ("Content-Length", "5, 7"),
    ("Content-Range", "bytes ²-²/²"),
])  # fmt: skip
def test_a_head_that_says_anything_is_one_sentence(watkins, at_host, header, value):
    statuses = {"Location": "302 Found", "Retry-After": "503 No\x1b[31m", "Content-Range": "206 Part"}
    status = statuses.get(header, "200 OK")
    answer = f"HTTP/1.1 {status}\r\n{header}: {value}\r\n\r\n".encode("latin-1")
    at_host.raw[LIST] = lambda say: say(answer)
    refused(watkins, "archive")


def test_a_list_that_comes_slowly_for_ever_is_given_up(watkins, at_host, monkeypatch):
    monkeypatch.setattr(http, "HEADERS_S", 0.5)
    monkeypatch.setattr(http, "WATCH_S", 0.4)
    at_host.raw[LIST] = after(HEAD + b"\r\n[", b" " * 1000, 0.01)  # more than SLOWEST_BYTES in WATCH_S
    assert "after 2 tries" in refused(watkins, "archive")


def test_a_file_that_would_be_asked_for_in_pieces_without_end_is_given_up(host, monkeypatch):
    monkeypatch.setattr(ranges, "MOST_ASKED", 20)
    host.files["/a"] = bytes(1000)
    file = RangeFile("a", host.address + "/a")
    with pytest.raises(UserError, match="more than 20 requests, or 30 minutes"):
        while True:
            file.seek(0)
            file.read(1)
    assert len(host.asked) < 30
    monkeypatch.setattr(ranges, "MOST_S", -1.0)
    with pytest.raises(UserError, match="to know what is in it; this is given up"):
        RangeFile("a", host.address + "/a")


def test_a_password_in_the_address_of_a_host_is_not_kept(watkins, at_host, some_cuts, monkeypatch, tmp_path):
    serve_archive(at_host, archive_zip(some_cuts))
    monkeypatch.setenv("HF_ENDPOINT", at_host.address.replace("http://", "http://ada:secret@"))
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 0 and "No sites" in said.err and "secret" not in said.err + said.out
    assert "secret" not in (tmp_path / "wk" / "release.json").read_text()


def test_redirects_have_an_end(at_host):
    for number in range(30):
        at_host.redirects[f"/{number}"] = f"/{number + 1}"
    at_host.answers["/30"] = lambda _: {}
    assert get_json("x", at_host.address + "/21") == {}
    with pytest.raises(UserError, match="redirects"):
        get_json("x", at_host.address + "/19")


def test_a_redirect_to_another_host_is_not_told_the_token(at_host, monkeypatch):
    """`127.0.0.1` and `localhost` are two hosts."""
    seen, other = {}, at_host.address.replace("127.0.0.1", "localhost")
    at_host.redirects["/a"] = other + "/b"
    at_host.answers["/b"] = lambda _: {}
    send = http.HTTPAdapter.send
    monkeypatch.setattr(http.HTTPAdapter, "send", lambda self, request, **rest: (
        seen.update({request.url: request.headers.get("Authorization")}) or send(self, request, **rest)))  # fmt: skip
    get_json("x", at_host.address + "/a", {"Authorization": "Bearer secret"})
    assert seen == {at_host.address + "/a": "Bearer secret", other + "/b": None}


# --- parquet ---


def dictionary_bomb() -> bytes:
    """Half a megabyte that says a text of a megabyte four thousand times."""
    file, text = io.BytesIO(), random.Random(0).randbytes(250_000).hex() * 2
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 4000, pa.int32()), pa.array([text]))
    table = pa.table({"record_number": column, "note": column})
    parquet.write_table(table, file, use_dictionary=True, compression="zstd")
    return file.getvalue()


def test_a_table_that_unpacks_to_gigabytes_is_given_up(at_host, monkeypatch):
    monkeypatch.setattr(catalogue, "MOST_MEMORY_BYTES", 600_000_000)
    serve_hub(at_host, FULL_CUTS, {"a.parquet": dictionary_bomb()})
    with pytest.raises(UserError, match="of memory; this is no release"):
        read_catalogue()


def test_a_table_of_too_many_rows_is_no_release(at_host):
    file = io.BytesIO()
    parquet.write_table(pa.table({"record_number": ["5000000A"] * 50_001}), file)
    serve_hub(at_host, FULL_CUTS, {"a.parquet": file.getvalue()})
    with pytest.raises(UserError, match="50,001 rows, more than 50,000"):
        read_catalogue()


SOUND = {"bytes": b"RIFF0000", "path": "5000000A.wav"}


@pytest.mark.parametrize("row, says", [
    ({"audio": "text", "species": "Walrus"}, "its column audio holds no files"),
    ({"audio": {"path": "a.wav"}, "species": "Walrus"}, "its column audio holds no files|not a sound parquet file"),
    ({"audio": {"bytes": 3}, "species": "Walrus"}, "its column audio holds no files"),
    ({"audio": SOUND, "label": -1}, "its notes have no species -1"),
    ({"audio": SOUND, "species": "Walrus", "location": 3, "record_number": {"a": [1]}, "observation_date": 3}, None),
    ({"audio": SOUND, "species": None, "record_number": None}, None),
    ({"audio": SOUND, "species": "\x1b[31mred", "scientific_name": ["x"], "record_number": "CON"}, None),
    ({"audio": SOUND, "display_name": {"a": 1}, "record_number": "../../x"}, None),
])  # fmt: skip
def test_a_table_of_any_types_is_recordings_or_one_sentence(watkins, at_host, row, says, tmp_path):
    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([row]), file)
    serve_hub(at_host, BEST_OF, {"data/a.parquet": file.getvalue()})
    if says:
        assert re.search(says, refused(watkins, "huggingface", "--release", "best-of"))
        return
    said = watkins("fetch", "huggingface", "--release", "best-of", "--out", "wk")
    assert said.status == 0 and "\x1b" not in said.err + said.out
    (path,) = (tmp_path / "wk" / "recordings").rglob("*.wav")
    assert path.relative_to(tmp_path / "wk" / "recordings").parts[0].strip("_.") not in ("", "CON")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(some.tuples(some.integers(0, 10**6), some.binary(min_size=1, max_size=8)), min_size=1, max_size=6))
def test_a_damaged_table_is_one_sentence(at_host, some_cuts, changes):
    body = bytearray(full_parquet({"HarbourSeal": dict(list(some_cuts["HarbourSeal"].items())[:3])}))
    for place, new in changes:
        start = len(body) - 1 - place % min(len(body), 3000)  # its directory lies at the end
        body[start : start + len(new)] = new
    serve_hub(at_host, FULL_CUTS, {"a.parquet": bytes(body)})
    try:
        read_catalogue()
    except UserError as error:
        assert str(error).isprintable()


def test_a_recording_said_a_thousand_times_fills_no_disk(watkins, at_host, tmp_path):
    file, sound = io.BytesIO(), random.Random(0).randbytes(100_000)
    audio = pa.StructArray.from_arrays([pa.array([sound] * 1000)], ["bytes"])
    parquet.write_table(pa.table({"audio": audio, "species": ["Walrus"] * 1000}), file, compression="zstd")
    assert len(file.getvalue()) < 500_000
    serve_hub(at_host, BEST_OF, {"data/a.parquet": file.getvalue()})
    assert "unpacks to more than 5 times its size" in refused(watkins, "huggingface", "--release", "best-of")
    assert sum(path.stat().st_size for path in (tmp_path / "wk").rglob("*.wav")) < 3_000_000


def test_two_files_of_names_that_meet_are_both_taken(watkins, at_host, some_cuts, tmp_path):
    one, two = ({"HarbourSeal": {cut: body}} for cut, body in list(some_cuts["HarbourSeal"].items())[:2])
    serve_hub(at_host, FULL_CUTS, {"a/b.parquet": full_parquet(one), "a-b.parquet": full_parquet(two)})
    assert watkins("fetch", "huggingface", "--out", "wk").status == 0
    assert len(recordings(tmp_path / "wk")) == 2


# --- Kaggle ---


@pytest.mark.parametrize("told", [
    None, [], "x", 3, {}, {"currentVersionNumber": None}, {"currentVersionNumber": "x"}, {"currentVersionNumber": [1]},
    {"code": "400"}, {"code": 500, "message": None}, {"code": 404}, {"currentVersionNumber": {"a": {}}},
])  # fmt: skip
def test_whatever_kaggle_answers_is_one_sentence(watkins, as_kaggle, some_cuts, told, monkeypatch):
    pytest.importorskip("kagglehub")
    monkeypatch.setattr(http, "TRIES", 2)  # for each of them Kaggle's client is made anew
    serve_kaggle(as_kaggle, zipped([]))
    as_kaggle.answers[KAGGLE_API + "GetDataset"] = lambda _: told
    refused(watkins, "kaggle")


@pytest.mark.parametrize("what", ["a list without length", "a list in chunks", "a redirect with a body"])
def test_kaggle_without_end_is_given_up(watkins, as_kaggle, what, monkeypatch):
    pytest.importorskip("kagglehub")
    monkeypatch.setattr(http, "TRIES", 2)
    for path in ("GetDataset", "DownloadDataset"):
        serve_kaggle(as_kaggle, zipped([]))
        as_kaggle.raw = {KAGGLE_API + path: ENDLESS[what]}
        refused(watkins, "kaggle")
        assert max(one.sent for one in as_kaggle.of(KAGGLE_API + path)) < http.MOST_LIST_BYTES + 16_000_000


@pytest.mark.parametrize("value", ["md5=²", "md5=!!!!", "md5=AAAA", "md5="])
def test_a_checksum_that_is_none_is_said(watkins, as_kaggle, some_cuts, value):
    pytest.importorskip("kagglehub")
    storage = serve_kaggle(as_kaggle, archive_zip(some_cuts))
    as_kaggle.headers[storage] = {"x-goog-hash": value}
    said = refused(watkins, "kaggle")
    assert "checksum" in said or "publishes no md5" in said


# --- names ---


def test_every_name_is_a_name_on_every_system(watkins, at_host, tmp_path):
    names = [
        "CON/NUL.wav", "con/nul.wav", "aux/a.wav", "LPT9/com1.x.wav", "PRN /a.wav", "NewWhale/a.wav", "NEWWHALE/a.wav",
        "newwhale/A.wav", "Caf\u00e9/a.wav", "Cafe\u0301/b.wav", "Dots. . ./a.wav", "a<b>|?*\"x/b:c.wav",
        "Whale /a .wav",
    ]  # fmt: skip
    serve_archive(at_host, zipped([(f"Root/{name}", name.encode()) for name in names]))
    assert watkins("fetch", "archive", "--out", "wk").status == 0
    root = tmp_path / "wk" / "recordings"
    paths = [path.relative_to(root) for path in root.rglob("*.wav")]
    assert len(paths) == len(names)
    reserved = {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}
    for path in paths:
        for part in path.parts:
            assert part.partition(".")[0].strip().upper() not in reserved
            assert not set(part) & set('<>:"|?*\\') and part == part.strip(". ")
    assert len({str(path).lower() for path in paths}) == len(names)
    folders = {path.name for path in root.iterdir()}
    assert {"_CON", "NEWWHALE", "Café", "Dots", "_aux", "_PRN"} <= folders
    assert len({name.lower() for name in folders}) == len(folders)
    assert len(list((root / "NEWWHALE").iterdir())) == 3 and len(list((root / "Café").iterdir())) == 2
