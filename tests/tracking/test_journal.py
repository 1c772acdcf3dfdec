"""A journal keeps what was written whole, wherever a kill or a full disk has cut it off."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from watkins_ml.core.errors import UserError
from watkins_ml.tracking import journal

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
ENTRIES = st.lists(st.tuples(st.sampled_from(["swim", "dive", "breathe"]), VALUES), max_size=6)


def told(path: Path) -> list[tuple[str, object]]:
    return [(entry.kind, entry.said) for entry in journal.read(path)]


@given(ENTRIES, ENTRIES, st.data())
def test_what_is_left_of_a_torn_journal_is_its_whole_entries_and_more_can_follow(before, after, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        for kind, said in before:
            journal.append(path, kind, {"said": said})
        content = path.read_bytes() if before else b""
        cut = data.draw(st.integers(0, len(content)), label="cut off at")
        path.write_bytes(content[:cut])
        whole = before[: content[:cut].count(b"\n")]
        assert told(path) == whole
        for kind, said in after:
            journal.append(path, kind, {"said": said})
        assert told(path) == [*whole, *after]


def test_no_file_is_no_entry(tmp_path):
    assert journal.read(tmp_path / "journal.jsonl") == []


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"kind": "end"}', '{"time_ms": 1}', '{"kind": "epoch", "time_ms": 1}']
)
def test_a_whole_line_that_is_no_entry_is_named(tmp_path, line):
    path = tmp_path / "journal.jsonl"
    journal.append(path, "end", {"status": "FAILED"})
    with open(path, "a") as file:
        file.write(line + "\n")
    with pytest.raises(UserError, match=r"journal.jsonl: line 2 is damaged"):
        journal.read(path)
