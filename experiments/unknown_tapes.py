"""How often an animal of a species that a model does not know is answered with a known name, across tapes.

The species of watkins21 are left out in seven groups of three, so that each is once unknown. A model is trained on one
fold of `watkins crossval` without them, and asked about the cuts which that fold tests and about all cuts of the three.
An answer counts where novelty is at most 1, or where novelty or confidence is within what lets the model answer
so many of the cuts of known species (`--answered`). Trainings that are done are kept.

Example: python experiments/unknown_tapes.py ../shared --out results/real --models encoder
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from few_shot import DATA, FOLDS, TITLES, train, write_folder
from real_data import FEW, RECIPE_OF, RECIPES, prepare, print_table
from sklearn.metrics import roc_auc_score

from watkins_ml.config import load_config
from watkins_ml.dataset.folds import FoldRule, Folds, make_folds
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.dataset.loading import cut_windows, open_side
from watkins_ml.models.bundle import load_bundle
from watkins_ml.runs.network_input import with_input

GROUPS = 7


def without(data: PreparedData, species: list[str]) -> PreparedData:
    """The same sides, and the same numbers of species, without the recordings of some."""
    sides = {name: frame[~frame["species"].isin(species)] for name, frame in data.sides.items()}
    digest = hashlib.sha256(f"{data.digest} {species}".encode()).hexdigest()[:16]
    counts = data.summary["counts"] | {name: len(frame) for name, frame in sides.items()}
    return replace(data, sides=sides, summary=data.summary | {"counts": counts, "data_digest": digest})


def asked(run: Path, data: PreparedData, unknown: list[str], recipe: list[str]) -> pd.DataFrame:
    """Every cut of the test side and of the unknown species, with what the model of a run says of it."""
    everything, test = pd.concat(data.sides.values(), ignore_index=True), data.sides["test"]
    sides = {"test": test[~test["species"].isin(unknown)], "val": everything[everything["species"].isin(unknown)]}
    overrides = recipe[2::2]
    shown = with_input(load_config(Path(recipe[0]), overrides), replace(data, sides=sides))
    classifier, tables = load_bundle(run / "model"), []
    for side in sides:
        frame = shown.sides[side].reset_index(drop=True)
        found = classifier.predict(cut_windows(shown, open_side(replace(shown, sides={side: frame}), side)))
        named = np.asarray(classifier.classes, dtype=object)[found.probabilities.argmax(axis=1)]
        tables.append(
            frame[["path", "species", "tape"]].assign(
                named=named, confidence=found.probabilities.max(axis=1), novelty=found.novelty,
                known=~frame["species"].isin(unknown),
            )
        )  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def answers(model: str, folds: Folds, shared: Path, folder: Path) -> pd.DataFrame:
    """What the models of all groups say, one after another."""
    weights = shared / "weights" / "efficientnet_b0_imagenet.pth"
    overrides = [text.format(weights=weights) for text in FEW[model]] + ["tracking.register_as=null"]
    recipe = [str(RECIPES / f"{RECIPE_OF[model]}.yaml"), *(part for text in overrides for part in ("-o", text))]
    tables = []
    for group in range(GROUPS):
        unknown, fold = folds.data.classes[group::GROUPS], folds.names[group % len(folds.names)]
        data = folds.data_of(fold)
        place = write_folder(without(data, unknown), folder / "unknown" / f"group-{group + 1}")
        run = train(folder, folder / "runs" / f"unknown-{model}" / f"group-{group + 1}", place, recipe)
        tables.append(asked(run, data, unknown, recipe).assign(group=group + 1))
    return pd.concat(tables, ignore_index=True)


def row(table: pd.DataFrame, answered: float) -> dict[str, str]:
    """One model's cells: the share of cuts that are answered, of known and of unknown species."""
    known, shipped = table["known"], table["novelty"] <= 1
    shares = [f"{shipped[which].mean():.1%}" for which in (known, ~known)]
    cells = {"known and unknown answered, novelty ≤ 1": " / ".join(shares)}
    for title, score in (("novelty", -table["novelty"]), ("confidence", table["confidence"])):
        limit = np.quantile(score[known], 1 - answered)
        cells[f"unknown answered where {answered:.0%} of the known are, by {title}"] = (
            f"{(score[~known] >= limit).mean():.1%} (area under ROC {roc_auc_score(known, score):.2f})"
        )
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins21 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--models", choices=TITLES, nargs="+", default=["encoder"])
    parser.add_argument("--answered", type=float, default=0.9, help="share of the cuts of known species to be answered")
    options = parser.parse_args()
    shared, folder = options.shared.resolve(), (options.out / DATA).resolve()
    prepare(DATA, shared, folder)
    folds = make_folds(read_prepared(folder / "data"), FoldRule(FOLDS))
    rows = {}
    for model in options.models:
        table = answers(model, folds, shared, folder)
        table.to_csv(options.out / f"unknown-{model}.csv", index=False)
        rows[TITLES[model]] = row(table, options.answered)
    print(f"\n{GROUPS} models each, without three species of watkins21; share of cuts answered with a known name:\n")
    print_table(pd.DataFrame(rows).T)


if __name__ == "__main__":
    main()
