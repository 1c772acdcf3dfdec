"""Speed and memory of `watkins prepare`, beside a plain librosa loop and the floor of what this machine can do.

Generates archives with the species and tapes of the Watkins archive and with rates and lengths as its cuts have; with
`--shared` watkins10 and ESC-10 too. Every way makes the same spectrograms of the same excerpts (one a clip, up to 16
more of a long one), in turns, each from a process of its own:

- watkins: the command itself, with everything that it does: scan, checks, digests, files on the disk, split, tables;
- librosa: `librosa.load`, `melspectrogram`, `power_to_db`, one clip after the other; and in a pool of all cores;
- floor: soundfile, soxr, FFT and mel in all cores with the fastest parts found, into one array in memory. It is told
  beforehand where the excerpts lie, and neither checks nor writes anything;
- floor, digests and files: the same, with the digests of file and sound, and a file a spectrogram.

The start is what the same way takes for 120 clips of 50 ms, measured apart in every round (three times; the median
counts); clips a second are beyond it. Memory is the peak of the whole process tree, with shared pages divided among
those who share them (PSS).
`--before` names another checkout, whose command takes turns with this one.

Example: python benchmarks/prepare_speed.py --shared ../shared --peers ~/peers/bin/python --clips 1000 4000 15000
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
from bench import beside
from prepare_ways import CORES, MOST_WINDOWS, WAYS, Job, all_starts

ROOT = Path(__file__).resolve().parents[1]
REAL = {"watkins10": r"^(\d+_[A-Z]+_\d+)_", "esc10": r"^\d-(\d+)-"}
RATES = {  # native rates of 1,325 Watkins cuts, rounded, with their shares
    81_920: 0.36, 80_000: 0.14, 60_606: 0.09, 40_960: 0.09, 10_240: 0.11, 166_600: 0.04, 20_000: 0.05, 30_000: 0.04,
    14_900: 0.04, 5_120: 0.04,
}  # fmt: skip
SECONDS = (0.05, 0.70, 0.97, 1.20, 1.42, 1.58, 1.91, 2.42, 3.11, 4.57, 23.2)
"""Deciles of the lengths of 1,329 Watkins cuts."""


def generate(folder: Path, table: Path | None, clips: int, longest: float = SECONDS[-1]) -> None:
    """About so many clips of noise in `folder`, each another stretch of it; tapes have their own rate and colour."""
    sys.path.append(str(ROOT / "experiments"))
    from archive import draw_table, read_labels, thin
    from watkins_ml.demo.tape import write_wav

    labels = read_labels(draw_table() if table is None else table)
    labels = thin(labels, min(1.0, clips / len(labels)), None, 0)
    rng = np.random.default_rng(0)
    rates = dict(zip(set(labels["tape"]), rng.choice(list(RATES), labels["tape"].nunique(), p=list(RATES.values()))))  # noqa: B905
    noise = (3_000 * rng.standard_normal(1 << 23)).astype(np.int16)
    for row in labels.itertuples():
        seconds = min(longest, np.interp(rng.random(), np.linspace(0, 1, len(SECONDS)), SECONDS))
        samples, rate = round(seconds * rates[row.tape]), int(rates[row.tape])
        start = int(rng.integers(len(noise) - samples))
        (folder / row.species).mkdir(parents=True, exist_ok=True)
        write_wav(folder / row.species / f"{row.clip_id}.wav", noise[start : start + samples], rate)


def excerpts(folder: Path) -> list[Job]:
    """Of each usable file what its spectrograms are made of."""
    from watkins_ml.audio.decode import AudioError
    from watkins_ml.audio.frontend import Frontend
    from watkins_ml.dataset.scan import scan

    frontend, jobs = Frontend(), []
    for candidate in scan(folder, "^.")[0]:
        try:
            recording = frontend.read(folder / candidate.path, MOST_WINDOWS)
        except AudioError:
            continue
        middle = (recording.starts[0] + recording.starts[-1]) // 2
        jobs.append((str(folder / candidate.path), list(recording.starts), middle, len(recording.waveform)))
    return jobs


COMMANDS = ("watkins", "before")
STARTS = 3
"""How often the start is measured in a round; what small archives take beyond it is hardly longer."""


# ---------------------------------------------------------------- measuring


class Peak(threading.Thread):
    """Watches how much memory a process and all its descendants hold together."""

    def __init__(self, pid: int):
        super().__init__(daemon=True)
        self.pid, self.mib, self.spent, self.done = pid, 0.0, {}, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            alive = tree(self.pid)
            self.mib = max(self.mib, sum(map(held, alive)))
            self.spent |= {each: max(processors(each), self.spent.get(each, 0.0)) for each in alive}

    @property
    def processors(self) -> float:
        """Seconds, but for the last fifth of a second of each process; a parent that waits does not see all of them."""
        return sum(self.spent.values())


def tree(pid: int) -> list[int]:
    try:
        below = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    except OSError:
        return []
    return [pid, *(each for child in below for each in tree(int(child)))]


def held(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def processors(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def timed(command: list[str], root: Path) -> tuple[float, float, float, str]:
    """Seconds, seconds of processors and peak MiB of a command and its children, and what it complained of."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile("w+") as said:
        started = time.perf_counter()
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said, cwd=root)
        peak = Peak(child.pid)
        peak.start()
        status = child.wait()
        seconds = time.perf_counter() - started
        peak.done.set()
        peak.join()
        said.seek(0)
        problem = (said.read().strip().splitlines() or [f"status {status}"])[-1] if status else ""
    return seconds, peak.processors, peak.mib, problem


