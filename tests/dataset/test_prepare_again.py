"""`watkins prepare` on a folder that it made before, whole or cut off: only what changed is computed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.support.folders import OTHER_FRONTEND, SIDES, killed_at, spectrograms, stamps, start, table, wait_for
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import load_side
from watkins_ml.dataset.prepare import PrepareOptions

# ---------------------------------------------------------------- incremental runs


def test_a_second_run_computes_and_touches_nothing(ocean, run, tmp_path):
    assert run(ocean).computed == 24
    before = stamps(tmp_path / "out")
    again = run(ocean)
    assert again.computed == 0
    assert stamps(tmp_path / "out") == before


def test_another_frontend_computes_everything_anew(ocean, run, tmp_path, content):
    run(ocean)
    assert run(ocean, frontend=OTHER_FRONTEND).computed == 24
    changed = content(tmp_path / "out")
    run(ocean, tmp_path / "fresh", frontend=OTHER_FRONTEND)
    assert changed == content(tmp_path / "fresh")


@pytest.mark.parametrize("change", [{"split": "random"}, {"seed": 1}, {"group_regex": r"^.{6}"}])
def test_another_split_touches_no_spectrogram(ocean, run, tmp_path, content, change):
    out = tmp_path / "out"
    run(ocean)
    before = {name: stamp for name, stamp in stamps(out).items() if name.startswith("spectrograms/")}
    sides = content(out)["annotations/train.csv"]
    assert run(ocean, **change).computed == 0
    assert before.items() <= stamps(out).items()
    assert content(out)["annotations/train.csv"] != sides
    run(ocean, tmp_path / "fresh", **change)
    assert content(out) == content(tmp_path / "fresh")


def add(ocean: Path, cut) -> None:
    cut(ocean / "Orca" / "00001777.wav", 700)


def change(ocean: Path, cut) -> None:
    cut(ocean / "Orca" / "00001000.wav", 700, seconds=0.06)


def delete(ocean: Path, cut) -> None:
    (ocean / "Orca" / "00001000.wav").unlink()


def spoil(ocean: Path, cut) -> None:
    (ocean / "Orca" / "00001000.wav").write_text("no longer audio")


def rename(ocean: Path, cut) -> None:
    (ocean / "Orca" / "00001000.wav").rename(ocean / "Walrus" / "01009999.wav")


def add_a_namesake(ocean: Path, cut) -> None:
    cut(ocean / "Orca" / "later" / "00001000.wav", 700)


@pytest.mark.parametrize(
    ("edit", "computed"), [(add, 1), (change, 1), (delete, 0), (spoil, 1), (rename, 1), (add_a_namesake, 2)]
)
def test_after_an_edit_the_folder_is_as_if_made_anew(ocean, cut, run, tmp_path, content, edit, computed):
    run(ocean)
    edit(ocean, cut)
    assert run(ocean).computed == computed
    run(ocean, tmp_path / "fresh")
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_a_lost_spectrogram_is_made_again(ocean, run, tmp_path, content):
    out = tmp_path / "out"
    run(ocean)
    before = content(out)
    next(iter(spectrograms(out).values())).unlink()
    assert run(ocean).computed == 1
    assert content(out) == before


def into_old_layout(out: Path) -> None:
    """A folder as earlier versions left it: a folder for each side, and one for what is left out."""
    for side in SIDES:
        rows = table(out, side)
        moved = [name.replace("spectrograms/", f"spectrograms/{side}/") for name in rows["spectrogram"]]
        for name, place in zip(rows["spectrogram"], moved, strict=True):
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            (out / name).rename(out / place)
        rows.assign(spectrogram=moved).to_csv(out / "annotations" / f"{side}.csv", index=False)
    left_out = out / "spectrograms" / ".staging" / "Orca" / "00009999.pt"
    left_out.parent.mkdir(parents=True)
    left_out.write_bytes(b"of a recording that was left out")
    for species in ("Orca", "Walrus"):
        (out / "spectrograms" / species).rmdir()
    (out / "spectrograms" / ".frontend").write_text(FrontendSettings().digest())


def test_a_folder_of_an_earlier_version_is_read_as_it_is_and_prepared_into_the_new_layout(
    ocean, run, tmp_path, content
):
    out = tmp_path / "out"
    run(ocean)
    expected, digest = content(out), read_prepared(out).digest
    into_old_layout(out)
    old = read_prepared(out)
    assert old.digest == digest
    assert all(len(load_side(old, side)) == len(old.sides[side]) for side in SIDES)
    begun = load_side(old, "val").spectrograms
    assert run(ocean).computed == 24
    assert content(out) == expected
    assert sorted(path.name for path in (out / "spectrograms").iterdir()) == [".frontend", "Orca", "Walrus"]
    old.check()  # who began to read it may go on: its digest is the same
    assert torch.equal(load_side(read_prepared(out), "val").spectrograms, begun)


def test_files_of_others_among_the_spectrograms_stay(ocean, run, tmp_path):
    run(ocean)
    mine = tmp_path / "out" / "spectrograms" / "Orca" / "notes.txt"
    mine.write_text("years of work")
    run(ocean, frontend=OTHER_FRONTEND)
    assert mine.read_text() == "years of work"


def test_a_changed_recording_breaks_the_seal_before_its_spectrogram_is_written(ocean, cut, run, tmp_path, monkeypatch):
    """A run that is killed in between leaves no finished data set with spectrograms of other recordings."""
    run(ocean)
    change(ocean, cut)
    monkeypatch.setattr("watkins_ml.dataset.prepare.annotate", lambda *_: pytest.fail("as if killed here"))
    with pytest.raises(pytest.fail.Exception):
        run(ocean)
    with pytest.raises(UserError, match="not finished"):
        read_prepared(tmp_path / "out")


# ---------------------------------------------------------------- killed and continued


SHORT = FrontendSettings(frames=50)


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "another split and files", "another frontend"])
def test_a_run_killed_at_any_step_continues_to_the_same_result(
    tmp_path, make_ocean, cut, monkeypatch, content, run, before
):
    """Every second rename, removal and table in turn, since many are alike; which ones differs between the cases."""
    audio, base, fresh = make_ocean(tmp_path / "audio", tapes=3, cuts=1), tmp_path / "base", tmp_path / "fresh"
    if before == "another split and files":
        run(audio, base, seed=3, frontend=SHORT)
        sides = {side: table(base, side)["path"].tolist() for side in SIDES}
        for seed, path in enumerate(sorted(audio.rglob("*.wav"))):
            cut(path, 800 + seed, seconds=0.06)
    elif before == "another frontend":
        run(audio, base, frontend=SHORT.model_copy(update={"n_fft": 4096}))
    run(audio, fresh, frontend=SHORT)
    expected = content(fresh)
    if before == "another split and files":
        assert sides != {side: table(fresh, side)["path"].tolist() for side in SIDES}
    options = PrepareOptions(workers=1, min_clips=3, frontend=SHORT)
    step, out = 2 if before == "another frontend" else 1, tmp_path / "out"
    while True:
        shutil.rmtree(out, ignore_errors=True)
        if base.exists():
            shutil.copytree(base, out)
        if not killed_at(step, monkeypatch, audio, out, options):
            break
        run(audio, out, frontend=SHORT)
        assert content(out) == expected, f"killed at step {step}"
        step += 2
    assert step > 10


@pytest.mark.slow
def test_a_process_killed_at_random_moments_continues_to_the_same_result(tmp_path, make_ocean, run, content):
    audio, out, fresh = make_ocean(tmp_path / "audio", cuts=12), tmp_path / "out", tmp_path / "fresh"
    begin = time.monotonic()
    run(audio, fresh)
    duration = time.monotonic() - begin
    kills = []
    for _ in range(3):
        process = start(audio, "--out", out, "--workers", 1)
        wait_for(out / "annotations" / ".scan.jsonl", process)
        delay = random.uniform(0, duration / 2)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills.append((round(delay, 3), process.returncode))
    process = start(audio, "--out", out, "--workers", 1)
    assert process.wait() == 0, kills
    assert content(out) == content(fresh), kills
    assert not list(out.rglob("*.partial")), kills


def descendants(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    children = {int(child) for task in tasks for child in task.read_text().split()}
    return children.union(*map(descendants, children))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_two_workers_give_the_same_as_one_and_die_with_a_killed_run(tmp_path, make_ocean, run, content):
    audio, out = make_ocean(tmp_path / "audio", tapes=5, cuts=12), tmp_path / "out"
    run(audio, tmp_path / "fresh", workers=1)
    process = start(audio, "--out", out, "--workers", 2)
    wait_for(out / "spectrograms" / "Orca", process)  # the first worker has begun to write
    workers = descendants(process.pid)
    process.kill()
    process.wait()
    end = time.monotonic() + 20
    while (left := {pid for pid in workers if alive(pid)}) and time.monotonic() < end:
        time.sleep(0.05)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert len(workers) >= 2
    assert not left, "worker processes outlive a killed run"
    shutil.rmtree(out)
    assert run(audio, workers=2).computed == 120
    assert content(out) == content(tmp_path / "fresh")
