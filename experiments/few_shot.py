"""Few-shot curve: how good models are that were trained on 1, 2, 4 or 8 tapes of each species of watkins21.

The folds are those of `watkins crossval`, and so are the cuts that each tests and those that it validates by (they
choose the epoch and the temperature, and are not trained on: `train.refit` is off). Of the other tapes each species
keeps so many, drawn with the seed; with more tapes those drawn before stay, and a species that has fewer keeps all.
Finished trainings are kept, so a call that was interrupted goes on where it was.

Example: python experiments/few_shot.py ../shared --out results/real --models encoder baseline
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from real_data import DATA_SETS, FEW, MODELS, RECIPE_OF, RECIPES, finished, predictions, prepare, print_table, watkins

from watkins_ml.dataset.folds import FoldRule, Folds, make_folds
from watkins_ml.dataset.layout import PreparedData, read_prepared
from watkins_ml.evaluation.intervals import Interval, score_intervals
from watkins_ml.evaluation.plots import save

DATA = "watkins21"
FOLDS = 5
TITLES = {model: MODELS[model] for model in FEW}
COLUMNS = ["path", "species", "label", "tape", "spectrogram"]
QUANTITIES = {"accuracy": "accuracy", "macro_f1": "macro F1"}


def recipe_and_options(model: str, shared: Path, epochs: int | None) -> list[str]:
    """How a model is trained, as `real_data.py` does it, as arguments of `watkins train` and `crossval`."""
    weights = shared / "weights" / "efficientnet_b0_imagenet.pth"
    overrides = [text.format(weights=weights) for text in FEW[model]]
    epochs = epochs or DATA_SETS[DATA].epochs.get(model)
    overrides += [f"train.epochs={epochs}"] if epochs else []
    recipe = RECIPE_OF.get(model, "efficientnet")
    every = [*overrides, *DATA_SETS[DATA].overrides.get(model, []), "train.refit=false", "tracking.register_as=null"]
    return [str(RECIPES / f"{recipe}.yaml"), *(part for text in every for part in ("-o", text))]


def with_few(data: PreparedData, tapes: int, seed: int) -> PreparedData:
    """The same sides with so many tapes of each species, at most, to train on."""
    every = sorted(set().union(*(frame["tape"] for frame in data.sides.values())))
    order = dict(zip(np.random.default_rng(seed).permutation(every), range(len(every)), strict=True))
    train = data.sides["train"]
    pairs = train[["species", "tape"]].drop_duplicates()
    kept = pairs.assign(place=pairs["tape"].map(order)).sort_values("place").groupby("species").head(tapes)
    sides = data.sides | {"train": train.merge(kept[["species", "tape"]]).sort_values("path", ignore_index=True)}
    counts = data.summary["counts"] | {side: len(frame) for side, frame in sides.items()}
    digest = hashlib.sha256(f"{data.digest}\n{sides['train'][COLUMNS].to_csv(index=False)}".encode()).hexdigest()[:16]
    return replace(data, sides=sides, summary=data.summary | {"counts": counts, "data_digest": digest})


def write_folder(data: PreparedData, folder: Path) -> Path:
    """A data folder with these sides; its tensors are links to those of `data`, or copies on another disk."""
    source = data.folder.root
    for name in ("spectrograms", "frontends"):
        for file in (source / name).rglob("*"):
            place = folder / file.relative_to(source)
            if file.is_dir() or place.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            link = os.link if file.suffix in (".pt", ".windows") else shutil.copy2  # journals grow
            try:
                link(file, place)
            except OSError:
                shutil.copy2(file, place)
    seal = folder / "dataset.json"
    if seal.exists() and json.loads(seal.read_text())["data_digest"] == data.digest:
        return folder
    seal.unlink(missing_ok=True)
    shutil.copytree(source / "annotations", folder / "annotations", dirs_exist_ok=True)
    for side, frame in data.sides.items():
        frame[COLUMNS].to_csv(folder / "annotations" / f"{side}.csv", index=False)
    summary = {key: value for key, value in data.summary.items() if key != "audio_dir_from_here"}
    seal.write_text(json.dumps(summary, ensure_ascii=False, indent=2))
    return folder


def train(folder: Path, run: Path, data: Path, arguments: list[str]) -> Path:
    """One training in `run`, gone on with where it was interrupted."""
    if finished(run):
        return run
    if (run / "run.json").exists():
        watkins(folder, "train", "--resume", str(run))
    else:
        shutil.rmtree(run, ignore_errors=True)
        watkins(folder, "train", *arguments, "-o", f"data.dir={data}", "--run-dir", str(run))
    return run


def few_shot(folder: Path, model: str, tapes: int, seed: int, folds: Folds, arguments: list[str]) -> pd.DataFrame:
    """What the folds' models, trained on so many tapes a species, predict for the cuts that they test."""
    tables = []
    for fold in folds.names:
        name = f"{tapes}-tapes-seed-{seed}"
        data = write_folder(with_few(folds.data_of(fold), tapes, seed), folder / "few" / f"{name}-fold-{fold}")
        run = train(folder, folder / "runs" / f"few-{model}-{name}" / f"fold-{fold}", data, arguments)
        tables.append(predictions(run))
    return pd.concat(tables, ignore_index=True)


