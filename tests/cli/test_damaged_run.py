"""Run directories that are damaged or from elsewhere: one line that names the file, and nothing written."""

import pytest

from tests.support.commands import BASELINE, assert_one_line

RUN = '{"name": "r", "uid": "u", "status": "FAILED"}'
ENDED = (
    '{"kind": "start", "time_ms": 1, "name": "r", "uid": "u", "experiment": "e"}\n'
    '{"kind": "end", "time_ms": 2, "status": "FAILED"}\n'
)


@pytest.fixture
def damaged(tmp_path):
    """A function that makes a run directory with one file replaced."""

    def make(name: str, content: bytes):
        root = tmp_path / "run"
        root.mkdir()
        (root / "run.json").write_text(RUN)
        (root / "journal.jsonl").write_text(ENDED)
        (root / "config.yaml").write_text(BASELINE.read_text())
        (root / name).write_bytes(content)
        return root

    return make


def contents(root) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b'"uid status"', b"\xff\xfe", b"null"])
@pytest.mark.parametrize("command", [("sync",), ("train", "--resume")], ids=["sync", "resume"])
def test_a_run_json_that_says_nothing(watkins, damaged, command, content):
    root = damaged("run.json", content)
    before = contents(root)
    assert_one_line(watkins(*command, root), 1, f"{root}: not a run directory (its run.json is missing or damaged)")
    assert contents(root) == before


@pytest.mark.parametrize("content", [b"garbage\n", b"\n", b"[]\n", b'{"time_ms": 1}\n', b"\0" * 1000 + b"\n"])
def test_a_damaged_line_of_the_journal_is_named(watkins, damaged, content):
    root = damaged("journal.jsonl", ENDED.encode() + content)
    before = contents(root)
    assert_one_line(watkins("sync", root), 1, f"{root / 'journal.jsonl'}: line 3 is damaged")
    assert contents(root) == before


def test_a_journal_of_a_later_version_is_named(watkins, damaged, store):
    root = damaged("journal.jsonl", b'{"kind": "swim", "time_ms": 1}\n' + ENDED.encode())
    assert_one_line(watkins("sync", root), 1, "has an entry 'swim', which needs a newer watkins_ml")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"sent": "all"}', b"\xff"])
def test_a_damaged_upload_state_only_means_sending_again(watkins, damaged, store, content):
    root = damaged("upload.json", content)
    said = watkins("sync", root)
    assert (said.status, "2 of 2 entries sent" in said.out) == (0, True), said


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"model: 1"])
def test_a_damaged_configuration_is_named(watkins, damaged, content):
    assert_one_line(watkins("train", "--resume", damaged("config.yaml", content)), 2, "config.yaml")


def test_a_backend_that_is_no_url_is_misuse(watkins):
    assert_one_line(watkins("server", "--backend", "nonsense"), 2, "--backend nonsense: not a database URL")
