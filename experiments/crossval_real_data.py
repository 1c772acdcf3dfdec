"""Cross-validation by tape on real recordings: the tables of the README, through the `watkins` command alone.

For each data set: prepare, cross-validate the baseline, EfficientNet-B0 from scratch and from ImageNet weights on the
same folds, compare. Finished folds are kept, so a call that was interrupted goes on where it was.

Example: python experiments/crossval_real_data.py ../shared --out results/crossval
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from real_data import watkins

from watkins_ml.evaluation.intervals import Interval, paired_difference, verdict

RECIPES = Path(__file__).resolve().parent
MODELS = {
    "baseline": "baseline CNN",
    "scratch": "EfficientNet-B0, from scratch",
    "imagenet": "EfficientNet-B0, ImageNet",
}
FEW = {  # the recipes are made for ten thousand recordings; these data sets have a few hundred
    "baseline": ["data.batch_size=8", "train.early_stopping_patience=10"],
    "scratch": ["data.batch_size=8", "train.early_stopping_patience=10", "model.weights=none", "model.freeze_depth=0"],
    "imagenet": ["data.batch_size=16", "model.weights={weights}"],
}


@dataclass(frozen=True)
class DataSet:
    """Where real recordings lie, what their tapes and folds are, and how long to train on them."""

    audio: str
    group_regex: str
    epochs: dict[str, int]
    folds: tuple[str, ...] = ("--folds", "5")
    prepare: tuple[str, ...] = ()
    overrides: dict[str, list[str]] = field(default_factory=dict)


WATKINS_CUT = r"^(\d+_[A-Z]+_\d+)_"
EPOCHS = {"baseline": 20, "scratch": 15, "imagenet": 10}
FROZEN = {"imagenet": ["model.freeze_depth=6", "optim.lr=0.0006", "augment.time_roll=false"]}  # README, "Searching"
BAND = ("--sample-rate", "10000", "--no-upsampling")  # 5 kHz of sound: a higher band would cost recordings and species

DATA_SETS = {
    "watkins10": DataSet("watkins10", WATKINS_CUT, EPOCHS, overrides=FROZEN),
    "watkins10-band": DataSet("watkins10", WATKINS_CUT, EPOCHS, prepare=BAND, overrides=FROZEN),
    "esc10": DataSet(
        "esc10", r"^\d+-(\d+)-", {"baseline": 40, "scratch": 30, "imagenet": 20}, ("--fold-regex", r"^(\d)-")
    ),
}
CONTROLS = {
    "control_tape_accuracy": "looking up the tape",
    "control_rate_duration_accuracy": "sample rate and duration",
}


def prepare(name: str, shared: Path, folder: Path) -> None:
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    audio, data = shared / "data" / DATA_SETS[name].audio, DATA_SETS[name]
    watkins(folder, "prepare", str(audio), "--group-regex", data.group_regex, *data.prepare)


def cross_validate(name: str, model: str, shared: Path, folder: Path, run: str, *overrides: str) -> Path:
    """Cross-validate one model on one data set under the name `run`; the parent's run directory."""
    data, weights = DATA_SETS[name], shared / "weights" / "efficientnet_b0_imagenet.pth"
    given = [text.format(weights=weights) for text in FEW[model]]
    given += [f"train.epochs={data.epochs[model]}", *data.overrides.get(model, []), *overrides]
    recipe = RECIPES / f"{'baseline' if model == 'baseline' else 'efficientnet'}.yaml"
    options = [part for text in given for part in ("-o", text)]
    watkins(folder, "crossval", str(recipe), *options, *data.folds, "--name", run)
    return folder / "runs" / run


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "reports" / "metrics.json").read_text())


def scored(run: Path, quantity: str) -> Interval:
    found = metrics(run)
    return Interval(*(found.get(f"test_{quantity}{end}", float("nan")) for end in ("", "_low", "_high")))


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "preds" / "test.csv", dtype={"path": str, "tape": str}, keep_default_na=False)


def column(runs: dict[str, Path]) -> dict[str, str]:
    """One data set's scores and controls, as the README shows them."""
    cells = {}
    for model, run in runs.items():
        cells[f"{MODELS[model]}: accuracy"] = str(scored(run, "accuracy"))
        cells[f"{MODELS[model]}: macro F1"] = str(scored(run, "macro_f1"))
    for key, title in CONTROLS.items():
        cells[f"no audio: {title}"] = f"{metrics(next(iter(runs.values())))[key]:.1%}"
    return cells


def differences(runs: dict[str, Path]) -> list[str]:
    """Each model against the one before it, in a sentence."""
    said, names = [], list(runs)
    for first, second in itertools.pairwise(names):
        found = paired_difference(predictions(runs[first]), predictions(runs[second]))
        said.append(verdict(found["macro_f1"], MODELS[first], MODELS[second]))
    return said


def print_table(table: pd.DataFrame) -> None:
    print("| | " + " | ".join(table.columns) + " |\n|---" + "|---" * len(table.columns) + "|")
    for row, cells in table.iterrows():
        print(f"| {row} | " + " | ".join(cells.fillna("–")) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins10, data/esc10 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/crossval"))
    parser.add_argument("--only", choices=DATA_SETS, nargs="+", default=list(DATA_SETS))
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    options = parser.parse_args()
    columns, said = {}, {}
    for name in options.only:
        shared, folder = options.shared.resolve(), (options.out / name).resolve()
        prepare(name, shared, folder)
        runs = {model: cross_validate(name, model, shared, folder, model) for model in options.models}
        if len(runs) > 1:
            watkins(folder, "compare", *(str(run) for run in runs.values()))
        columns[name], said[name] = column(runs), differences(runs)
    print("\nPooled over the folds, with 95 % intervals from a bootstrap over tapes:\n")
    print_table(pd.DataFrame(columns))
    for name, sentences in said.items():
        print(f"\n{name}:", *sentences, sep="\n- ")


if __name__ == "__main__":
    main()
