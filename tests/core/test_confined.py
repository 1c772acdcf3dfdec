"""No path that comes from outside leads out of the folder that it belongs to."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from watkins_ml.core.confined import inside, plain_file, plain_files
from watkins_ml.core.errors import UserError

PARTS = st.sampled_from(["a", "b", "..", ".", "", "up", "down", "round", "there", "é", "a\\..", "\0", "C:", "x" * 300])


@pytest.fixture
def folder(tmp_path):
    """A folder with links: `up` leads out, `down` does not, `round` to itself, `there` to a file outside."""
    home = tmp_path / "home"
    (home / "a" / "b").mkdir(parents=True)
    (home / "a" / "file").write_text("mine")
    (tmp_path / "secret").write_text("not mine")
    (home / "up").symlink_to("..")
    (home / "down").symlink_to("a/b")
    (home / "round").symlink_to("round")
    (home / "there").symlink_to(tmp_path / "secret")
    return home


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(PARTS, max_size=6), root=st.sampled_from(["", "", "/", "//"]))
def test_whatever_is_allowed_lies_inside_also_after_following_links(folder, parts, root):
    text = root + "/".join(parts)
    try:
        path = inside(folder, text, "table.csv")
    except UserError as refusal:
        assert str(refusal).startswith("table.csv: ") and "\n" not in str(refusal)
        return
    assert folder.resolve() in path.resolve().parents
    assert not os.path.isabs(text) and ".." not in text.split("/")


@given(names=st.lists(st.text("abcé .-", min_size=1).filter(lambda name: name.strip(".")), min_size=1, max_size=4))
def test_plain_relative_paths_are_allowed(tmp_path_factory, names):
    folder = tmp_path_factory.getbasetemp()
    assert inside(folder, "/".join(names), "x") == folder.joinpath(*names)


@pytest.mark.parametrize("entry", ["/etc/passwd", "../secret", "a/../../secret", "up/secret", "there", "up"])
def test_what_leads_out_is_told_with_the_entry_and_where_it_stands(folder, entry):
    told = r"cuts\.csv: .* leads out of .*home; nothing outside is read, written or sent"
    with pytest.raises(UserError, match=told) as said:
        plain_file(folder, entry, "cuts.csv")
    assert repr(entry) in str(said.value)


@pytest.mark.parametrize("entry", ["", ".", "\0", None, 7])
def test_what_is_no_path_is_refused(folder, entry):
    with pytest.raises(UserError, match="names no file"):
        inside(folder, entry, "cuts.csv")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes and devices among files")
def test_pipes_devices_folders_and_giants_are_no_plain_files(folder):
    os.mkfifo(folder / "pipe")
    (folder / "giant").touch()
    os.truncate(folder / "giant", 5_000_000_000)
    for entry, why in {"pipe": "no regular file", "a": "no regular file", "giant": "has 5,000 MB, more than 1 MB",
                       "none": "cannot be read", "round": "cannot be"}.items():  # fmt: skip
        with pytest.raises(UserError, match=why):
            plain_file(folder, entry, "x", most=1_000_000)
    assert plain_file(folder, "a/file", "x", most=1_000_000).read_text() == "mine"


def test_a_folder_with_a_link_that_leads_out_is_refused_whole(folder):
    assert [path.name for path in plain_files(folder, "a", "x")] == ["file"]
    (folder / "a" / "link").symlink_to("../down")
    assert [path.name for path in plain_files(folder, "a", "x")] == ["file"]
    (folder / "a" / "b" / "deep").symlink_to(folder.parent)
    with pytest.raises(UserError, match="'a/b/deep' leads out"):
        list(plain_files(folder, "a", "x"))
