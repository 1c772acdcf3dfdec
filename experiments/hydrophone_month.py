"""A simulated hydrophone deployment: do chosen thresholds keep the false alarms that they promise, and what is found?

Calls of four species of watkins21 with much of their sound below 1 kHz are put into real noise (the parts of the Samaná
recordings that somebody listened to and heard nothing in) at known times and levels: into 90 recordings to train on,
hours to choose thresholds on, and hours to test on. No tape and no second of noise is in two of these. Thresholds for
one false alarm an hour and species are chosen on the first hours and judged on the others; recall is shown by the ratio
of a call's level to that of the noise around it.

With `--as-one` the detector is asked for a call of any of the four, without its species.

The noise is 20 minutes of one night, of which each part has blocks from its beginning to its end, repeated in pieces
that are turned around and made louder or softer: more hours say more about calls than about noise, and a real month has
storms and ships that this one has not.

Example: python experiments/hydrophone_month.py ../shared --out results/hydrophone --hours 4
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
from matplotlib.figure import Figure
from real_data import RECIPES, finished, watkins

from watkins_ml.evaluation.detection.bounds import share_interval
from watkins_ml.evaluation.detection.scores import MICRO
from watkins_ml.evaluation.plots import RUN_COLOURS, new_figure, open_axes, save

RATE = 2_000
SPECIES = ("BeardedSeal", "HumpbackWhale", "NorthernRightWhale", "Walrus")
NOISE = "*allnoise*"
LONGEST_S = 3.0
PIECE_S, FADE_S = 20.0, 0.5
BLOCK_S = 30.0
TURNS = ("train", "val", "train", "test", "train")
"""The blocks of a noise recording go to the sides in turn, so that each has heard the whole night. One recording has a
loud event every three minutes, which is every sixth block: in turns of four training never hears it."""
SIDES = ("train", "val", "test")
LEVELS = (-10.0, 20.0)
"""Decibels of a call above the noise around it, drawn evenly."""
BINS = np.arange(LEVELS[0], LEVELS[1] + 1, 5.0)
MINUTES = {"train": 2.0, "val": 30.0, "test": 30.0}
"""Of one recording."""
CALLS_AN_HOUR = {"train": 480.0, "val": 24.0, "test": 24.0}
"""Of all species together."""
TRAINED = 90
"""Recordings to train on."""
PROMISED = 1.0
ANY = "AnyWhale"
"""Label of all calls with `--as-one`."""


def calls_of(shared: Path, seed: int) -> dict[str, dict[str, list[np.ndarray]]]:
    """The calls of each side and species; of a species' tapes a quarter, but one at least, is val's, and test's."""
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, list[np.ndarray]]] = {side: {} for side in SIDES}
    for species in SPECIES:
        files = sorted((shared / "data" / "watkins21" / species).glob("*.flac"))
        tapes = rng.permutation(sorted({file.name[:5] for file in files})).tolist()
        few = max(1, len(tapes) // 4)
        of = {"val": tapes[:few], "test": tapes[few : 2 * few], "train": tapes[2 * few :]}
        for side, mine in of.items():
            found[side][species] = [_call(file) for file in files if file.name[:5] in mine]
    return found


def _call(file: Path) -> np.ndarray:
    """The loudest seconds of a cut, with both ends faded."""
    sound, rate = soundfile.read(file, dtype="float32", always_2d=True)
    call = soxr.resample(sound.mean(axis=1) - sound.mean(), rate, RATE)
    size = min(len(call), round(LONGEST_S * RATE))
    power = np.convolve(call**2, np.ones(size), mode="valid")
    call = call[power.argmax() :][:size]
    ramp = np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / (0.05 * RATE))
    return call * ramp


def noise_of(shared: Path, side: str, turns: Sequence[str] = TURNS) -> list[np.ndarray]:
    """The blocks of the noise recordings that a side has."""
    folder, parts = shared / "data" / "samana", []
    for table in sorted((folder / "tables").glob(NOISE)):
        sound, rate = soundfile.read(folder / "audio" / f"{table.name.partition('_annot')[0]}.flac", dtype="float32")
        sound, size = soxr.resample(sound, rate, RATE), round(BLOCK_S * RATE)
        blocks = [sound[first : first + size] for first in range(0, len(sound) - size + 1, size)]
        parts += [block for number, block in enumerate(blocks) if turns[number % len(turns)] == side]
    return parts


