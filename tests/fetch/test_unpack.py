"""A zip of which nothing is believed."""

import io
import stat
import struct
import zipfile

import pytest

from tests.support.releases import archive_zip, serve_archive, zipped
from watkins_ml.core.errors import UserError
from watkins_ml.fetch.unpack import open_zip, recordings_in, unpack_member

SOUND = bytes(range(256)) * 40


def linked() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        link = zipfile.ZipInfo("Walrus/a.wav")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    return file.getvalue()


def patched(body: bytes, member: int, **fields: int) -> bytes:
    """A zip whose directory says something else of one member."""
    offsets = {"flags": (8, "<H"), "crc": (16, "<I"), "size": (24, "<I"), "header": (42, "<I")}
    body, at = bytearray(body), -1
    for _ in range(member + 1):
        at = body.index(b"PK\x01\x02", at + 1)
    for name, value in fields.items():
        offset, form = offsets[name]
        struct.pack_into(form, body, at + offset, value)
    return bytes(body)


TWO = zipped([("Walrus/a.wav", SOUND), ("Walrus/b.wav", SOUND)])
HOSTILE = {
    "leads outside": [
        zipped([("ok/a.wav", SOUND), (name, SOUND)])
        for name in ("../a.wav", "Walrus/../../a.wav", "/etc/a.wav", "C:/a.wav", "..\\a.wav", "\\\\host\\a.wav")
    ],
    "is a link": [linked()],
    "is locked with a password": [patched(TWO, 0, flags=1)],
    "as a zip bomb does": [zipped([("Walrus/a.wav", bytes(20_000_000))]), patched(TWO, 0, size=0xF0000000)],
    "overlaps another file": [patched(TWO, 1, header=0)],
}
CASES = [(says, body) for says, bodies in HOSTILE.items() for body in bodies]


@pytest.mark.parametrize("says, body", CASES, ids=[f"{says} {n}" for n, (says, _) in enumerate(CASES)])
def test_a_hostile_zip_is_refused_whole_before_it_is_downloaded(watkins, at_host, tmp_path, says, body):
    mirror = serve_archive(at_host, body)
    said = watkins("fetch", "archive", "--out", "deep/inside/wk")
    assert said.status == 1 and says in said.err and "nothing of it was unpacked" in said.err
    assert len(said.err.splitlines()) == 1
    assert all(one.range for one in at_host.of(mirror)), "only its directory was read"
    at_host.ranges = False  # then only the whole file can tell
    said = watkins("fetch", "archive", "--out", "deep/inside/wk")
    assert said.status == 1 and says in said.err and len(said.err.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix == ".wav"]


@pytest.mark.parametrize(
    "body",
    [b"", b"PK", b"no zip at all", TWO[:-30], TWO[: len(TWO) // 2]],
    ids=["nothing", "two letters", "text", "no end", "a half"],
)
def test_what_is_no_zip_is_one_sentence(watkins, at_host, tmp_path, body):
    serve_archive(at_host, body)
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 1 and len(said.err.splitlines()) == 1
    assert not (tmp_path / "wk" / "recordings").exists()


def test_too_many_files_are_refused(monkeypatch):
    monkeypatch.setattr("watkins_ml.fetch.unpack.MOST_MEMBERS", 1)
    with open_zip("a.zip", io.BytesIO(TWO)) as archive, pytest.raises(UserError, match="holds 2 files"):
        recordings_in("a.zip", archive, len(TWO))


@pytest.mark.parametrize("fault", [{"crc": 1}, {"size": 100}, {"size": 20_000}])
def test_a_member_that_is_not_as_it_says_leaves_no_file(tmp_path, fault):
    body = patched(TWO, 0, **fault)
    with (
        pytest.raises(UserError, match="not a sound zip file"),
        open_zip("a.zip", io.BytesIO(body)) as archive,
    ):
        unpack_member(archive, archive.infolist()[0], tmp_path / "a.wav")
    assert list(tmp_path.glob("*a.wav*")) == []


def test_a_file_that_is_there_is_kept_and_a_torn_one_written_anew(tmp_path):
    target = tmp_path / "Walrus" / "a.wav"
    with open_zip("a.zip", io.BytesIO(TWO)) as archive:
        member = archive.infolist()[0]
        unpack_member(archive, member, target)
        assert target.read_bytes() == SOUND
        first = target.stat().st_ino
        unpack_member(archive, member, target)
        assert target.stat().st_ino == first
        for torn in (b"", bytes(len(SOUND)), SOUND[:-1]):
            target.write_bytes(torn)
            unpack_member(archive, member, target)
            assert target.read_bytes() == SOUND
    assert [path.name for path in target.parent.iterdir()] == ["a.wav"]


def test_only_recordings_are_taken(some_cuts):
    body = archive_zip(some_cuts)
    extra = zipped([("a/b.txt", b"x"), ("a/.c.wav", b"x"), ("__MACOSX/a/d.wav", b"x"), ("a/e.WAV", b"x"), ("a/", b"")])
    for content, count in ((body, 36), (extra, 1)):
        with open_zip("a.zip", io.BytesIO(content)) as archive:
            assert len(recordings_in("a.zip", archive, len(content))) == count
