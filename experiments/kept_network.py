"""What the network that is kept scores on test, beside the last one, by each rule of `train.monitor`.

Real recordings with their real tapes, the default split; every training from the same seed, so two of one model differ
by the rule alone: by which epoch is kept, when the rate falls and when training stops. A training that is done is kept,
so a call that was interrupted goes on where it was.

Example: python experiments/kept_network.py ../shared --out results/kept
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
import torch
from real_data import FEW, RECIPES, finished, metrics, print_table, watkins
from training_options import TOGETHER

from watkins_ml.config import load_stored
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import cut_windows, open_side
from watkins_ml.evaluation.metrics import score
from watkins_ml.models.bundle import to_probabilities
from watkins_ml.models.registry import build_model
from watkins_ml.models.scoring import cut_logits
from watkins_ml.training.checkpoints import load_checkpoint
from watkins_ml.training.monitor import VAL_LOSS, VAL_MACRO_F1

MODELS = {
    "baseline": ("baseline", FEW["baseline"]),
    "regularised": ("baseline", [*FEW["baseline"], *TOGETHER]),
    "imagenet": ("efficientnet", FEW["imagenet"]),
}
EPOCHS = {"baseline": 20, "regularised": 20, "imagenet": 10}


def train(model: str, rule: str, options: argparse.Namespace) -> Path:
    """One training by one rule, and its run directory."""
    folder, name = options.out.resolve(), f"{model}-{rule}-{options.seed}"
    run, (recipe, overrides) = folder / "runs" / name, MODELS[model]
    if finished(run):
        return run
    if (run / "run.json").exists():
        watkins(folder, "train", "--resume", f"runs/{name}")
        return run
    weights = options.shared.resolve() / "weights" / "efficientnet_b0_imagenet.pth"
    given = [text.format(weights=weights) for text in overrides]
    given += [f"train.epochs={options.epochs or EPOCHS[model]}", f"train.seed={options.seed}", f"train.monitor={rule}"]
    given += ["train.early_stopping_patience=10", "tracking.register_as=null"]
    watkins(folder, "train", str(RECIPES / f"{recipe}.yaml"), "--run-dir", f"runs/{name}",
            *(part for text in given for part in ("-o", text)))  # fmt: skip
    return run


def last_scores(run: Path, data_dir: Path) -> dict[str, float]:
    """What the network of the last epoch scores on test."""
    data = read_prepared(data_dir)
    network = build_model(load_stored(run / "config.yaml").model, len(data.classes), pretrained=False)
    network.load_state_dict(load_checkpoint(run / "checkpoints" / "last.pt").tensors["model"])
    split = open_side(data, "test")
    with torch.inference_mode():
        logits = cut_logits(network, cut_windows(data, split))
    return score(split.labels.numpy(), to_probabilities(logits), data.classes)


def row(run: Path, data_dir: Path) -> dict[str, str]:
    kept, last = metrics(run), last_scores(run, data_dir)
    epochs = len(pd.read_csv(run / "history.csv"))
    return {
        "kept epoch": f"{kept['best_epoch']} of {epochs}",
        "kept network": f"{kept['test_accuracy']:.1%} / {kept['test_macro_f1']:.1%}",
        "last network": f"{last['accuracy']:.1%} / {last['macro_f1']:.1%}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins21 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/kept"))
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--epochs", type=int, help="of each training; default 20, of EfficientNet 10")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    (options.out / "mlflow").mkdir(parents=True, exist_ok=True)
    watkins(options.out.resolve(), "prepare", str(options.shared.resolve() / "data" / "watkins21"))
    rows = {}
    for model in options.models:
        for rule in (VAL_LOSS, VAL_MACRO_F1):
            rows[f"{model}, {rule}"] = row(train(model, rule, options), options.out / "data")
    print("\nTest accuracy / macro F1, default split:\n")
    print_table(pd.DataFrame(rows).T)


if __name__ == "__main__":
    main()