def background(parts: list[np.ndarray], seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of any length: pieces from anywhere, forwards or backwards, up to 3 dB louder or softer, faded over."""
    size, fade = round(PIECE_S * RATE), round(FADE_S * RATE)
    total = round(seconds * RATE)
    made = np.zeros(total + size, np.float32)
    ramp = np.sqrt(np.minimum(1, np.minimum(np.arange(size) + 1, np.arange(size)[::-1] + 1) / fade))
    for start in range(0, total, size - fade):
        part = parts[rng.integers(len(parts))]
        first = rng.integers(len(part) - size)
        piece = part[first : first + size][:: rng.choice([-1, 1])] * 10 ** (rng.uniform(-3, 3) / 20)
        made[start : start + size] += piece * ramp
    return made[:total]


def write_side(
    folder: Path, side: str, recordings: int, shared: Path, seed: int, turns: Sequence[str] = TURNS
) -> pd.DataFrame:
    """Recordings of a side and the table of their calls: file, start_s, end_s, species, level_db."""
    table = folder / f"{side}.csv"
    if table.exists():
        return pd.read_csv(table)
    rng = np.random.default_rng([seed, SIDES.index(side)])
    calls, noise = calls_of(shared, seed)[side], noise_of(shared, side, turns)
    (folder / side).mkdir(parents=True, exist_ok=True)
    rows, seconds = [], 60 * MINUTES[side]
    for number in range(recordings):
        sound = background(noise, seconds, rng)
        slots = np.arange(0, seconds - 2 * LONGEST_S, 2 * LONGEST_S)  # so that no two calls overlap
        count = min(len(slots), rng.poisson(CALLS_AN_HOUR[side] * seconds / 3600))
        for slot in sorted(rng.choice(slots, count, replace=False)):
            species = SPECIES[rng.integers(len(SPECIES))]
            call = calls[species][rng.integers(len(calls[species]))]
            start = round((slot + rng.uniform(0, LONGEST_S)) * RATE)
            around, level = sound[start : start + len(call)], rng.uniform(*LEVELS)
            ratio = np.sqrt((around**2).mean() / max((call**2).mean(), 1e-20)) * 10 ** (level / 20)
            sound[start : start + len(call)] += (call * ratio).astype(np.float32)
            rows.append((f"{side}_{number:03d}.flac", start / RATE, (start + len(call)) / RATE, species, level))
        sound *= min(1.0, 0.99 / np.abs(sound).max())
        soundfile.write(folder / side / f"{side}_{number:03d}.flac", sound, RATE)
    truth = pd.DataFrame(rows, columns=["file", "start_s", "end_s", "species", "level_db"])
    truth.round(4).to_csv(table, index=False)
    return truth


def recall_by_level(truth: pd.DataFrame, verdicts: pd.DataFrame) -> pd.DataFrame:
    """Recall of each species and of all, by level: a row each with calls, hits and the bounds of the interval."""
    hits = verdicts[verdicts["verdict"] == "hit"]
    found = set(zip(hits["recording"], hits["call_start_s"].round(2), strict=True))  # no two calls are at one time
    of_calls = zip(truth["file"], truth["start_s"].round(2), strict=True)
    truth = truth.assign(hit=[each in found for each in of_calls], bin=pd.cut(truth["level_db"], BINS, right=False))
    rows = []
    for species in (*SPECIES, MICRO):
        mine = truth if species == MICRO else truth[truth["species"] == species]
        for span, part in mine.groupby("bin", observed=False):
            recall = share_interval(int(part["hit"].sum()), len(part), np.empty(0))
            rows.append((species, span.left, span.right, len(part), int(part["hit"].sum()), *recall))
    columns = ["species", "from_db", "to_db", "calls", "hits", "recall", "recall_low", "recall_high"]
    return pd.DataFrame(rows, columns=columns)


def draw(levels: pd.DataFrame) -> Figure:
    """Recall against level, each species and all of them with their interval."""
    fig = new_figure(7.0, 5.0)
    axes = fig.subplots()
    for (species, part), colour in zip(levels.groupby("species", sort=False), [*RUN_COLOURS[:4], "black"], strict=True):
        middle = (part["from_db"] + part["to_db"]) / 2
        axes.plot(middle, part["recall"], color=colour, lw=2.5 if species == MICRO else 1.4, marker="o", label=species)
        if species == MICRO:
            axes.fill_between(middle, part["recall_low"], part["recall_high"], color=colour, alpha=0.12, lw=0)
    axes.set_xlabel("level of a call above the noise around it, dB")
    axes.set_ylabel("recall")
    axes.set_ylim(0, 1.01)
    open_axes(axes)
    fig.legend(loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    return fig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results/hydrophone"))
    parser.add_argument("--hours", type=float, default=4.0, help="to choose thresholds on, and as many to test on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--as-one", action="store_true", help="one detector of calls, of whichever of the species")
    parser.add_argument("--turns", choices=SIDES, nargs="+", default=TURNS, help="which side has which noise in turn")
    asked = parser.parse_args()
    shared, out = asked.shared.resolve(), asked.out.resolve()
    (out / "mlflow").mkdir(parents=True, exist_ok=True)
    recordings = {side: round(60 * asked.hours / MINUTES[side]) for side in ("val", "test")} | {"train": TRAINED}
    truth = {side: write_side(out, side, count, shared, asked.seed, asked.turns) for side, count in recordings.items()}
    for side, calls in truth.items():
        asked_for = calls.assign(species=ANY) if asked.as_one else calls
        asked_for.round(4).to_csv(out / f"{side}_asked.csv", index=False)
    watkins(out, "prepare", "train", "--annotations", "train_asked.csv", "--reviewed", "all", "--out", "data",
            "--sample-rate", str(RATE), "--seconds", "2.0", "--mels", "64")  # fmt: skip
    if not finished(out / "run"):
        watkins(out, "train", str(RECIPES / "baseline.yaml"), "--run-dir", "run", "-o", f"train.epochs={asked.epochs}",
                "-o", "data.dir=data", "-o", "tracking.register_as=null")  # fmt: skip
    of = ("evaluate", "run", "--max-novelty", "inf", "--annotations")  # every tape is new to so few
    watkins(out, *of, "val_asked.csv", "--recordings", "val", "--reviewed", "all", "--out", "chosen",
            "--false-alarms", f"{PROMISED:g}/h", "--save-thresholds")  # fmt: skip
    watkins(out, *of, "test_asked.csv", "--recordings", "test", "--reviewed", "all", "--out", "tested")
    scores = pd.read_csv(out / "tested" / "reports" / "detection_species.csv")
    scores = scores[(scores["criterion"] == "centre") & scores["species"].isin([*SPECIES, ANY])].set_index("species")
    columns = ["false_alarms_an_hour", "false_alarms_an_hour_low", "false_alarms_an_hour_high"]
    kept = scores[["threshold", "calls", "recall", "false_alarms", "hours", *columns]]
    kept = kept.assign(kept=(kept[columns[1]] <= PROMISED))
    print(f"\nPromised: at most {PROMISED:g} false alarms an hour of each; on unseen hours:")
    print(kept.round(3).to_string())
    levels = recall_by_level(truth["test"], pd.read_csv(out / "tested" / "preds" / "detection_verdicts.csv"))
    shown = levels[levels["species"] == MICRO].drop(columns="species").round(3)
    print(f"\nRecall by level above the noise, dB:\n{shown.to_string(index=False)}")
    levels.to_csv(out / "recall_by_level.csv", index=False)
    save(draw(levels), out / "recall_by_level.png")
    facts = {"promised_an_hour": PROMISED, "hours": asked.hours, "seed": asked.seed, "as_one": asked.as_one}
    facts["species"] = json.loads(kept.to_json(orient="index"))
    (out / "kept.json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
