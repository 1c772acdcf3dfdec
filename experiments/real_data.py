"""Cross-validation by tape on real recordings: the table and the picture of the README, through `watkins` alone.

For each data set: prepare, cross-validate every model on the same folds, pool two of them as an ensemble, compare.
Finished folds are kept, so a call that was interrupted goes on where it was.

Example: python experiments/real_data.py ../shared --out results/real --only watkins21 --models tapes encoder ensemble
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from watkins_ml.evaluation.intervals import Interval, paired_difference, score_intervals, verdict
from watkins_ml.evaluation.plots import save

RECIPES = Path(__file__).resolve().parent
MODELS = {
    "baseline": "baseline CNN",
    "scratch": "EfficientNet-B0 from scratch",
    "imagenet": "EfficientNet-B0, ImageNet weights",
    "tapes": "EfficientNet-B0, frozen, prototypes",
    "encoder": "BirdNET embeddings, prototypes",
    "normal": "BirdNET at speed 1 alone, prototypes",
    "half": "BirdNET at speed 0.5 alone, prototypes",
    "ensemble": "these four with prototypes together",
}
RECIPE_OF = {"baseline": "baseline", "tapes": "efficientnet-tapes"} | dict.fromkeys(
    ("encoder", "normal", "half"), "encoder"
)
"""The others train by `efficientnet.yaml`."""
TOGETHER = ("tapes", "encoder", "normal", "half")
"""Members of the ensemble, chosen by the validation sides of watkins21."""
FEW = {  # the recipes are made for ten thousand recordings; these data sets have a few hundred
    "baseline": ["data.batch_size=8", "train.early_stopping_patience=10"],
    "scratch": ["data.batch_size=8", "train.early_stopping_patience=10", "model.weights=none", "model.freeze_depth=0"],
    "imagenet": ["data.batch_size=16", "model.weights={weights}"],
    "tapes": ["model.weights={weights}"],
    "encoder": [],
    "normal": ["model.speeds=[1.0]"],
    "half": ["model.speeds=[0.5]"],
}
CONTROLS = {
    "tape": "the tape",
    "sample_rate": "native sample rate",
    "duration": "duration",
    "rate_duration": "sample rate and duration",
}


@dataclass(frozen=True)
class DataSet:
    """Where real recordings lie, what their tapes and folds are, and how long to train on them."""

    title: str
    audio: str
    group_regex: str | None
    """None is the default rule, by cut ids as Watkins has them."""
    epochs: dict[str, int]
    folds: tuple[str, ...] = ("--folds", "5")
    prepare: tuple[str, ...] = ()
    overrides: dict[str, list[str]] = field(default_factory=dict)
    """Of a model's recipe, beside FEW."""
    published: dict[str, float] = field(default_factory=dict)
    """Accuracies from papers on the same folds."""


WATKINS_CUT = r"^(\d+_[A-Z]+_\d+)_"
EPOCHS = {"baseline": 20, "scratch": 8, "imagenet": 10}
FROZEN = {"imagenet": ["model.freeze_depth=6", "optim.lr=0.0006", "augment.time_roll=false"]}  # docs/searching.md
BAND = ("--sample-rate", "10000", "--no-upsampling")  # 5 kHz of sound: a higher band would cost recordings and species
LOWER = [  # the best of `training_options.py` on validation
    "augment.freq_mask=16", "augment.time_mask=48", "augment.mixup=0.2", "train.label_smoothing=0.1",
    "optim.lr=0.0003", "train.early_stopping_patience=10",
]  # fmt: skip
DATA_SETS = {
    "watkins21": DataSet("watkins21, by tape", "watkins21", None, EPOCHS, prepare=("--sample-rate", "32000")),
    "watkins10": DataSet("watkins10", "watkins10", WATKINS_CUT, EPOCHS, overrides=FROZEN),
    "watkins10-band": DataSet("watkins10 below 5 kHz", "watkins10", WATKINS_CUT, EPOCHS, (), BAND, FROZEN),
    "esc10": DataSet(
        "ESC-10", "esc10", r"^\d+-(\d+)-", {"baseline": 40, "scratch": 15, "imagenet": 20}, ("--fold-regex", r"^(\d)-"),
        overrides={"imagenet": LOWER},
        published={"human": 0.957, "Piczak CNN (2015)": 0.80, "random forest (2015)": 0.727},
    ),
}  # fmt: skip


