"""How many right answers stay right on recorders of lower rates: test cuts resampled, and nothing else changed.

Each model is asked by `watkins predict --by file` about the cuts that its run has tested (or the test side of --data),
as they are and resampled (soxr), with "unknown" allowed and without (--max-novelty inf). Answers are kept, so a call
that was interrupted goes on where it was.

Example: python experiments/resampled.py ../shared/data/watkins10 results/real/watkins10/runs/imagenet/fold-1
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pandas as pd
import soundfile
import soxr
from real_data import print_table

RATES = (22_050, 11_025)
NOVELTY = {"with novelty": [], "without novelty": ["--max-novelty", "inf"]}
UNKNOWN = "unknown"


def cuts_of(model: str, data: Path | None) -> pd.DataFrame:
    """Path and species of the cuts that a model is asked about."""
    table = Path(model) / "preds" / "test.csv" if data is None else data / "annotations" / "test.csv"
    if not table.is_file():
        sys.exit(f"error: {table}: no such file; {model} needs a run directory that has tested, or give --data")
    return pd.read_csv(table, dtype=str, keep_default_na=False)[["path", "species"]]


def resampled(recordings: Path, path: str, rate: int, folder: Path) -> Path:
    """The cut as a recorder of this rate would have it (one of a lower native rate stays), as 32-bit floats."""
    place = (folder / str(rate) / path).with_suffix(".wav")
    if not place.exists():
        sound, native = soundfile.read(recordings / path, dtype="float32", always_2d=True)
        lower = sound if native <= rate else soxr.resample(sound, native, rate)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(".partial")
        soundfile.write(partial, lower, min(native, rate), format="WAV", subtype="FLOAT")
        partial.replace(place)
    return place


def answers(model: str, files: list[Path], how: list[str], kept: Path) -> pd.Series:
    """The species that is named for each file, or unknown; also where a file cannot be used."""
    if not kept.exists():
        said = subprocess.run(
            [sys.executable, "-m", "watkins_ml", "predict", model, *map(str, files), "--by", "file", *how,
             "--format", "csv"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        if not said.stdout:  # it has said why
            sys.exit(said.returncode or f"error: watkins predict {model} gave no answers")
        kept.parent.mkdir(parents=True, exist_ok=True)
        table = pd.read_csv(io.StringIO(said.stdout), dtype=str, keep_default_na=False)
        table[["path", "species"]].to_csv(kept.with_suffix(".partial"), index=False)
        kept.with_suffix(".partial").replace(kept)
    return pd.read_csv(kept, dtype=str, keep_default_na=False)["species"]


def members(model: str) -> list[str]:
    """The models that answer: those of the folds of a cross-validation, each for the cuts that it has tested."""
    return sorted(map(str, Path(model).glob("fold-*"))) or [model]


def row(species: pd.Series, native: pd.Series, lower: dict[int, pd.Series]) -> dict[str, str]:
    """Cells of one model: right answers to the cuts as they are, and what became of these."""
    right = native == species
    cells = {"cuts": str(len(species)), "right as they are": f"{right.sum()} ({right.mean():.1%})"}
    for rate, said in lower.items():
        stays, lost = (right & (said == species)).sum(), (right & (said == UNKNOWN)).sum()
        share = stays / right.sum() if right.any() else float("nan")
        cells[f"of these right at {rate:,} Hz"] = f"{stays} ({share:.1%}; {lost} unknown)"
    return cells


def asked(model: str, title: str, options: argparse.Namespace) -> pd.DataFrame:
    """Species of the cuts that one model is asked about, what it says of them as they are, and at each rate."""
    cuts = cuts_of(model, options.data)
    if options.most:
        cuts = cuts.iloc[:: -(-len(cuts) // options.most)].reset_index(drop=True)
    files = {"native": [options.recordings / path for path in cuts["path"]]}
    for rate in options.rates:
        files[str(rate)] = [resampled(options.recordings, path, rate, options.out) for path in cuts["path"]]
    key = hashlib.sha256("\n".join([str(Path(model).resolve()), *cuts["path"]]).encode()).hexdigest()[:12]
    kept = options.out / "answers" / f"{key}-{title.replace(' ', '-')}"
    return cuts.assign(
        **{name: answers(model, each, NOVELTY[title], kept / f"{name}.csv") for name, each in files.items()}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, help="the folder that the data were prepared from")
    parser.add_argument("models", nargs="+", help="run directories (also of cross-validations), or others with --data")
    parser.add_argument("--data", type=Path, help="prepared folder whose test side is asked about")
    parser.add_argument("--rates", type=int, nargs="+", default=list(RATES), help="Hz")
    parser.add_argument("--most", type=int, help="only so many cuts a model, evenly over its table, for a trial")
    parser.add_argument("--out", type=Path, default=Path("results/resampled"))
    options = parser.parse_args()
    if not options.recordings.is_dir():
        parser.error(f"{options.recordings}: no such folder")
    rows = {}
    for model in options.models:
        for title in NOVELTY:
            every = pd.concat([asked(each, title, options) for each in members(model)], ignore_index=True)
            lower = {rate: every[str(rate)] for rate in options.rates}
            rows[f"{model}, {title}"] = row(every["species"], every["native"], lower)
    print(f"Test cuts of {options.recordings.name}, resampled and nothing else:\n")
    print_table(pd.DataFrame(rows).T)


if __name__ == "__main__":
    main()
