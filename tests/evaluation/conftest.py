import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from tests.support.pictures import drawing
from tests.support.splits import CLASSES, make_split
from watkins_ml.core.files import write_csv
from watkins_ml.evaluation import report
from watkins_ml.evaluation.controls import CONTROLS
from watkins_ml.evaluation.result import evaluate
from watkins_ml.evaluation.runs import TEST_REPORT


def make_run(run_dir: Path, family: str, skill: float, digest: str = "d1", protocol: str = "tape") -> Path:
    """A complete run directory, as training and the final report leave it."""
    run_dir.mkdir(parents=True)
    frame, probabilities = make_split(60, skill)
    evaluation = evaluate(frame.label.to_numpy(), np.log(probabilities), CLASSES)
    species, pairs, predictions, *pictures = (run_dir / name for name in TEST_REPORT)
    write_csv(species, evaluation.per_species)
    write_csv(pairs, evaluation.confusion_pairs)
    for picture in pictures:  # test_report.py draws the real ones, which takes seconds
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").save(picture, "PNG")
    columns = pd.DataFrame(evaluation.probabilities, columns=[f"p_{name}" for name in CLASSES])
    table = report.prediction_table(frame, evaluation)
    write_csv(predictions, pd.concat([table, columns], axis=1))
    flat = {f"{side}_{name}": value for side in ("test", "best_val") for name, value in evaluation.scores.items()}
    controls = {f"control_{name}_accuracy": 0.3 for name in CONTROLS if name != "site"}
    controls["control_spectrum_accuracy"] = 0.4
    (run_dir / "reports/metrics.json").write_text(json.dumps(flat | controls | {"best_epoch": 2}))
    history = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [2.0, 1, 0.5], "val_loss": [2.1, 1.2, 1.3]})
    for column in ("train_accuracy", "val_accuracy", "val_macro_f1"):
        history[column] = [0.3, 0.6, 0.7]
    history.to_csv(run_dir / "history.csv", index=False)
    config = {"model": {"name": family}, "optim": {"lr": 0.1 * skill}, "train": {"epochs": 3}}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    info = {
        "name": run_dir.name,
        "family": family,
        "data_digest": digest,
        "split_protocol": protocol,
        "mlflow_run_id": "abc",
        "parameters": None if family == "baseline" else 4_063_000,
        "epoch_seconds": 12.5,
    }
    (run_dir / "run.json").write_text(json.dumps(info))
    return run_dir


@pytest.fixture(scope="module", autouse=True)
def coarse_pictures():
    """Real pictures, but small: drawing them at full size is most of the time that these tests take."""
    with drawing(dpi=40):
        yield


@pytest.fixture(scope="session")
def run_dirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A weak baseline and a strong EfficientNet on one digest. Read only: copy before changing."""
    root = tmp_path_factory.mktemp("runs")
    return {
        "baseline": make_run(root / "b", "baseline", skill=1),
        "efficientnet_b0": make_run(root / "e", "efficientnet_b0", skill=6),
    }


@pytest.fixture
def change_info() -> Callable[..., None]:
    def change(run_dir: Path, **values: object) -> None:
        path = run_dir / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change
