"""One file over a bad network: it ends complete and verified, or one sentence says what is wrong."""

import hashlib
import json
import random
from pathlib import Path

import pytest

from tests.support.release_host import Fault
from watkins_ml.core.errors import UserError
from watkins_ml.fetch import http
from watkins_ml.fetch.download import Remote, download, part_of
from watkins_ml.fetch.http import get_json
from watkins_ml.fetch.ranges import RangeFile

BODY = random.Random(0).randbytes(400_000)
OTHER = random.Random(1).randbytes(400_000)
PATH = "/cuts.zip"


def sha1(body: bytes) -> str:
    return "sha1:" + hashlib.sha1(body).hexdigest()


@pytest.fixture
def remote(host):
    host.files[PATH] = BODY

    def remote(checksum: str | None = sha1(BODY), size: int | None = len(BODY), path: str = PATH) -> Remote:
        return Remote("cuts.zip", lambda: host.address + path, size, checksum)

    return remote


def start(remote: Remote, host, target: Path, kept: int) -> None:
    """Leave the beginning of a download, as a kill does."""
    host.faults[PATH] = [Fault(cut_after=kept), Fault(status=404)]
    with pytest.raises(UserError):
        download(remote, target)
    assert part_of(target).stat().st_size == kept
    host.asked.clear()
    host.faults.clear()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_arrives_once_and_is_told_of_byte_by_byte(remote, host, tmp_path):
    seen = []
    download(remote(), tmp_path / "a.zip", seen.append)
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert left(tmp_path) == {"a.zip"}
    assert seen == sorted(seen) and seen[-1] == len(BODY)
    download(remote(), tmp_path / "a.zip")
    assert len(host.asked) == 1


@pytest.mark.parametrize("checksum", [sha1(BODY), None])
def test_a_later_call_goes_on_where_the_first_was_killed(remote, host, tmp_path, checksum):
    target = tmp_path / "a.zip"
    start(remote(checksum), host, target, 150_000)
    download(remote(checksum), target)
    assert target.read_bytes() == BODY and left(tmp_path) == {"a.zip"}
    assert [one.range for one in host.asked] == ["bytes=150000-"]
    assert host.sent(PATH) == 250_000
    assert bool(host.asked[0].if_range) == (checksum is None)