def cuts_to_train_on(folds: Folds, tapes: int | None, seed: int) -> float:
    """In the mean over the folds; None: all tapes."""
    every = [folds.data_of(fold) for fold in folds.names]
    return float(np.mean([len((with_few(each, tapes, seed) if tapes else each).sides["train"]) for each in every]))


def picture(found: dict[str, dict[str, dict[str, Interval]]], rows: list[str]) -> Figure:
    """Scores of each model over the number of tapes, with their intervals."""
    fig = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (quantity, title) in zip(fig.subplots(1, 2, sharey=True), QUANTITIES.items(), strict=True):
        for number, (model, scores) in enumerate(found.items()):
            values = np.array([scores[row][quantity] for row in rows]) * 100
            places = np.arange(len(rows)) + 0.06 * number
            bars = [values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]]
            axes.errorbar(places, values[:, 0], bars, marker="o", capsize=3, label=TITLES[model])
        axes.set_xticks(range(len(rows)), rows)
        axes.set_xlabel("tapes a species to train on")
        axes.set_title(f"out-of-fold {title}, %", fontsize=11)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins21 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--models", choices=TITLES, nargs="+", default=["encoder"])
    parser.add_argument("--tapes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seed", type=int, default=0, help="by which tapes are drawn")
    parser.add_argument("--epochs", type=int, help="train so long, for a trial; default: as real_data.py does")
    options = parser.parse_args()
    if min(options.tapes) < 1:
        parser.error(f"--tapes {min(options.tapes)}: at least 1")
    shared, folder = options.shared.resolve(), (options.out / DATA).resolve()
    prepare(DATA, shared, folder)
    arguments = {model: recipe_and_options(model, shared, options.epochs) for model in options.models}
    ends = "" if options.epochs is None else f"-{options.epochs}-epochs"
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for model in options.models:  # first, so that an encoder's embeddings are there to be linked
        watkins(folder, "crossval", *arguments[model], "--folds", str(FOLDS), "--name", f"few-{model}-all{ends}")
    folds = make_folds(read_prepared(folder / "data"), FoldRule(FOLDS))
    for model in options.models:
        named = f"{model}{ends}"
        curve = {str(n): few_shot(folder, named, n, options.seed, folds, arguments[model]) for n in options.tapes}
        curve["all"] = predictions(folder / "runs" / f"few-{model}-all{ends}")
        found[model] = {row: score_intervals(table) for row, table in curve.items()}
    rows = [*map(str, options.tapes), "all"]
    table = pd.DataFrame(index=pd.Index(rows))
    cuts = [cuts_to_train_on(folds, tapes, options.seed) for tapes in [*options.tapes, None]]
    table["cuts to train on, mean of the folds"] = [f"{number:.0f}" for number in cuts]
    for model, scores in found.items():
        for quantity, title in QUANTITIES.items():
            table[f"{TITLES[model]}: {title}"] = [str(scores[row][quantity]) for row in rows]
    print(f"\n{DATA_SETS[DATA].title}, by tapes a species to train on, out of fold, 95 % intervals over tapes:\n")
    print_table(table)
    save(picture(found, rows), options.out / "few-shot.png")
    print(f"\nThe picture is {options.out / 'few-shot.png'}.")


if __name__ == "__main__":
    main()
