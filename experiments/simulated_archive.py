"""What a split's score is worth: simulated archives, of which the truth is known, through the `watkins` command.

For each pair of strengths, of the species' calls and of the tapes' colour: generate an archive with the labels and
tapes of the table; prepare it with the random and with the tape split and train the baseline on both; then ask both
models about the same species on tapes that no split has seen. That score is the truth, the test score is what the
protocol says. Without a table a drawn one of the same kind serves. Finished steps are kept, so a call that was
interrupted goes on where it was.

Example: python experiments/simulated_archive.py ../shared/data/watkins_full_cuts.csv --share 0.15 --most 60
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from real_data import finished, watkins
from sklearn.metrics import accuracy_score, f1_score

from archive import Strengths, draw_table, on_new_tapes, read_labels, simulate_archive, thin
from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.plots import save
from watkins_ml.inference.by_file import predict_files
from watkins_ml.inference.resolve import load_classifier

RECIPE = Path(__file__).resolve().parent / "baseline.yaml"
PROTOCOLS = {"random": "#D55E00", "tape": "#0072B2"}
MARKERS = {"random": "s", "tape": "o"}
SCORES = {"accuracy": "accuracy", "macro_f1": "macro F1"}


def run_strengths(strengths: Strengths, folder: Path, options: argparse.Namespace) -> list[dict[str, object]]:
    """Generate one archive, train on both splits of it for each seed; a row a protocol and seed."""
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    cuts = simulate_archive(options.labels, folder / "archive", strengths, 0, options.share, options.most)
    simulate_archive(on_new_tapes(cuts), folder / "sea", strengths)
    rows = []
    for seed in options.seeds:
        for protocol in PROTOCOLS:
            name = f"{protocol}-{seed}"
            if not (folder / f"{name}.json").exists():
                scores = train_and_ask(folder, protocol, seed, options)
                (folder / f"{name}.json").write_text(json.dumps(scores, indent=2))
            scores = json.loads((folder / f"{name}.json").read_text())
            rows.append({"call": strengths.call, "tape": strengths.tape, "protocol": protocol, "seed": seed, **scores})
    return rows


def train_and_ask(folder: Path, protocol: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    run = folder / "runs" / f"{protocol}-{seed}"
    sites = ["--metadata", str(options.table.resolve())] if options.sites else []
    watkins(folder, "prepare", "archive", "--split", protocol, "--seed", str(seed), *sites)
    if not finished(run):
        settings = [f"train.epochs={options.epochs}", f"train.seed={seed}", *options.override]
        given = [part for text in settings for part in ("-o", text)]
        begun = ["--resume"] if (run / "run.json").exists() else ["--run-dir"]
        watkins(folder, "train", str(RECIPE), *given, *begun, f"runs/{run.name}")
    metrics = json.loads((run / "reports" / "metrics.json").read_text())
    tested = set(pd.read_csv(folder / "data" / "annotations" / "test.csv")["species"])
    found = {f"test_{score}": metrics[f"test_{score}"] for score in SCORES}
    for control in ("tape", "site") if options.sites else ("tape",):
        found |= {f"{control}_{score}": metrics[f"control_{control}_{score}"] for score in SCORES}
    return found | {f"true_{score}": value for score, value in truth(run, folder / "sea", tested).items()}


def truth(run: Path, sea: Path, tested: set[str]) -> dict[str, float]:
    """How the model of a run scores on new tapes, over the species that its own test side holds."""
    files = sorted(path for path in sea.glob("*/*.wav") if path.parent.name in tested)
    said = predict_files(load_classifier(str(run)), files)["species"]
    true = [path.parent.name for path in files]
    macro = f1_score(true, said, labels=sorted(tested), average="macro", zero_division=0)
    return {"accuracy": accuracy_score(true, said), "macro_f1": macro}


def print_table(results: pd.DataFrame) -> None:
    """A row for each pair of strengths and protocol, in %, mean over the seeds."""
    kinds = {"test": "test", "true": "truth", "tape": "tape lookup", "site": "site lookup"}
    columns = {f"{kind}_{score}": f"{kinds[kind]} {name}" for score, name in SCORES.items() for kind in kinds}
    titles = {column: title for column, title in columns.items() if column in results}
    means = 100 * results.groupby(["call", "tape", "protocol"], sort=False)[list(titles)].mean()
    print(f"\nScores in %; mean over split seeds {sorted(results['seed'].unique().tolist())}:\n")
    print("| calls | tapes | split | " + " | ".join(titles.values()) + " |")
    print("|---" * (3 + len(titles)) + "|")
    for (call, tape, protocol), row in means.iterrows():
        stamp = " (leaky reference)" if protocol == "random" else ""
        print(f"| {call:g} | {tape:g} | {protocol}{stamp} | " + " | ".join(f"{value:.1f}" for value in row) + " |")


def picture(results: pd.DataFrame) -> Figure:
    """For each pair of strengths and protocol a line from the truth (hollow) to what the test says (filled)."""
    pairs = list(dict.fromkeys(zip(results["call"], results["tape"], strict=True)))
    fig = Figure(figsize=(10, 1.8 + 0.8 * len(pairs)), layout="constrained")
    panels = fig.subplots(1, 2, sharey=True)
    for axes, (score, name) in zip(panels, SCORES.items(), strict=True):
        draw_panel(axes, results, pairs, score)
        axes.set_title(name)
    panels[0].set_yticks(range(len(pairs)), [f"calls {call:g}, tapes {tape:g}" for call, tape in pairs])
    panels[0].set_ylim(len(pairs) - 0.5, -0.5)
    handles = [
        Line2D([], [], color=colour, marker=MARKERS[name], ls="", ms=9, label=f"{name} split: its test score")
        for name, colour in PROTOCOLS.items()
    ]
    handles.append(
        Line2D([], [], color="black", marker="D", mfc="white", ls="", label="the truth: same model, new tapes")
    )
    fig.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return fig


def draw_panel(axes: Axes, results: pd.DataFrame, pairs: list[tuple[float, float]], score: str) -> None:
    for row in results.itertuples():
        height = pairs.index((row.call, row.tape)) + (-0.16 if row.protocol == "random" else 0.16)
        said, true = (100 * getattr(row, f"{kind}_{score}") for kind in ("test", "true"))
        colour = PROTOCOLS[row.protocol]
        axes.plot([true, said], [height, height], color=colour, lw=2.5, alpha=0.6, zorder=1)
        axes.plot(said, height, color=colour, marker=MARKERS[row.protocol], ms=9)
        axes.plot(true, height, color=colour, marker="D", mfc="white", ms=6, mew=1.6)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("%")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def strengths_of(text: str) -> Strengths:
    """`0.3:1` is calls of strength 0.3 and tapes of strength 1."""
    try:
        call, tape = map(float, text.split(":"))
        return Strengths(call, tape)
    except (TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text!r}: write CALL:TAPE, for example 0.5:1") from None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, nargs="?", help="CSV with clip_id and species; default a drawn one")
    parser.add_argument("--out", type=Path, default=Path("results/archive"))
    parser.add_argument(
        "--strengths", type=strengths_of, nargs="+", metavar="CALL:TAPE", help="default 0:1 0.1:1 1:1 1:0",
        default=[Strengths(0, 1), Strengths(0.1, 1), Strengths(1, 1), Strengths(1, 0)],
    )  # fmt: skip
    parser.add_argument("--share", type=float, default=1.0, help="share of each species' cuts (default all)")
    parser.add_argument("--most", type=int, help="most cuts of a species")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--override", nargs="+", default=[], metavar="KEY=VALUE", help="more settings of the training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds of the splits and of training")
    options = parser.parse_args()
    options.labels = options.table or draw_table()
    return options


def main() -> None:
    options = parse()
    rows = []
    try:
        # what cannot be used is refused before anything is made of it
        thin(read_labels(options.labels), options.share, options.most, 0)
        options.sites = options.table is not None and "site" in pd.read_csv(options.table, nrows=0)
        for strengths in options.strengths:
            folder = options.out.resolve() / f"call-{strengths.call:g}-tape-{strengths.tape:g}"
            rows += run_strengths(strengths, folder, options)
    except UserError as error:
        sys.exit(f"error: {error}")
    results = pd.DataFrame(rows)
    results.to_csv(options.out / "results.csv", index=False)
    save(picture(results), options.out / "estimate-and-truth.png")
    print_table(results)
    print(f"\nresults.csv and estimate-and-truth.png are in {options.out}")


if __name__ == "__main__":
    main()