@pytest.mark.parametrize("kind, checksum", [("md5", True), ("sha256", True), ("none", False)])
def test_cut_connections_are_gone_on_with(remote, host, tmp_path, kind, checksum):
    published = f"{kind}:{hashlib.new(kind, BODY).hexdigest()}" if checksum else None
    host.faults[PATH] = [Fault(cut_after=30_000) for _ in range(9)]  # more than TRIES: each brought something
    download(remote(published), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert host.sent(PATH) == len(BODY)


def test_without_any_validator_a_cut_connection_begins_again(remote, host, tmp_path):
    host.etags = False
    host.faults[PATH] = [Fault(cut_after=30_000)]
    download(remote(None), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert [one.range for one in host.asked] == ["", ""]


def test_a_server_without_ranges_begins_again(remote, host, tmp_path):
    start(remote(), host, tmp_path / "a.zip", 100_000)
    host.ranges = False
    download(remote(), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_server_that_gives_ranges_piece_by_piece_is_asked_again(remote, host, tmp_path):
    start(remote(), host, tmp_path / "a.zip", 100_000)
    host.most = 120_000
    download(remote(), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY and len(host.asked) == 3


def test_a_range_that_was_not_asked_for_is_never_written(remote, host, tmp_path):
    start(remote(None), host, tmp_path / "a.zip", 100_000)
    host.shift = 10
    download(remote(None), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert [one.range for one in host.asked] == ["bytes=100000-", ""]


def test_redirects_are_followed_at_every_request(remote, host, tmp_path):
    host.redirects = {"/item": "/mirror1", "/mirror1": PATH}
    host.faults[PATH] = [Fault(cut_after=1000)]
    download(remote(path="/item"), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY
    assert len(host.of("/item")) == 2
    host.redirects["/loop"] = "/loop"
    with pytest.raises(UserError, match="redirects"):
        download(remote(path="/loop"), tmp_path / "b.zip")


def test_busy_servers_and_silent_connections_are_waited_for(remote, host, tmp_path):
    host.faults[PATH] = [
        Fault(status=503, retry_after="0"), Fault(status=429), Fault(cut_after=5000, stall_s=1.0), Fault(status=500),
    ]  # fmt: skip
    download(remote(), tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_slow_connection_is_no_fault(remote, host, tmp_path):
    host.block, host.pause_s = 20_000, 0.05  # one second in all, twice the time between two pieces
    download(remote(), tmp_path / "a.zip")
    assert len(host.asked) == 1


def test_a_server_that_stays_away_is_one_sentence_and_the_beginning_stays(remote, host, tmp_path):
    start(remote(), host, tmp_path / "a.zip", 100_000)
    host.faults[PATH] = [Fault(status=503) for _ in range(http.TRIES)]
    with pytest.raises(UserError, match=r"^cuts.zip: .* answers 503.*after 6 tries.*same command again"):
        download(remote(), tmp_path / "a.zip")
    assert part_of(tmp_path / "a.zip").stat().st_size == 100_000
    host.close()
    with pytest.raises(UserError, match=r"no answer from 127.0.0.1:\d+ \(connection refused\)"):
        download(remote(), tmp_path / "a.zip")


@pytest.mark.parametrize("status, says", [(404, "not there"), (403, "account"), (401, "account"), (410, "not there")])
def test_what_will_not_pass_is_said_at_once(remote, host, tmp_path, status, says):
    host.faults[PATH] = [Fault(status=status)]
    with pytest.raises(UserError, match=rf"cuts.zip .*{says}.*{status}"):
        download(remote(), tmp_path / "a.zip")
    assert len(host.asked) == 1 and left(tmp_path) == set()


def test_a_wrong_checksum_leaves_nothing(remote, host, tmp_path):
    with pytest.raises(UserError, match=r"^cuts.zip: its sha1 is .* damaged .*nothing of it is kept"):
        download(remote(sha1(OTHER)), tmp_path / "a.zip")
    assert len(host.asked) == 1, "it was whole, so a second try would bring the same"
    assert left(tmp_path) == set()


def test_a_file_that_changes_between_two_halves_is_never_mixed(remote, host, tmp_path):
    target = tmp_path / "a.zip"
    host.faults[PATH] = [Fault(cut_after=150_000, then=lambda: host.files.update({PATH: OTHER}))]
    download(remote(checksum=None), target)  # by If-Range
    assert target.read_bytes() == OTHER
    target.unlink()
    host.files[PATH] = BODY
    start(remote(), host, target, 150_000)
    host.files[PATH] = OTHER
    download(remote(sha1(OTHER)), target)  # the publisher's list has changed with it
    assert target.read_bytes() == OTHER


def test_two_halves_that_do_not_fit_are_tried_once_more_from_the_first_byte(remote, host, tmp_path):
    target = tmp_path / "a.zip"
    start(remote(), host, target, 150_000)
    state = part_of(target).with_name("a.zip.part.json")
    assert json.loads(state.read_text())["checksum"] == sha1(BODY)
    part_of(target).write_bytes(OTHER[:150_000])  # what a bad disk or a changed file leaves
    download(remote(), target)
    assert target.read_bytes() == BODY
    assert [one.range for one in host.asked] == ["bytes=150000-", ""]


def test_a_torn_note_of_a_beginning_means_no_beginning(remote, host, tmp_path):
    target = tmp_path / "a.zip"
    for torn in ("", "{", "[]", '{"size": 3}'):
        start(remote(), host, target, 150_000)
        part_of(target).with_name("a.zip.part.json").write_text(torn)
        download(remote(), target)
        assert target.read_bytes() == BODY
        assert [one.range for one in host.asked] == [""]
        target.unlink()


def test_another_length_than_published_is_refused_before_a_byte_is_written(remote, host, tmp_path):
    with pytest.raises(UserError, match="has 400,000 bytes on the server where 500,000 are published"):
        download(remote(size=500_000), tmp_path / "a.zip")
    assert left(tmp_path) == set()


def test_a_file_is_read_at_any_place_by_ranges(host):
    host.files[PATH] = BODY
    file = RangeFile("cuts.zip", host.address + PATH)
    host.faults[PATH] = [Fault(status=503), Fault(cut_after=3)]
    assert file.seek(-10, 2) == len(BODY) - 10
    assert file.read(100) == BODY[-10:] and file.read(1) == b""
    file.seek(1000)
    assert file.read(5) == BODY[1000:1005]
    host.files[PATH] = OTHER + b"x"
    with pytest.raises(UserError, match="changed on the server"):
        file.read(5)
    host.ranges = False
    with pytest.raises(UserError, match="gives no ranges"):
        RangeFile("cuts.zip", host.address + PATH)


def test_json_that_is_none_is_said(host):
    host.files["/page"] = b"<html>"
    with pytest.raises(UserError, match=r"^the list: .*no JSON"):
        get_json("the list", host.address + "/page")
    host.answers["/list"] = lambda _: {"a": 1}
    host.faults["/list"] = [Fault(status=502)]
    assert get_json("the list", host.address + "/list") == {"a": 1}
