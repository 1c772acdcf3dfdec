"""Is what nobody has listened to silence? Two trainings on partly reviewed recordings, scored by what is known.

`masked`: a window counts for a species only where that is known (`--task labels --reviewed spans`). `unmarked is
noise`: every window without a call counts as one without (`--reviewed all`). Each recording is held out once; both are
scored on those windows of it of which something is known: accuracy and F1 at the threshold that validation gave, and
average precision, with 95 % intervals from a bootstrap over recordings ("tapes"), paired. Finished folds are kept, so
an interrupted call goes on where it was.

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
from watkins_ml.evaluation.intervals import (
    DRAWS,
    QUANTITIES,
    Interval,
    paired_difference,
    percentiles,
    score_intervals,
    tape_draws,
    verdict,
)

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


def on_known(tables: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """What both ways say of the windows of which something is known, and what is: path, tape, targets, answers."""
    known = tables["masked"][decode(tables["masked"]["targets"], 1)[:, 0] >= 0]
    return {
        way: known[["tape", "targets"]].join(each[["answers", f"p_{SPECIES}"]]).reset_index()
        for way, each in tables.items()
    }


def average_precision_of(tables: dict[str, pd.DataFrame]) -> tuple[dict[str, Interval], Interval]:
    """Average precision of each way, and how far masked is above the other."""
    known = tables["masked"]
    true = decode(known["targets"], 1)[:, 0] == 1
    rows, times = tape_draws(known["tape"], DRAWS)
    weights = np.vstack([np.ones(times.shape[1]), times])[:, rows]
    drawn = {
        way: weighted_average_precision(true, each[f"p_{SPECIES}"].to_numpy(), weights) for way, each in tables.items()
    }
    gain = drawn["masked"] - drawn["unmarked is noise"]
    found = {way: percentiles(float(each[0]), each[1:]) for way, each in drawn.items()}
    return found, percentiles(float(gain[0]), gain[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/samana")
    parser.add_argument("--out", type=Path, default=Path("results/masked"))
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=2, help="of the trainings")
    options = parser.parse_args()
    folder = options.out.resolve()
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    table, said = pd.DataFrame(index=list(WAYS)), []
    for seed in range(options.seeds):
        given = options.shared.resolve(), folder, options.epochs, seed
        tables = on_known({way: cross_validated(way, *given) for way in WAYS})
        for quantity, title in QUANTITIES.items():
            table[f"{title}, seed {seed}"] = [str(score_intervals(each)[quantity]) for each in tables.values()]
            gain = paired_difference(tables["unmarked is noise"], tables["masked"])[quantity]
            said.append(f"seed {seed}: {verdict(gain, 'unmarked is noise', 'masked', title)}")
        found, gain = average_precision_of(tables)
        table[f"average precision, seed {seed}"] = [str(found[way]) for way in WAYS]
        said.append(f"seed {seed}: {verdict(gain, 'unmarked is noise', 'masked', 'average precision')}")
    windows, recordings = len(tables["masked"]), tables["masked"]["tape"].nunique()
    print(f"\n{windows:,} windows of {recordings} recordings, each held out once:\n")
    print_table(table.T)
    print("", *said, sep="\n- ")


if __name__ == "__main__":
    main()
