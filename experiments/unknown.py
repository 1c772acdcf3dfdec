"""How often a model names a species where there is none that it knows: the README's table of false positives.

Five times two species of watkins10 are left out, so that each is once unknown; a model is trained on the others and
asked, by `watkins predict --by file`, about test cuts of its own species, all cuts of the two, the clips of ESC-10 and
generated noise. An answer counts where it has a confidence of at least 0.5, and then where it is not novel either.
Trainings that are done are kept, so a call that was interrupted goes on where it was.

Example: python experiments/unknown.py ../shared --out results/unknown
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile

RECIPES = Path(__file__).resolve().parent
GROUPS = 5
CONFIDENCE = 0.5
WATKINS_CUT = r"^(\d+_[A-Z]+_\d+)_"
MODELS = {
    "baseline": ["baseline.yaml", "data.batch_size=8", "train.epochs=30", "train.early_stopping_patience=10"],
    "imagenet": [
        "efficientnet.yaml", "data.batch_size=16", "optim.lr=0.0006", "model.freeze_depth=6", "augment.time_roll=false",
        "model.weights={weights}",
    ],
}  # fmt: skip
RATE = 16_000
NOISES = 50
"""Files of each kind of noise, five seconds each."""


def watkins(*arguments: object, capture: bool = False) -> str:
    said = subprocess.run(
        [sys.executable, "-m", "watkins_ml", *map(str, arguments)],
        stdout=subprocess.PIPE if capture else sys.stderr, text=True,
    )  # fmt: skip
    if said.returncode:
        sys.exit(f"watkins {arguments[0]} failed; its reason is above")
    return said.stdout or ""


def trained(shared: Path, out: Path, group: int) -> dict[str, Path]:
    """The models of one group, by name, trained without the two species whose cuts `unseen` holds afterwards."""
    archive = shared / "data" / "watkins10"
    species = sorted(path.name for path in archive.iterdir() if path.is_dir())
    for name in species:
        side = "unseen" if species.index(name) % GROUPS == group else "seen"
        if not (out / side / name).exists():
            shutil.copytree(archive / name, out / side / name)
    watkins("prepare", out / "seen", "--group-regex", WATKINS_CUT, "--out", out / "data")
    runs = {}
    for name, (recipe, *overrides) in MODELS.items():
        runs[name] = out / "runs" / name
        if not (runs[name] / "reports" / "metrics.json").exists() or not (runs[name] / "model" / "novelty.pt").exists():
            settings = [f"data.dir={out / 'data'}", "tracking.register_as=null", *overrides]
            filled = [each.format(weights=shared / "weights" / "efficientnet_b0_imagenet.pth") for each in settings]
            options = [part for each in filled for part in ("-o", each)]
            watkins("train", RECIPES / recipe, *options, "--run-dir", runs[name])
    return runs


def noises(seed: int = 7) -> Iterator[tuple[str, np.ndarray]]:
    """Kinds of noise and waveforms; made otherwise than the noise that models are shown when they are kept."""
    rng, samples = np.random.default_rng(seed), 5 * RATE
    time = np.arange(samples) / RATE

    def coloured(slope: float) -> np.ndarray:
        spectrum = np.fft.rfft(rng.standard_normal(samples))
        spectrum[1:] *= np.arange(1.0, len(spectrum)) ** -slope
        noise = np.fft.irfft(spectrum, samples)
        return noise / noise.std()

    for _ in range(NOISES):
        yield "white noise", coloured(0)
        yield "pink noise", coloured(0.5)
        yield "brown noise", coloured(1)
        yield "rising noise", coloured(-0.5)
        hum = sum(np.sin(2 * np.pi * 50 * k * time + rng.uniform(0, 6)) / k for k in range(1, 8))
        yield "pink noise and mains hum", coloured(0.5) + 2 * hum
        yield "pink noise, swelling", coloured(0.5) * (1.2 + np.sin(2 * np.pi * rng.uniform(0.1, 0.5) * time))
        yield "last bit of 16", np.round(coloured(0)) * 3.05e-4


def write_noises(folder: Path) -> None:
    for number, (kind, noise) in enumerate(noises()):
        path = folder / kind / f"{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            soundfile.write(path, (0.1 * noise).astype(np.float32), RATE, subtype="PCM_16")


def answers(model: Path, what: Path | list[Path]) -> pd.DataFrame:
    """path, probability and novelty of each file, whatever its novelty."""
    paths = what if isinstance(what, list) else [what]
    said = watkins(
        "predict", model, *paths, "--by", "file", "--max-novelty", "inf", "--format", "csv", capture=True
    )  # fmt: skip
    table = pd.read_csv(io.StringIO(said))
    return table[table["problem"].isna() & table["probability"].notna()]


def asked(out: Path, noise: Path, shared: Path, model: Path) -> pd.DataFrame:
    """kind, probability and novelty of every recording that one model is asked about."""
    test = pd.read_csv(out / "data" / "annotations" / "test.csv")
    parts = [answers(model, [out / "seen" / path for path in test["path"]]).assign(kind="test cuts of known species")]
    for kind, folder in (("unseen species", out / "unseen"), ("ESC-10", shared / "data" / "esc10"), ("noise", noise)):
        found = answers(model, folder)
        parts.append(found.assign(kind=[f"{kind}: {Path(path).parent.name}" for path in found["path"]]))
    return pd.concat(parts)[["kind", "path", "probability", "novelty"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path, help="folder with data/watkins10, data/esc10 and weights")
    parser.add_argument("--out", type=Path, default=Path("results/unknown"))
    options = parser.parse_args()
    for needed in ("data/watkins10", "data/esc10", "weights"):
        if not (options.shared / needed).is_dir():
            parser.error(f"{options.shared / needed}: no such folder")
    noise = options.out / "noise"
    write_noises(noise)
    found = []
    for group in range(GROUPS):
        folder = options.out / f"group{group}"
        for name, run in trained(options.shared, folder, group).items():
            kept = folder / f"answers-{name}.csv"
            if not kept.exists():
                asked(folder, noise, options.shared, run).to_csv(kept, index=False)
            found.append(pd.read_csv(kept).assign(model=name))
    table = pd.concat(found)
    table["sure"] = table["probability"] >= CONFIDENCE
    table["answered"] = table["sure"] & (table["novelty"] <= 1)
    table["group"] = table["kind"].str.split(":").str[0]
    for by in ("kind", "group"):
        rates = table.groupby([by, "model"])[["sure", "answered"]].mean().unstack("model")
        rates.columns = [f"{model}, {'confidence' if how == 'sure' else 'and novelty'}" for how, model in rates.columns]
        print(f"Share of recordings that are answered with a species, by {by}")
        print(rates.to_string(float_format="{:.3f}".format))


if __name__ == "__main__":
    main()
