"""What SpecAugment, mixup, label smoothing and balanced sampling do on ESC-10, over its five official folds.

Each option alone against the plain recipe, on the same folds: validation macro F1 (the mean over the folds, by which
one may choose), out-of-fold accuracy with its interval, and the paired difference. An interrupted call goes
on where it was.

Example: python experiments/training_options.py ../shared --out results/real --models baseline
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from real_data import cross_validate, predictions, prepare, print_table, scored

from watkins_ml.evaluation.intervals import paired_difference

MASKS = ["augment.freq_mask=16", "augment.time_mask=48"]
TOGETHER = [*MASKS, "augment.mixup=0.2", "train.label_smoothing=0.1"]
EPOCHS = {"baseline": 12, "imagenet": 20}
OPTIONS = {
    "plain": [],
    "not rolled in time": ["augment.time_roll=false"],
    "SpecAugment": MASKS,
    "mixup": ["augment.mixup=0.2"],
    "label smoothing": ["train.label_smoothing=0.1"],
    "balanced sampling": ["train.class_weights=sampled"],
    "SpecAugment, mixup and label smoothing": TOGETHER,
    "the three at a lower rate": [*TOGETHER, "optim.lr=0.0003", "train.early_stopping_patience=10"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/esc10 and weights/")
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--models", choices=["baseline", "imagenet"], nargs="+", default=["baseline", "imagenet"])
    parser.add_argument("--options", choices=OPTIONS, nargs="+", default=list(OPTIONS))
    arguments = parser.parse_args()
    shared, folder = arguments.shared.resolve(), (arguments.out / "esc10").resolve()
    prepare("esc10", shared, folder)
    for model in arguments.models:
        rows, plain = {}, None
        for option in arguments.options:
            name = f"{model}-{option.replace(',', '').replace(' ', '-')}"
            run = cross_validate(
                "esc10", model, shared, folder, name, f"train.epochs={EPOCHS[model]}", *OPTIONS[option]
            )
            plain = plain or run
            difference = paired_difference(predictions(plain), predictions(run))["accuracy"]
            validation = pd.read_csv(run / "reports" / "folds.csv")["best_val_macro_f1"].mean()
            rows[option] = {
                "validation macro F1": f"{validation:.1%}",
                "out-of-fold accuracy": str(scored(run, "accuracy")),
                f"points more than {arguments.options[0]}": f"{100 * difference.value:+.1f} "
                f"({100 * difference.low:+.1f} to {100 * difference.high:+.1f})",
            }
        print(
            f"\n{model}, ESC-10, five official folds, {EPOCHS[model]} epochs, 95 % intervals over source recordings:\n"
        )
        print_table(pd.DataFrame(rows).T)


if __name__ == "__main__":
    main()
