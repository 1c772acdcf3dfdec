"""A run directory from a stranger: nothing outside of it is read into a page, sent to a server, or written to."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from watkins_ml.tracking.rundir import RunDirectory
from watkins_ml.tracking.server import client

SECRET = "the-key-of-the-house"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def secret(tmp_path) -> Path:
    """A file of the user, also as a table, a picture or a folder by its neighbours."""
    (tmp_path / "home").mkdir()
    for name in ("secret", "secret.csv", "config.yaml", "secret.png"):
        (tmp_path / "home" / name).write_text(f"key: {SECRET}\n")
    return tmp_path / "home" / "secret"


@pytest.fixture
def stranger(finished, tmp_path, store) -> Path:
    """A finished run that came from elsewhere."""
    return shutil.copytree(finished.run_dir, tmp_path / "stranger")


def point(cuts: Path, column: str, to: str) -> None:
    table = pd.read_csv(cuts, dtype=str, keep_default_na=False)
    table.loc[0, column] = to
    table.to_csv(cuts, index=False)


@pytest.mark.parametrize("column", ["picture", "sound"])
@pytest.mark.parametrize("kind", ["absolute", "upward", "linked file", "linked folder"])
def test_the_table_of_cuts_puts_nothing_into_the_page_that_lies_outside(stranger, secret, watkins, kind, column):
    entry = {"absolute": str(secret), "upward": "../home/secret", "linked file": "l", "linked folder": "l/secret"}[kind]
    if kind.startswith("linked"):
        (stranger / "l").symlink_to(secret if kind == "linked file" else secret.parent)
    point(stranger / "galleries" / "test_cuts.csv", column, entry)
    said = watkins("report", stranger, "--out", "page.html")
    assert said.status == 1 and said.err.count("\n") == 1
    assert "test_cuts.csv" in said.err and repr(entry) in said.err and "leads out of" in said.err
    assert not Path("page.html").exists()


LINKS = {
    "config.yaml": "config.yaml", "history.csv": "secret.csv", "run.json": "secret",
    "reports/metrics.json": "secret", "preds/test.csv": "secret.csv", "galleries": "", "plots": "", "reports": "",
    "plots/test_stripplot.png": "secret.png", "galleries/test_cuts.csv": "secret.csv",
    "reports/species.csv": "secret.csv",
}  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("command", ["report", "sync"])
def test_a_part_that_is_a_link_to_elsewhere_is_refused(stranger, secret, watkins, name, command):
    part = stranger / name
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    part.symlink_to(secret.parent / LINKS[name])
    said = watkins(*(("report", stranger, "--out", "page.html") if command == "report" else ("sync", stranger)))
    assert said.status == 1 and said.err.count("\n") == 1 and "leads out of" in said.err
    assert SECRET not in said.out + said.err
    assert not Path("page.html").exists() and not client().search_experiments(filter_string="name != 'Default'")


@pytest.mark.parametrize("entry", ["absolute", "../home/secret", "../home", "..", "reports/../../home/secret", ".", ""])
def test_a_journal_sends_nothing_that_lies_outside(stranger, secret, watkins, entry):
    lines = (stranger / "journal.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in lines]
    for each in changed:
        if each["kind"] == "artifacts":
            each["paths"] = [str(secret) if entry == "absolute" else entry]
    (stranger / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in changed))
    (stranger / "upload.json").unlink()
    said = watkins("sync", stranger)
    assert said.status == 1 and said.err.count("\n") == 1 and "journal.jsonl" in said.err
    sent = [path for path in Path("mlflow/artifacts").rglob("*") if path.is_file()]
    assert not [path for path in sent if SECRET.encode() in path.read_bytes()]


@pytest.mark.parametrize("folder", ["misclassified", "checkpoints", "model", "plots"])
def test_links_in_its_folders_are_not_sent(stranger, secret, watkins, folder):
    (stranger / "upload.json").unlink()
    (stranger / folder / "more").symlink_to(secret.parent)
    said = watkins("sync", stranger)
    assert said.status == 1 and f"'{folder}/more' leads out of" in said.err
    (stranger / folder / "more").unlink()
    assert watkins("sync", stranger).status == 0


def test_a_trial_that_is_a_link_to_a_run_elsewhere_is_not_sent(finished, stranger, watkins):
    (stranger / "trial-000").symlink_to(finished.run_dir)
    said = watkins("sync", stranger)
    assert said.status == 1 and "'trial-000' leads out of" in said.err


def test_links_that_stay_inside_are_as_good_as_files(stranger, watkins):
    shutil.move(stranger / "history.csv", stranger / "plots" / "h")
    (stranger / "history.csv").symlink_to("plots/h")
    assert watkins("report", stranger, "--out", "page.html").status == 0
    assert watkins("sync", stranger).status == 0


def test_nothing_is_appended_to_a_file_outside(stranger, secret, watkins):
    """The journal of a run that seems to have died is closed by `sync`: a link must not lead that to another file."""
    secret.write_text("")
    (stranger / "journal.jsonl").unlink()
    (stranger / "journal.jsonl").symlink_to(secret)
    assert "leads out of" in watkins("sync", stranger).err
    assert secret.read_text() == ""


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "journal.jsonl", "history.csv", "upload.json"])
@pytest.mark.parametrize("kind", ["pipe", "device", "giant"])
def test_what_has_no_end_is_refused(stranger, watkins, name, kind):
    (stranger / name).unlink()
    if kind == "pipe":
        os.mkfifo(stranger / name)
    elif kind == "device":
        (stranger / name).symlink_to("/dev/zero")
    else:
        (stranger / name).touch()
        os.truncate(stranger / name, 5_000_000_000)
    said = watkins("sync", stranger)
    assert said.status == 1 and said.err.count("\n") == 1 and name in said.err
    said = watkins("train", "--resume", stranger)
    assert said.status in (1, 2) and said.err.count("\n") == 1


GIANTS = [("preds/test.csv", 5_000_000_000), ("galleries/test_cuts/*.jpg", 3_000_000)]


@pytest.mark.parametrize(("name", "size"), GIANTS)
def test_a_giant_table_or_picture_is_no_page(stranger, watkins, name, size):
    for path in stranger.glob(name):
        os.truncate(path, size)
    said = watkins("report", stranger, "--out", "page.html")
    assert said.status == 1 and said.err.count("\n") == 1 and "it is not what this program writes" in said.err
    assert not Path("page.html").exists()


NAMES = ["../../escaped", "/tmp/escaped-by-name", "a/b", "..", ".", "CON", "x\n\x1b[31m", "é" * 200]


def test_the_name_of_a_run_on_the_server_is_no_path(finished, tmp_path, monkeypatch, watkins):
    project = tmp_path / "some" / "where" / "project"
    shutil.copytree(finished.folder, project)
    monkeypatch.chdir(project)
    run_id = RunDirectory(Path("runs/first")).facts.mlflow_run_id
    before = {path for path in tmp_path.rglob("*") if "project" not in path.parts}
    for name in NAMES:
        client().set_tag(run_id, "mlflow.runName", name)
        assert watkins("report", "models:/watkins-baseline@champion", "--out", "page.html").status == 0, name
        Path("page.html").unlink()
        assert {path for path in tmp_path.rglob("*") if "project" not in path.parts} == before, name
    assert not Path("/tmp/escaped-by-name").exists() and not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("kind", ["start", "model"])
def test_names_in_a_journal_are_checked(stranger, watkins, tmp_path, kind):
    change = {"start": {"experiment": "../../../escaped"}, "model": {"register_as": r"..\x"}}[kind]
    entries = [json.loads(line) for line in (stranger / "journal.jsonl").read_text().splitlines()]
    changed = [each | (change if each["kind"] == kind else {}) for each in entries]
    (stranger / "journal.jsonl").write_text("".join(json.dumps(each) + "\n" for each in changed))
    (stranger / "upload.json").unlink()
    said = watkins("sync", stranger)
    assert said.status == 1 and "cannot name a" in said.err
    assert not (tmp_path.parent / "escaped").exists()