def watkins(folder: Path, *arguments: str) -> None:
    """Run one `watkins` command in a data set's folder, showing it as a user would type it."""
    print(f"\n$ watkins {' '.join(arguments)}", flush=True)
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"}
    status = subprocess.run([sys.executable, "-m", "watkins_ml", *arguments], cwd=folder, env=environment).returncode
    if status:  # it has said why
        sys.exit(status)


def finished(run_dir: Path) -> bool:
    facts = run_dir / "run.json"
    return facts.exists() and json.loads(facts.read_text())["status"] == "FINISHED"


def prepare(name: str, shared: Path, folder: Path) -> None:
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    data = DATA_SETS[name]
    groups = [] if data.group_regex is None else ["--group-regex", data.group_regex]
    watkins(folder, "prepare", str(shared / "data" / data.audio), *groups, *data.prepare)


def cross_validate(name: str, model: str, shared: Path, folder: Path, run: str, *overrides: str) -> Path:
    """Cross-validate one model on one data set under the name `run`; the parent's run directory."""
    data, weights = DATA_SETS[name], shared / "weights" / "efficientnet_b0_imagenet.pth"
    given = [text.format(weights=weights) for text in FEW[model]]
    given += [f"train.epochs={data.epochs[model]}"] if model in data.epochs else []
    given += overrides
    recipe = RECIPES / f"{RECIPE_OF.get(model, 'efficientnet')}.yaml"
    options = [part for text in given for part in ("-o", text)]
    watkins(folder, "crossval", str(recipe), *options, *data.folds, "--name", run)  # one that is done is only shown
    return folder / "runs" / run


def trained(name: str, models: list[str], shared: Path, folder: Path) -> dict[str, Path]:
    """The run directory of each model on one data set, the ensemble after its members."""
    runs = {
        model: cross_validate(name, model, shared, folder, model, *DATA_SETS[name].overrides.get(model, []))
        for model in MODELS
        if model in models or (model in TOGETHER and "ensemble" in models)
        if model != "ensemble"
    }
    if "ensemble" in models:
        watkins(folder, "ensemble", *(f"runs/{member}" for member in TOGETHER), "--name", "ensemble")
        runs["ensemble"] = folder / "runs" / "ensemble"
    return runs


def metrics(run: Path) -> dict[str, float]:
    return json.loads((run / "reports" / "metrics.json").read_text())


def scored(run: Path, quantity: str) -> Interval:
    found = metrics(run)
    return Interval(*(found.get(f"test_{quantity}{end}", float("nan")) for end in ("", "_low", "_high")))


def predictions(run: Path) -> pd.DataFrame:
    return pd.read_csv(run / "preds" / "test.csv", dtype={"path": str, "tape": str}, keep_default_na=False)


def column(data: DataSet, runs: dict[str, Path]) -> dict[str, str]:
    """One data set's scores, controls and published figures, as the README shows them."""
    cells = {}
    for model, run in runs.items():
        cells[f"{MODELS[model]}: accuracy"] = str(scored(run, "accuracy"))
        cells[f"{MODELS[model]}: macro F1"] = str(scored(run, "macro_f1"))
        cells[f"{MODELS[model]}: calibration error"] = f"{metrics(run)['test_ece']:.3f}"
        if timings := [pd.read_csv(path)["epoch_seconds"].sum() for path in run.glob("fold-*/timing.csv")]:
            cells[f"{MODELS[model]}: seconds of a fold's epochs"] = f"{sum(timings) / len(timings):.1f}"
    found = metrics(next(iter(runs.values())))
    for quantity in ("accuracy", "macro_f1"):
        cells[f"regression on the mean spectrum: {quantity.replace('_f1', ' F1')}"] = (
            f"{found[f'control_spectrum_{quantity}']:.1%}"
        )
    for key, title in CONTROLS.items():
        cells[f"no audio, {title}: accuracy"] = f"{found[f'control_{key}_accuracy']:.1%}"
    return cells | {f"published, {who}: accuracy": f"{value:.1%}" for who, value in data.published.items()}


def differences(runs: dict[str, Path]) -> list[str]:
    """Each model against the first, in a sentence."""
    first, *others = runs
    pairs = [(first, other) for other in others]
    found = {pair: paired_difference(*(predictions(runs[model]) for model in pair)) for pair in pairs}
    return [verdict(each["macro_f1"], MODELS[first], MODELS[second]) for (first, second), each in found.items()]