def measure(way: str, archive: Archive, options: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        root = options.before if way == "before" else ROOT
        if way in COMMANDS:
            command = [sys.executable, "-m", "watkins_ml", "prepare", str(archive.folder), "--out", folder]
            command += ["--group-regex", archive.tape, "--min-clips", "2"]
        else:
            python = options.peers if "librosa" in way else sys.executable
            ways = Path(__file__).resolve().with_name("prepare_ways.py")
            command = [python, str(ways), way, str(archive.jobs), folder]
        seconds, spent, peak, problem = timed(command, root)
    if problem:
        sys.exit(f"{way}: {problem}")
    return {"archive": archive.name, "way": way, "seconds": seconds, "processors": spent, "peak": peak}


class Archive:
    """Recordings to prepare, and for the other ways what to make of them."""

    def __init__(self, name: str, folder: Path, tape: str, jobs: Path):
        self.name, self.folder, self.tape, self.jobs = name, folder, tape, jobs
        found = excerpts(folder)
        jobs.write_text(json.dumps(found))
        self.clips, self.spectrograms = len(found), sum(len(all_starts(job)) for job in found)


def archives(options: argparse.Namespace, work: Path) -> list[Archive]:
    """The first is the tiny one, by which the start is known."""
    made = []
    sizes = {"start": (120, 0.05), **{f"{clips:,} clips": (clips, SECONDS[-1]) for clips in options.clips}}
    for name, (clips, longest) in sizes.items():
        table = options.shared / "data" / "watkins_full_cuts.csv" if options.shared else None
        folder = work / name.replace(" ", "-")
        generate(folder, tiny(clips) if name == "start" else table, clips, longest)
        made.append(Archive(name, folder, r"^.{5}", work / f"{folder.name}.json"))
    if options.shared:
        for name, tape in REAL.items():
            made.append(Archive(name, options.shared / "data" / name, tape, work / f"{name}.json"))
    return made


def tiny(clips: int) -> pd.DataFrame:
    names = [f"{clip // 4:05d}{clip:03d}" for clip in range(clips)]
    return pd.DataFrame({"clip_id": names, "species": [f"Species{clip // 4 % 3}" for clip in range(clips)]})


def table(found: pd.DataFrame, archive: Archive) -> pd.DataFrame:
    """A row a way: clips a second beyond the start and ours in relation to it, medians over rounds (range)."""
    start = found[found["archive"] == "start"].groupby(["round", "way"]).median(numeric_only=True)
    mine = found[found["archive"] == archive.name].set_index(["round", "way"])
    speed = archive.clips / (mine["seconds"] - start["seconds"].reindex(mine.index))
    work = 1000 * (mine["processors"] - start["processors"].reindex(mine.index)) / archive.clips
    rows = {}
    for way in mine.index.unique("way"):
        ratios = (speed.xs("watkins", level="way") / speed.xs(way, level="way")).dropna()
        peak = mine["peak"].xs(way, level="way").max()
        if way != "watkins":
            beside(f"prepare, {archive.name}", way, ratios, mine["peak"].xs("watkins", level="way").max())
        rows[way] = {
            "clips/s": spread(speed.xs(way, level="way"), "{:.0f}"),
            "ours, times this": spread(ratios, "{:.2f}"),
            "whole, s": spread(mine["seconds"].xs(way, level="way"), "{:.1f}"),
            "its start, s": spread(start["seconds"].xs(way, level="way"), "{:.1f}"),
            "of processors, ms a clip": spread(work.xs(way, level="way"), "{:.1f}"),
            "peak MiB": f"{peak:.0f}",
        }
    return pd.DataFrame(rows).T


def spread(values: pd.Series, form: str) -> str:
    values = values.dropna()
    middle, least, most = (form.format(value) for value in (values.median(), values.min(), values.max()))
    return middle if len(values) < 2 else f"{middle} ({least}–{most})"


def growth(found: pd.DataFrame, sized: list[Archive]) -> str:
    """The straight line through what the command took for archives of several sizes, and how far they are from it."""
    clips = np.array([archive.clips for archive in sized])
    mine = found[found["way"] == "watkins"].groupby("archive")["seconds"].median()
    seconds = np.array([mine[archive.name] for archive in sized])
    slope, begin = np.polyfit(clips, seconds, 1)
    off = np.abs(seconds / (begin + slope * clips) - 1).max()
    peak = found[found["way"] == "watkins"].groupby("archive")["peak"].max()
    return (
        f"growth: {1000 * slope:.2f} ms a clip and {begin:.1f} s, at most {off:.0%} off a straight line; peak memory "
        + ", ".join(f"{peak[archive.name]:.0f} MiB at {archive.clips:,}" for archive in sized)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, nargs="+", default=[1000], help="sizes of generated archives")
    parser.add_argument("--shared", type=Path, help="folder with data/watkins10, data/esc10 and the table of labels")
    parser.add_argument("--peers", help="Python with librosa; without, it is left out")
    parser.add_argument("--most", type=int, default=4000, help="librosa is left out for archives of more clips")
    parser.add_argument("--before", type=Path, help="another checkout of watkins_ml to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where archives and results lie meanwhile (1 GB for 1,000 clips)")
    options = parser.parse_args()
    for name in ("shared", "before", "work"):
        setattr(options, name, getattr(options, name) and getattr(options, name).absolute())
    if min(options.clips) < 500 or options.rounds < 1:
        parser.error("--clips must be 500 or more, --rounds 1 or more")
    if options.shared and not (options.shared / "data" / "watkins_full_cuts.csv").exists():
        parser.error(f"--shared {options.shared}: has no data/watkins_full_cuts.csv")
    if options.before and not (options.before / "watkins_ml").is_dir():
        parser.error(f"--before {options.before}: not a checkout of watkins_ml")
    if options.work and not options.work.is_dir():
        parser.error(f"--work {options.work}: no such folder")
    if options.peers and not shutil.which(options.peers):
        parser.error(f"--peers {options.peers}: not a Python that can be run")
    ways = ["watkins", *(["before"] if options.before else []), *(way for way in WAYS if "floor" in way)]
    ways += [way for way in WAYS if "librosa" in way and options.peers]
    import torch

    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        made, found = archives(options, Path(folder)), []
        for turn in range(options.rounds):
            for archive in made:
                for way in ways[:: -1 if turn % 2 else 1] * (STARTS if archive is made[0] else 1):
                    if "librosa" not in way or archive.clips <= options.most:
                        found.append(measure(way, archive, options) | {"round": turn})
                        print(found[-1], file=sys.stderr)
    found = pd.DataFrame(found)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {CORES} cores, torch {torch.__version__}, {options.rounds} rounds in turns, medians (range)")
    for archive in made[1:]:
        print(f"\n{archive.name}: {archive.clips:,} usable clips, {archive.spectrograms:,} spectrograms")
        print(table(found, archive).to_string(), flush=True)
    sized = [archive for archive in made if archive.name.endswith(" clips")]
    if len(sized) > 1:
        print("\n" + growth(found, sized))


if __name__ == "__main__":
    main()
