"""A registered model where this package is not, or is another: it brings its code, and what it requires is public."""

from __future__ import annotations

import base64
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml
from mlflow.models import ModelSignature

import watkins_ml
from tests.support import forked
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.inference.by_file import predict_files
from watkins_ml.models.bundle import load_bundle
from watkins_ml.serving.audio_table import INPUTS, OUTPUTS
from watkins_ml.serving.packing import carried_code
from watkins_ml.tracking.server import client

MODEL = "models:/watkins-baseline@champion"
UNWANTED = {"demo", "fetch", "__pycache__"}


@pytest.fixture(scope="module")
def store_uri(finished) -> str:
    return f"sqlite:///{finished.folder}/mlflow/mlflow.db"


@pytest.fixture
def registered(store_uri, monkeypatch) -> Path:
    """The files of the champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    client()
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=MODEL))


@pytest.fixture
def noise(tmp_path) -> Path:
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 4_000), 8_000)
    return tmp_path / "noise.wav"


@pytest.fixture
def expected(finished, noise) -> dict:
    (row,) = predict_files(load_bundle(finished.run_dir / "model"), [noise]).to_dict("records")
    return row


def test_what_it_requires_anybody_can_install(registered):
    required = (registered / "requirements.txt").read_text().split()
    names = [name for name, _, number in (line.partition("==") for line in required) if number]
    assert len(names) == len(required) and {"mlflow", "torch", "torchaudio", "soundfile", "soxr"} <= set(names)
    assert required == [f"{name}=={version(name).split('+')[0]}" for name in names]
    assert not [line for line in required if "+" in line or "/" in line or "watkins" in line]
    conda = yaml.safe_load((registered / "conda.yaml").read_text())
    assert conda["dependencies"][-1] == {"pip": required}
    assert "watkins-ml" not in "".join(path.read_text() for path in registered.glob("*.y*ml"))


def test_its_code_is_a_package_of_its_own_that_imports_nothing_of_this_one(registered):
    (package,) = (registered / "code").iterdir()
    # Python leaves its bytecode beside the code of a model once that has been loaded, as another test may have done
    files = [path for path in package.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert package.name == carried_code("baseline").name != "watkins_ml"
    assert {path.relative_to(package).as_posix() for path in files} == set(carried_code("baseline").files)
    assert sum(path.stat().st_size for path in files) < 1_000_000
    assert not {part for name in carried_code("baseline").files for part in name.split("/")} & UNWANTED
    for path in [*files, registered / "served_model.py"]:
        assert not re.search(r"^\s*(from|import) watkins_ml\b", path.read_text(), flags=re.M), path


ASK = """
import json, sys
class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name == "watkins_ml" and sys.argv[3] == "nowhere":
            raise ImportError(name)
sys.meta_path.insert(0, Nowhere())
import mlflow, pandas
answer = mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame({"path": [sys.argv[2]]}))
mine = sorted({name.partition(".")[0] for name in sys.modules if name.startswith("watkins_ml")})
print(json.dumps([answer.to_dict("records"), mine]))
"""


def ask(store_uri: str, noise: Path, folder: Path, ours: str) -> tuple[dict, list[str]]:
    """What the champion says in a process without this checkout, and which packages of ours that has imported."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", ASK, MODEL, noise, ours]
    done = forked.run(
        command,
        fresh=True,
        cwd=folder,
        env=environment | {"MLFLOW_TRACKING_URI": store_uri},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ((answer,), packages) = json.loads(done.stdout.splitlines()[-1])
    return answer, packages


@pytest.mark.slow
def test_it_answers_where_this_package_is_not(store_uri, noise, expected, tmp_path):
    answer, packages = ask(store_uri, noise, tmp_path, "nowhere")
    assert packages == [carried_code("baseline").name]
    assert (answer["species"], answer["novelty"]) == ("unknown", pytest.approx(expected["novelty"], rel=1e-3))


@pytest.mark.slow
def test_it_answers_by_its_own_code_where_another_version_of_this_package_is(store_uri, noise, expected, tmp_path):
    (tmp_path / "watkins_ml").mkdir()
    (tmp_path / "watkins_ml" / "__init__.py").write_text("__version__ = '99'\n")
    answer, packages = ask(store_uri, noise, tmp_path, "another")
    assert packages == [carried_code("baseline").name] and answer["species"] == expected["species"]


def test_it_leaves_a_process_its_own_version(registered, noise, expected):
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "watkins_ml"}
    answer = mlflow.pyfunc.load_model(MODEL).predict(pd.DataFrame({"path": [str(noise)]}))
    assert answer["novelty"].tolist() == pytest.approx([expected["novelty"]], rel=1e-3)
    assert all(sys.modules[name] is module for name, module in before.items())
    assert sys.modules["watkins_ml"] is watkins_ml and carried_code("baseline").name in sys.modules


