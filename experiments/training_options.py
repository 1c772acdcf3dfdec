"""What each option of a recipe gives, over five folds: against overfitting on ESC-10, across tapes on watkins21.

Each option alone against the plain recipe, on the same folds: validation macro F1 (the mean over the folds, by which
one may choose), out-of-fold accuracy with its interval, and the paired difference. An interrupted call goes
on where it was.

Example: python experiments/training_options.py ../shared --data watkins21 --models baseline --options plain refit
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd
from real_data import DATA_SETS, cross_validate, predictions, prepare, print_table, scored

from watkins_ml.evaluation.intervals import paired_difference

MASKS = ["augment.freq_mask=16", "augment.time_mask=48"]
TOGETHER = [*MASKS, "augment.mixup=0.2", "train.label_smoothing=0.1"]
EPOCHS = {"baseline": 12, "imagenet": 20}
FILTER, STYLE, BANDWIDTH, BACKGROUND, EXCERPT, SPEED, OCEAN = (
    f"{{name: {name}}}"
    for name in (
        "filter_augment", "freq_mixstyle", "bandwidth", "background", "random_excerpt", "speed", "ocean_noise",
    )
)  # fmt: skip
COSINE = ["optim.schedule=cosine", "optim.warmup_epochs=1"]


def augment(*transforms: str) -> list[str]:
    """The override that adds transforms to rolling."""
    return [f"augment=[{', '.join(['{name: time_roll}', *transforms])}]"]


OPTIONS = {
    "plain": [],
    "not rolled in time": ["augment.time_roll=false"],
    "SpecAugment": MASKS,
    "mixup": ["augment.mixup=0.2"],
    "label smoothing": ["train.label_smoothing=0.1"],
    "balanced sampling": ["train.class_weights=sampled"],
    "SpecAugment, mixup and label smoothing": TOGETHER,
    "the three at a lower rate": [*TOGETHER, "optim.lr=0.0003", "train.early_stopping_patience=10"],
    "kept by val_loss": ["train.monitor=val_loss"],
    "kept by val_accuracy": ["train.monitor=val_accuracy"],
    "kept by val_calibrated_loss": ["train.monitor=val_calibrated_loss"],
    "refit": ["train.refit=true"],
    "tapes drawn alike": ["train.class_weights=tapes"],
    "moving average": ["train.ema_decay=0.98"],
    "cosine": COSINE,
    "clipped gradients": ["optim.clip_norm=1"],
    "layer decay": ["optim.layer_decay=0.7"],
    "FilterAugment": augment(FILTER),
    "Freq-MixStyle": augment(STYLE),
    "random bandwidth": augment(BANDWIDTH),
    "background noise": augment(BACKGROUND),
    "random excerpts": augment(EXCERPT),
    "speed": augment(SPEED),
    "ocean noise": augment(OCEAN),
    "against the recorder": augment(FILTER, STYLE, BACKGROUND, BANDWIDTH),
    "all across tapes": [
        *augment(FILTER, STYLE, BACKGROUND, BANDWIDTH), *COSINE, "train.refit=true", "train.class_weights=tapes",
        "train.ema_decay=0.98", "train.label_smoothing=0.1", "train.early_stopping_patience=1000",
    ],
}  # fmt: skip

HEADS = {
    "plain": [],
    "no whitening": ["model.whitening=0"],
    "linear layer": ["model.head=linear", "optim.weight_decay=3", "train.epochs=20"],
    "no refit": ["train.refit=false"],
}
"""Of recipes that end in prototypes."""
OTHERS = {"tapes": HEADS, "encoder": HEADS | {"speed 1 alone": ["model.speeds=[1.0]"]}}
"""Of models that do not have OPTIONS."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with the data set and weights/")
    parser.add_argument("--data", choices=["esc10", "watkins21"], default="esc10")
    parser.add_argument("--out", type=Path, default=Path("results/real"))
    parser.add_argument("--models", choices=[*EPOCHS, *OTHERS], nargs="+", default=list(EPOCHS))
    every = [*OPTIONS, *OTHERS["encoder"]]
    parser.add_argument("--options", choices=every, nargs="+", metavar="OPTION", help=f"of: {'; '.join(every[1:])}")
    arguments = parser.parse_args()
    shared, folder = arguments.shared.resolve(), (arguments.out / arguments.data).resolve()
    prepare(arguments.data, shared, folder)
    for model in arguments.models:
        rows, plain, known = {}, None, OTHERS.get(model, OPTIONS)
        epochs = [f"train.epochs={EPOCHS[model]}"] if model in EPOCHS else []
        for option in arguments.options or known:
            name = f"{model}-{option.replace(',', '').replace(' ', '-')}"
            run = cross_validate(arguments.data, model, shared, folder, name, *epochs, *known[option])
            plain = plain or run
            difference = paired_difference(predictions(plain), predictions(run))["macro_f1"]
            validation = pd.read_csv(run / "reports" / "folds.csv")["best_val_macro_f1"].mean()
            rows[option] = {
                "validation macro F1": f"{validation:.1%}",
                "out-of-fold accuracy": str(scored(run, "accuracy")),
                "out-of-fold macro F1": str(scored(run, "macro_f1")),
                "points of macro F1 more than the first": f"{100 * difference.value:+.1f} "
                f"({100 * difference.low:+.1f} to {100 * difference.high:+.1f})",
            }
        print(f"\n{model}, {DATA_SETS[arguments.data].title}, five folds, 95 % intervals over groups:\n")
        print_table(pd.DataFrame(rows).T)


if __name__ == "__main__":
    main()
