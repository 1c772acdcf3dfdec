import shutil
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def champions(finished, recipe, tmp_path_factory) -> Path:
    """A working folder with a champion baseline and a champion EfficientNet. Read only, but for comparisons."""
    from watkins_ml.runs.train import run_experiment
    from watkins_ml.tracking import registry
    from watkins_ml.tracking.server import client

    folder = tmp_path_factory.mktemp("champions") / "project"
    shutil.copytree(finished.folder, folder)
    frozen = ("train.epochs=1", "model.freeze_depth=9")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(folder)
        run_experiment(recipe("efficientnet", *frozen), Path("runs/second"))
        registry.promote(client(), "watkins-efficientnet/1")
    return folder


@pytest.fixture
def classifier(finished):
    """The trained baseline that most tests ask."""
    from watkins_ml.models.bundle import load_bundle

    return load_bundle(finished.run_dir / "model")
