"""Is what nobody has listened to silence? Two trainings on partly reviewed recordings, scored by what is known.

`masked`: a window counts for a species only where that is known (`--task labels --reviewed spans`). `unmarked is
noise`: every window without a call counts as one without (`--reviewed all`). Each recording is held out once; both are
scored on those windows of it of which something is known, by average precision over all of them, with 95 % intervals
from a bootstrap over recordings, paired. Finished folds are kept, so an interrupted call goes on where it was.

Example: python experiments/masked.py ../shared --out results/masked
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from real_data import RECIPES, print_table, watkins

from watkins_ml.dataset.targets import decode
from watkins_ml.evaluation.average_precision import weighted_average_precision
from watkins_ml.evaluation.intervals import DRAWS, Interval, percentiles, tape_draws, verdict

SPECIES = "Humpback"
WAYS = {"masked": "spans", "unmarked is noise": "all"}
"""What `--reviewed` says, by way."""
FRONTEND = ("--sample-rate", "2000", "--seconds", "3.88", "--mels", "32", "--overlap", "0")
TRAINING = ("data.batch_size=16", "augment.time_roll=false", "optim.lr=0.001")


def write_tables(tables: Path, folder: Path) -> list[str]:
    """What the tables of `…allcalls` and `…allnoise` and their comments mean, as options of `watkins prepare`."""
    folder.mkdir(parents=True, exist_ok=True)
    kinds = {path.name: "noise" if "allnoise" in path.name else "call" for path in sorted(tables.iterdir())}
    index, labels = folder / "index.csv", folder / "labels.csv"
    index.write_text("table,label\n" + "".join(f"{name},{kind}\n" for name, kind in kinds.items()))
    labels.write_text(f"label,species\ncall,{SPECIES}\nc,{SPECIES}\nnoise,background\nn,background\nu,?\n")
    return ["--table-index", str(index), "--labels", str(labels), "--label-column", "Prediction/Comments"]


def cross_validated(way: str, shared: Path, folder: Path, epochs: int, seed: int) -> pd.DataFrame:
    """The predictions of every window by the network that had its recording held out."""
    name = way.replace(" ", "-")
    data = shared / "data" / "samana"
    options = write_tables(data / "tables", folder / "tables")
    watkins(
        folder, "prepare", str(data / "audio"), "--annotations", str(data / "tables"), *options, *FRONTEND,
        "--reviewed", WAYS[way], "--task", "labels", "--background-ratio", "1000", "--out", f"data-{name}",
    )  # fmt: skip
    given = (f"data.dir=data-{name}", f"train.epochs={epochs}", f"train.seed={seed}", *TRAINING)
    overrides = [part for text in given for part in ("-o", text)]
    run = f"{name}-{seed}"
    folds = ("--fold-regex", r"_(\d{8}_\d{6})", "--name", run)
    watkins(folder, "crossval", str(RECIPES / "baseline.yaml"), *overrides, *folds)
    text = {"path": str, "tape": str, "targets": str, "answers": str}
    return pd.read_csv(folder / "runs" / run / "preds" / "test.csv", dtype=text).set_index("path")


def scores_of(tables: dict[str, list[pd.DataFrame]]) -> tuple[dict[str, Interval], Interval, int, int]:
    """Average precision of both ways and their difference, the mean over seeds, on the windows that `masked` knows."""
    known = tables["masked"][0]
    known = known[decode(known["targets"], 1)[:, 0] >= 0]
    true = decode(known["targets"], 1)[:, 0] == 1
    rows, times = tape_draws(known["tape"], DRAWS)
    weights = np.vstack([np.ones(times.shape[1]), times])[:, rows]
    drawn = {
        way: np.mean(
            [
                weighted_average_precision(true, each[f"p_{SPECIES}"].loc[known.index].to_numpy(), weights)
                for each in of
            ],
            axis=0,
        )
        for way, of in tables.items()
    }
    usable = np.isfinite(np.sum(list(drawn.values()), axis=0))  # a draw may hold no call
    found = {way: percentiles(float(each[0]), each[1:][usable[1:]]) for way, each in drawn.items()}
    gain = drawn["masked"] - drawn["unmarked is noise"]
    return found, percentiles(float(gain[0]), gain[1:][usable[1:]]), len(known), int(known["tape"].nunique())


def _drawn(probabilities: pd.Series, true: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weighted_average_precision(true, probabilities.to_numpy(), weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/samana")
    parser.add_argument("--out", type=Path, default=Path("results/masked"))
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=2, help="trainings a fold, whose scores are averaged")
    options = parser.parse_args()
    folder = options.out.resolve()
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    tables = {
        way: [
            cross_validated(way, options.shared.resolve(), folder, options.epochs, seed)
            for seed in range(options.seeds)
        ]
        for way in WAYS
    }
    found, gain, windows, recordings = scores_of(tables)
    print(f"\n{windows:,} windows of {recordings} recordings, each held out once; average precision:\n")
    print_table(pd.DataFrame({way: {"baseline CNN": str(interval)} for way, interval in found.items()}))
    print(f"\n{verdict(gain, 'unmarked is noise', 'masked', 'average precision').replace('tapes', 'recordings')}")


if __name__ == "__main__":
    main()
