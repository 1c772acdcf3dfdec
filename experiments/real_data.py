"""Both recipes on real recordings over several grouped splits, through the `watkins` command alone.

For each data set and split seed: prepare, train the baseline, train EfficientNet-B0; then compare, list the
registry and predict one recording; print the table of the README. Finished runs are kept, so a call
that was interrupted goes on where it was.

Example: python experiments/real_data.py ../shared --out results/real --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd

RECIPES = Path(__file__).resolve().parent
DATA_SETS = {
    "watkins10": r"^(\d+_[A-Z]+_\d+)_",  # the group is the original cut
    "esc10": r"^\d+-(\d+)-",  # the group is the source recording
}
SMALL = ["data.batch_size=8", "train.early_stopping_patience=10"]
OVERRIDES = {  # at most three a run; the recipes are made for ten thousand recordings
    "watkins10": {
        "baseline": [*SMALL, "train.epochs=20"],
        "efficientnet": ["data.batch_size=16", "optim.lr=0.0003", "model.weights={weights}"],
    },
    "esc10": {
        "baseline": [*SMALL, "train.epochs=40"],
        "efficientnet": ["data.batch_size=16", "train.epochs=20", "model.weights={weights}"],
    },
}
MODELS = ["baseline", "efficientnet"]


def watkins(folder: Path, *arguments: str) -> None:
    """Run one `watkins` command in a data set's folder, showing it as a user would type it."""
    print(f"\n$ watkins {' '.join(arguments)}", flush=True)
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"}
    status = subprocess.run([sys.executable, "-m", "watkins_ml", *arguments], cwd=folder, env=environment).returncode
    if status:  # it has said why
        sys.exit(status)


def run_data_set(name: str, shared: Path, folder: Path, seeds: list[int], models: list[str]) -> None:
    (folder / "mlflow").mkdir(parents=True, exist_ok=True)
    audio = shared / "data" / name
    weights = shared / "weights" / "efficientnet_b0_imagenet.pth"
    for seed in seeds:
        missing = [model for model in models if not finished(folder / "runs" / f"{model}-{seed}")]
        if missing:
            watkins(folder, "prepare", str(audio), "--group-regex", DATA_SETS[name], "--seed", str(seed))
        for model in missing:
            given = [text.format(weights=weights) for text in OVERRIDES[name][model]]
            options = [part for text in given for part in ("-o", text)]
            watkins(folder, "train", str(RECIPES / f"{model}.yaml"), *options, "--run-dir", f"runs/{model}-{seed}")
    if models != MODELS:
        return
    watkins(folder, "compare", f"runs/baseline-{seeds[0]}", f"runs/efficientnet-{seeds[0]}", "--out", "compare.html")
    watkins(folder, "models")
    recording = next(path for path in sorted(audio.rglob("*")) if path.is_file())
    watkins(folder, "predict", "models:/watkins-efficientnet@champion", str(recording), "--top", "3")


def finished(run_dir: Path) -> bool:
    facts = run_dir / "run.json"
    return facts.exists() and json.loads(facts.read_text())["status"] == "FINISHED"


def results(folder: Path, seeds: list[int]) -> dict[str, str]:
    """Mean and standard deviation over the seeds, of test accuracy and macro F1 and of the controls."""
    tables = {}
    for model in MODELS:
        files = [folder / "runs" / f"{model}-{seed}" / "reports" / "metrics.json" for seed in seeds]
        tables[model] = pd.DataFrame([json.loads(file.read_text()) for file in files])
    cells = {}
    for model, table in tables.items():
        cells[f"{model} accuracy"] = spread(table["test_accuracy"])
        cells[f"{model} macro F1"] = spread(table["test_macro_f1"])
    cells["rate and duration, no audio"] = spread(tables["baseline"]["control_rate_duration_accuracy"])
    cells["tape lookup, no audio"] = spread(tables["baseline"]["control_tape_accuracy"])
    return cells


def spread(values: pd.Series) -> str:
    each = ", ".join(f"{100 * value:.1f}" for value in values)
    return f"{100 * values.mean():.1f} ± {100 * values.std():.1f} ({each})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins10, data/esc10 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", choices=DATA_SETS, nargs="+", default=list(DATA_SETS))
    parser.add_argument("--models", choices=MODELS, nargs="+", default=MODELS, help="train only these")
    options = parser.parse_args()
    columns = {}
    for name in options.only:
        folder = (options.out / name).resolve()
        run_data_set(name, options.shared.resolve(), folder, options.seeds, options.models)
        if options.models == MODELS:
            columns[name] = results(folder, options.seeds)
    if not columns:
        return
    table = pd.DataFrame(columns)
    print(f"\nTest scores in %, mean ± standard deviation over split seeds {options.seeds} (each):\n")
    print("| | " + " | ".join(table.columns) + " |\n|---" * 1 + "|---" * len(table.columns) + "|")
    for row, cells in table.iterrows():
        print(f"| {row} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