def band_sentences(ordinary: dict[str, Path], band: dict[str, Path]) -> list[str]:
    """What each model loses when it hears no more than the common band, on the cuts that both data sets hold."""
    said = []
    for model in ordinary:
        whole, narrow = predictions(ordinary[model]), predictions(band[model])
        whole = whole[whole["path"].isin(narrow["path"])]
        scores = [score_intervals(table)["accuracy"] for table in (whole, narrow)]
        sentence = verdict(
            paired_difference(narrow, whole)["accuracy"], "the common band", "the ordinary one", "accuracy"
        )
        said.append(f"{MODELS[model]}, {len(narrow)} cuts: ordinary {scores[0]}, common band {scores[1]}; {sentence}")
    return said


def print_table(table: pd.DataFrame) -> None:
    print("| | " + " | ".join(table.columns) + " |\n|---" + "|---" * len(table.columns) + "|")
    for row, cells in table.iterrows():
        print(f"| {row} | " + " | ".join(cells.fillna("–")) + " |")


def picture(found: dict[str, dict[str, Path]]) -> Figure:
    """Accuracy of every model with its interval, beside what no audio scores and what papers report."""
    panels = {DATA_SETS[name].title: shown(DATA_SETS[name], runs) for name, runs in found.items()}
    rows = list(dict.fromkeys(row for values in panels.values() for row in values))
    rows.sort(key=lambda row: ["simple", "no audio", "published"].index(row.split(":")[0]) if ":" in row else -1)
    fig = Figure(figsize=(3.2 * len(panels) + 2.6, 0.36 * len(rows) + 1.2), layout="constrained")
    for axes, (title, values) in zip(
        fig.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels.items(), strict=True
    ):
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("accuracy, %")
        axes.set_yticks(range(len(rows)), rows, fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        draw_panel(axes, {rows.index(row): value for row, value in values.items()}, rows)
    return fig


def shown(data: DataSet, runs: dict[str, Path]) -> dict[str, Interval]:
    found, none = metrics(next(iter(runs.values()))), float("nan")
    values = {MODELS[model]: scored(run, "accuracy") for model, run in runs.items()}
    values["simple: regression on the mean spectrum"] = Interval(found["control_spectrum_accuracy"], none, none)
    for key, title in CONTROLS.items():
        values[f"no audio: {title}"] = Interval(found[f"control_{key}_accuracy"], none, none)
    return values | {f"published: {who}": Interval(value, none, none) for who, value in data.published.items()}


def draw_panel(axes: Axes, values: dict[int, Interval], rows: list[str]) -> None:
    colours = {"simple": "#009E73", "no audio": "#D55E00", "published": "#6B6B6B"}
    for height, (value, low, high) in values.items():
        colour = colours.get(rows[height].split(":")[0], "#0072B2")
        axes.plot([100 * low, 100 * high], [height] * 2, color=colour, lw=3, alpha=0.5)
        axes.plot(100 * value, height, color=colour, marker="o" if colour == "#0072B2" else "D", ms=5)
        left = value > 0.7
        end = low if left else high
        at = 100 * (end if end == end else value), height
        side = {"ha": "right" if left else "left", "va": "center", "fontsize": 9}
        axes.annotate(f"{100 * value:.1f}", at, (-7 if left else 7, 0), textcoords="offset points", **side)
    axes.set_xlim(0, 102)
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins21, watkins10, esc10 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--only", choices=DATA_SETS, nargs="+", default=list(DATA_SETS))
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    options = parser.parse_args()
    found = {}
    for name in options.only:
        shared, folder = options.shared.resolve(), (options.out / name).resolve()
        prepare(name, shared, folder)
        found[name] = trained(name, options.models, shared, folder)
        if len(found[name]) > 1:
            watkins(folder, "compare", *(f"runs/{model}" for model in found[name]), "--out", "compare.html")
    print("\nPooled over the folds, with 95 % intervals from a bootstrap over tapes:\n")
    print_table(pd.DataFrame({DATA_SETS[name].title: column(DATA_SETS[name], runs) for name, runs in found.items()}))
    for name, runs in found.items():
        print(f"\n{DATA_SETS[name].title}:", *differences(runs), sep="\n- ")
    if {"watkins10", "watkins10-band"} <= set(found):
        print(
            "\nwatkins10, how much is bandwidth:",
            *band_sentences(found["watkins10"], found["watkins10-band"]),
            sep="\n- ",
        )
    save(picture(found), options.out / "results.png")
    print(f"\nThe picture is {options.out / 'results.png'}; each data set's page is compare.html in its folder.")


if __name__ == "__main__":
    main()
