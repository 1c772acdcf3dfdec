"""Run directories of 44 species with long names, as a training on the whole archive leaves them, in seconds.

The probabilities are drawn at random; recordings, spectrograms, report and sounds are made as they always are.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import yaml

from watkins_ml.audio.frontend import Frontend
from watkins_ml.audio.settings import FrontendSettings
from watkins_ml.dataset.layout import DataFolder, PreparedData
from watkins_ml.evaluation.controls import CONTROLS
from watkins_ml.evaluation.report import write_report
from watkins_ml.evaluation.result import evaluate

NAMES = """KillerWhale SpermWhale Long_FinnedPilotWhale PantropicalSpottedDolphin CommonDolphin StripedDolphin
Short_Finned(Pacific)PilotWhale HumpbackWhale Fin_FinbackWhale White_sidedDolphin SpinnerDolphin FalseKillerWhale
NorthernRightWhale BowheadWhale Grampus_Risso'sDolphin ClymeneDolphin Walrus AtlanticSpottedDolphin Fraser'sDolphin
White_beakedDolphin BottlenoseDolphin Beluga_WhiteWhale RossSeal MelonHeadedWhale WeddellSeal Rough_ToothedDolphin
Narwhal WestIndianManatee LongBeaked(Pacific)CommonDolphin BeardedSeal Dall'sPorpoise SouthernRightWhale HarpSeal
HarborPorpoise RingedSeal RibbonSeal GrayWhale Boutu_AmazonRiverDolphin DuskyDolphin MinkeWhale SpottedSeal LeopardSeal
Heaviside'sDolphin TucuxiDolphin""".split()
CLASSES = sorted(NAMES)
UNTESTED = "TucuxiDolphin"
RARE = "GrayWhale"
RATE = 16_000


class Spectrograms:
    """Computed when they are asked for, from the recordings."""

    def __init__(self, data: PreparedData, paths: list[str]):
        self._files, self._frontend = [data.audio_dir / path for path in paths], Frontend(data.frontend)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._frontend.file(self._files[row]).numpy()


def make_data(folder: Path, cuts: int = 8, tapes: int = 6) -> PreparedData:
    """Audio of the test side on disk: `cuts` of each species but one, from `tapes` tapes; one species is rare."""
    rng = np.random.default_rng(0)
    rows = []
    for label, species in enumerate(CLASSES):
        if species == UNTESTED:
            continue
        for cut in range(cuts):
            tape = f"{label + 10}{cut % (2 if species == RARE else tapes):03d}"
            path = f"{species}/{tape}{cut:03d}.wav"
            rows.append((path, species, label, tape, f"{tape}{cut:03d}"))
            (folder / "audio" / species).mkdir(parents=True, exist_ok=True)
            time = np.arange(RATE) / RATE
            call = np.sin(2 * np.pi * (200 + 150 * label) * time * (1 + 0.2 * time)) * (np.sin(20 * time) > 0)
            soundfile.write(folder / "audio" / path, 0.3 * call + 0.05 * rng.standard_normal(RATE), RATE)
    test = pd.DataFrame(rows, columns=["path", "species", "label", "tape", "cut_id"])
    train = test.assign(path="train/" + test.path, tape="t" + test.tape)
    train = pd.concat(
        [train, train[train.species != RARE].assign(cut_id="more"), train.head(1).assign(species=UNTESTED)]
    )
    settings = FrontendSettings(sample_rate=RATE)
    summary = {
        "data_digest": "44species",
        "audio_dir": str(folder / "audio"),
        "frontend": settings.model_dump(),
        "species_not_tested": {UNTESTED: "one tape only"},
    }
    sides = {"train": train, "val": test.head(0), "test": test}
    return PreparedData(DataFolder(folder), summary, CLASSES, sides)


def make_run(run_dir: Path, data: PreparedData, family: str, skill: float) -> Path:
    """A run directory with the test report of a model that is right the more often, the greater `skill`."""
    frame = data.sides["test"]
    rng = np.random.default_rng(int(skill))
    scores = rng.normal(size=(len(frame), len(CLASSES))) + skill * np.eye(len(CLASSES))[frame.label]
    spectrograms = Spectrograms(data, frame.path.tolist())
    evaluation = evaluate(frame.label.to_numpy(), scores, CLASSES)
    write_report(run_dir, "test", frame, evaluation, spectrograms, data=data)
    metrics = {f"test_{name}": value for name, value in evaluation.scores.items()} | {"best_epoch": 2}
    for number, name in enumerate(CONTROLS):
        metrics |= {f"control_{name}_accuracy": 0.03 + 0.06 * number, f"control_{name}_macro_f1": 0.02 + 0.05 * number}
    (run_dir / "reports/metrics.json").write_text(json.dumps(metrics))
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [3.0, 2, 1.5], "val_loss": [3.1, 2.2, 2.3]})
    for column in ("train_accuracy", "val_accuracy", "val_macro_f1"):
        history[column] = [0.2, 0.4, 0.45]
    history.to_csv(run_dir / "history.csv", index=False)
    config = {"model": {"name": family}, "train": {"epochs": 3}, "tracking": {"experiment": "watkins"}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    info = {"name": run_dir.name, "family": family, "data_digest": data.digest, "split_protocol": "tape", "species": 44}
    (run_dir / "run.json").write_text(json.dumps(info))
    return run_dir


def make_pair(folder: Path) -> tuple[Path, Path]:
    """A middling baseline and a better EfficientNet on the same 44 species."""
    data = make_data(folder)
    return (
        make_run(folder / "baseline", data, "baseline", 3),
        make_run(folder / "efficientnet", data, "efficientnet_b0", 4),
    )