EARLIER = """
from pathlib import Path
import mlflow
import pandas as pd
from watkins_ml.models.bundle import UNKNOWN, load_bundle
from watkins_ml.serving.audio_table import table_windows

class SpeciesModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.classifier = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context, model_input, params=None):
        probabilities, novelty = self.classifier.predict(table_windows(self.classifier.frontend, model_input))
        return pd.DataFrame({"species": [UNKNOWN if new > 1 else "known" for new in novelty], "novelty": novelty})

mlflow.models.set_model(SpeciesModel())
"""


def test_a_model_of_an_earlier_version_answers_where_this_package_is(finished, noise, expected, tmp_path):
    (tmp_path / "served_model.py").write_text(EARLIER)
    mlflow.pyfunc.save_model(
        tmp_path / "earlier", python_model=str(tmp_path / "served_model.py"),
        artifacts={"bundle": str(finished.run_dir / "model")}, signature=ModelSignature(INPUTS, OUTPUTS),
        pip_requirements=["watkins-ml==0.1.0"],
    )  # fmt: skip
    answer = mlflow.pyfunc.load_model(str(tmp_path / "earlier")).predict(pd.DataFrame({"path": [str(noise)]}))
    assert answer["species"].tolist() == ["unknown"]
    assert answer["novelty"].tolist() == pytest.approx([expected["novelty"]], rel=1e-3)


def run_mlflow(store_uri: str, folder: Path, *arguments: object) -> None:
    """The `mlflow` command from a folder in which this checkout cannot be imported."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    programs = {"MLFLOW_TRACKING_URI": store_uri} | forked.children_too()
    command = [sys.executable, "-m", "mlflow", "models", *arguments]
    done = forked.run(command, fresh=True, cwd=folder, env=environment | programs, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["json", "csv"])
def test_mlflow_models_predict_judges_a_file_of_recordings(store_uri, noise, expected, tmp_path, kind):
    table = pd.DataFrame({"audio": [base64.b64encode(noise.read_bytes()).decode()] * 2})
    if kind == "csv":
        table.to_csv(tmp_path / "in", index=False)
    else:
        (tmp_path / "in").write_text(json.dumps({"dataframe_split": table.to_dict("split", index=False)}))
    arguments = ["-m", MODEL, "-i", "in", "-t", kind, "-o", "out", "--env-manager", "local"]
    run_mlflow(store_uri, tmp_path, "predict", *arguments)
    answers = json.loads((tmp_path / "out").read_text())["predictions"]
    assert [(row["species"], row["novelty"]) for row in answers] == [
        ("unknown", pytest.approx(expected["novelty"], rel=1e-3))
    ] * 2


@pytest.mark.slow
def test_the_docker_file_that_mlflow_generates_installs_what_anybody_can_install(store_uri, tmp_path):
    run_mlflow(store_uri, tmp_path, "generate-dockerfile", "-m", MODEL, "-d", "docker", "--env-manager", "local")
    steps = (tmp_path / "docker" / "Dockerfile").read_text()
    assert f"RUN pip install mlflow=={version('mlflow')}" in steps and "COPY model_dir /opt/ml/model" in steps
    assert "C._install_pyfunc_deps('/opt/ml/model'" in steps and "watkins" not in steps
    model = tmp_path / "docker" / "model_dir"
    assert [path.name for path in (model / "code").iterdir()] == [carried_code("baseline").name]
    assert "watkins" not in (model / "requirements.txt").read_text()


@pytest.mark.slow
def test_mlflow_evaluates_it_as_a_classifier(store, registered, prepared, finished, monkeypatch, tmp_path):
    """Whose results go into a store of this test's own."""
    said = pd.read_csv(finished.run_dir / "preds" / "test.csv")
    files = [str(read_prepared(prepared).audio_dir / path) for path in said["path"]]
    data = pd.DataFrame({"path": files, "species": said["species"]})
    answers = mlflow.pyfunc.load_model(MODEL).predict(data[["path"]])["species"]
    assert answers.nunique() > 1
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow/mlflow.db")
    client()
    result = mlflow.models.evaluate(str(registered), data, targets="species", model_type="classifier")
    assert result.metrics["accuracy_score"] == pytest.approx((answers == data["species"]).mean())
    assert result.metrics["example_count"] == len(data)


@pytest.mark.slow
def test_spark_judges_a_column_of_recordings(registered, noise, expected):
    sql = pytest.importorskip("pyspark.sql")
    spark = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        judge = mlflow.pyfunc.spark_udf(spark, MODEL, env_manager="local")
        table = spark.createDataFrame([(noise.read_bytes(),)], "audio binary")
        (row,) = table.select(judge(sql.functions.struct("audio")).alias("said")).collect()
        assert (row.said.species, row.said.novelty) == ("unknown", pytest.approx(expected["novelty"], rel=1e-3))
    finally:
        spark.stop()
