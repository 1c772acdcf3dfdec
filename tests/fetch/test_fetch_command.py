"""From nothing to a trained model: fetch, prepare, train, and what a kill or Ctrl-C leaves."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typer.main import get_command

from tests.support import EXPERIMENTS, forked
from tests.support.releases import archive_zip, expected, recordings, serve_archive, serve_catalogue
from watkins_ml.cli import app
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.fetch import zips

RECIPE = EXPERIMENTS / "baseline.yaml"


def start(host, out: Path) -> subprocess.Popen:
    environment = os.environ | {"WATKINS_ARCHIVE_ENDPOINT": host.address, "HF_ENDPOINT": host.address}
    command = [sys.executable, "-m", "watkins_ml", "fetch", "archive", "--out", str(out)]
    return forked.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_fetch_prepare_train_with_no_other_step(watkins, at_host, some_cuts, store, tmp_path):
    serve_catalogue(at_host, some_cuts)
    serve_archive(at_host, archive_zip(some_cuts))
    said = watkins("fetch", "archive", "--out", "wk")
    assert said.status == 0
    prepare, train = (line.split()[1:] for line in said.out.splitlines()[-2:])
    assert (prepare[0], train) == ("prepare", ["train", "experiments/baseline.yaml"])
    assert watkins(*prepare, "--workers", "1").status == 0
    data = read_prepared(Path("data"))
    assert data.classes == ["FinWhale", "HarborSeal", "RissosDolphin"]
    assert data.summary["metadata"]["with_site"] == 36
    assert data.summary["metadata"]["columns"] == [
        "site", "latitude", "longitude", "date", "scientific_name", "family", "note",
    ]  # fmt: skip
    rows = pd.concat(data.sides.values())
    assert set(rows[rows.species == "HarborSeal"].scientific_name) == {"Phoca vitulina"}
    assert set(rows.family) == {"Balaenopteridae", "Phocidae", "Delphinidae"}
    assert (rows.tape == rows.cut_id.str[:5]).all() and rows.tape.nunique() == 12
    assert pd.read_csv("data/annotations/rejected.csv").empty
    said = watkins("train", RECIPE, "-o", "train.epochs=1", "-o", "data.batch_size=8", "-o", "train.device=cpu")
    assert said.status == 0, said.err
    (metrics,) = Path("runs").glob("*/reports/metrics.json")
    assert "control_site_accuracy" in metrics.read_text()


def test_a_table_without_any_site_is_taken_too(watkins, at_host, some_cuts):
    serve_archive(at_host, archive_zip(some_cuts))  # and no catalogue
    assert watkins("fetch", "archive", "--out", "wk").status == 0
    said = watkins("prepare", "wk/recordings", "--metadata", "wk/metadata.csv", "--workers", "1")
    assert said.status == 0
    assert json.loads(Path("data/dataset.json").read_text())["metadata"]["with_site"] == 0


def test_a_file_is_no_folder_and_nobody_is_asked(watkins, at_host, tmp_path):
    (tmp_path / "wk").write_text("mine")
    said = watkins("fetch", "archive", "--out", tmp_path / "wk")
    assert (said.status, said.err) == (2, f"watkins: --out {tmp_path / 'wk'}: a file; name a folder\n")
    assert at_host.asked == [] and (tmp_path / "wk").read_text() == "mine"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_command_goes_on_by_range(watkins, at_host, some_cuts, tmp_path, how):
    serve_catalogue(at_host, some_cuts)
    mirror = serve_archive(at_host, archive_zip(some_cuts))
    at_host.block, at_host.pause_s = 4096, 0.3
    out, part = tmp_path / "wk", tmp_path / "wk" / ".fetch" / "release.zip.part"
    at_host.ranges = False  # so that the zip's directory is not read slowly as well
    process = start(at_host, out)
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 8192) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(how)
    said = process.communicate(timeout=30)
    assert process.returncode == (1 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        assert said[1].strip() == "watkins: interrupted; the same command goes on from here"
    assert {path.name for path in out.iterdir()} == {".fetch"}
    kept = part.stat().st_size
    at_host.pause_s, at_host.ranges = 0, True
    at_host.asked.clear()
    assert watkins("fetch", "archive", "--out", out).status == 0
    assert recordings(out) == expected(some_cuts)
    assert [one.range for one in at_host.of(mirror) if one.range.endswith("-")] == [f"bytes={kept}-"]


def test_a_kill_while_unpacking_costs_only_the_file_in_progress(watkins, at_host, some_cuts, tmp_path, monkeypatch):
    serve_catalogue(at_host, some_cuts)
    serve_archive(at_host, archive_zip(some_cuts))
    original, count = zips.unpack_member, 0

    def killed(*arguments):
        nonlocal count
        count += 1
        if count == 20:
            (tmp_path / "wk" / ".fetch" / "recordings" / "FinWhale" / ".50000001.wav.partial").write_bytes(b"RI")
            raise KeyboardInterrupt
        original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(zips, "unpack_member", killed)
        assert watkins("fetch", "archive", "--out", "wk").status == 1
    staged = tmp_path / "wk" / ".fetch" / "recordings"
    before = {path.name: path.stat().st_ino for path in staged.rglob("*.wav")}
    assert len(before) == 19 and not (tmp_path / "wk" / "recordings").exists()
    assert watkins("fetch", "archive", "--out", "wk").status == 0
    assert recordings(tmp_path / "wk") == expected(some_cuts)
    after = {path.name: path.stat().st_ino for path in (tmp_path / "wk" / "recordings").rglob("*.wav")}
    assert before.items() <= after.items()


def test_a_disk_that_fills_up_all_the_same_is_one_sentence(watkins, at_host, some_cuts):
    serve_catalogue(at_host, some_cuts)
    serve_archive(at_host, archive_zip(some_cuts))
    old_handler, old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, old[1]))
        said = watkins("fetch", "archive", "--out", "wk")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, old_handler)
    assert said.status == 1 and len(said.err.splitlines()) == 1
    assert "cannot write to wk: File too large" in said.err and "same command again" in said.err
    assert watkins("fetch", "archive", "--out", "wk").status == 0
    assert recordings(Path("wk")) == expected(some_cuts)


@pytest.mark.parametrize(
    "source, extra", [("huggingface", "huggingface_hub.constants"), ("kaggle", "kagglehub.clients")]
)
def test_a_missing_extra_is_named(watkins, at_host, monkeypatch, source, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    said = watkins("fetch", source, "--out", "wk")
    assert said.status == 1 and f"{extra.partition('.')[0]} is missing" in said.err
    assert f"pip install 'watkins-ml[{source}]'" in said.err


def test_every_source_has_help_with_an_example_and_the_published_options(watkins):
    sources = get_command(app).commands["fetch"].commands
    options = {
        name: sorted(option for parameter in command.params for option in parameter.opts if option != "--help")
        for name, command in sources.items()
    }
    assert options == {"archive": ["--out"], "huggingface": ["--out", "--release"], "kaggle": ["--out"]}
    for name in sources:
        said = watkins("fetch", name, "--help").out
        assert f"Example: watkins fetch {name}" in said
        assert name == "archive" or f"watkins-ml[{name}]" in said
