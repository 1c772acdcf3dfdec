"""`make bench`: all benchmarks, one after another, and at the end one table of them.

A row is one thing that watkins_ml does beside a peer or a limit, in the same run: the speed of ours divided by that of
the other (1 is as fast), in the median, with its range, and the peak memory where it was measured. What each benchmark
prints itself says more. Those with a peer need a Python that has it, with `--peers`; `--run` adds `predict`.

Example: python benchmarks/bench.py --shared ../shared --peers ~/peers/bin/python --run runs/baseline
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
ROWS = "WATKINS_BENCH"
"""The environment variable that names the file of the rows."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def beside(what: str, other: str, speeds: Sequence[float], peak_mib: float | None = None) -> None:
    """A row for the table, if `make bench` asked for it: `speeds` of `what`, each divided by that of `other`."""
    if ROWS in os.environ:
        row = {"what": what, "beside": other, "speeds": [float(speed) for speed in speeds], "peak_mib": peak_mib}
        with open(os.environ[ROWS], "a", encoding="utf-8") as rows:
            rows.write(json.dumps(row) + "\n")


def table(rows: Path) -> pd.DataFrame:
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    return pd.DataFrame(
        {
            "ours": row["what"],
            "beside": row["beside"],
            "times as fast": f"{np.median(row['speeds']):.3f}",
            "range": f"{min(row['speeds']):.3f}–{max(row['speeds']):.3f}",
            "pairs": len(row["speeds"]),
            "peak MiB": "–" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}",
        }
        for row in found
    )


def commands(options: argparse.Namespace) -> list[tuple[list[str], dict[str, str]]]:
    """Each benchmark with its arguments and what its environment has beside ours."""
    peers = ["--peers", options.peers] if options.peers else []
    shared = ["--shared", options.shared] if options.shared else []
    predict = [(["predict_speed.py", options.run, *peers, "--rounds", "2"], {})] if options.run else []
    return [
        (["startup.py"], {}),
        (["prepare_speed.py", *shared, *peers, "--clips", "1000", "4000", "--rounds", "4"], {}),
        (["training_speed.py", "--models", "baseline", "--clips", "512", "--epochs", "9"], {}),
        (["training_speed.py", "--models", "efficientnet", "--clips", "128", "--epochs", "13"], {}),
        (["tracking_cost.py"], ONE_THREAD),
        (["study_cost.py"], ONE_THREAD),
        (["study_growth.py"], {}),
        (["frozen_cache.py"], ONE_THREAD),
        *predict,
    ]


def run_all(chosen: list[tuple[list[str], dict[str, str]]], rows: Path) -> list[str]:
    """The names of those that failed."""
    failed = []
    for command, environment in chosen:
        print(f"\n== {' '.join(command)}", flush=True)
        script = [sys.executable, str(HERE / command[0]), *command[1:]]
        if subprocess.run(script, env=os.environ | environment | {ROWS: str(rows)}).returncode:
            failed.append(command[0])
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", help="folder with data/watkins10, data/esc10 and data/watkins_full_cuts.csv")
    parser.add_argument("--peers", help="Python with librosa and opensoundscape")
    parser.add_argument("--run", help="a run directory, for predict_speed.py")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="of these benchmarks, as startup or study_cost")
    options = parser.parse_args()
    for name, is_there in (("shared", os.path.isdir), ("peers", shutil.which), ("run", os.path.exists)):
        if (given := getattr(options, name)) and not is_there(given):  # not after an hour of measuring
            parser.error(f"--{name} {given}: not found")
    chosen = [each for each in commands(options) if not options.only or Path(each[0][0]).stem in options.only]
    if unknown := set(options.only or []) - {Path(command[0]).stem for command, _ in chosen}:
        parser.error(f"--only {sorted(unknown)[0]}: no such benchmark{' without --run' * ('predict_speed' in unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.jsonl"
        rows.touch()
        try:
            failed = run_all(chosen, rows)
        except KeyboardInterrupt:
            failed = ["interrupted"]
        if rows.stat().st_size:
            print(f"\n{table(rows).to_string(index=False)}")
    if failed:
        sys.exit(f"not all measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
