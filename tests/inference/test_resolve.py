import shutil

import pytest

from watkins_ml.core.errors import UserError
from watkins_ml.inference.resolve import file_name, load_classifier, pinned, run_directory
from watkins_ml.tracking.rundir import RunDirectory


@pytest.fixture
def project(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    return finished


@pytest.fixture
def run_id(project):
    return RunDirectory(project.run_dir).facts.mlflow_run_id


def uris(run_id: str) -> list[str]:
    return [
        "runs/first",
        "models:/watkins-baseline@champion",
        "models:/watkins-baseline/1",
        f"runs:/{run_id}",
        f"runs:/{run_id}/model",
    ]


def test_every_way_to_name_a_model_gives_the_same_classifier(project, run_id, archive):
    recording = next(archive.rglob("*.wav"))
    answers = {}
    for model in [*uris(run_id), "runs/first/model"]:
        classifier = load_classifier(model)
        assert classifier.facts["run"] == "first"
        answers[model] = classifier.classify([recording]).tobytes()
    assert len(set(answers.values())) == 1, answers.keys()


def test_every_way_to_name_a_run_gives_its_record(project, run_id):
    expected = {path: (project.run_dir / path).read_bytes() for path in ("history.csv", "reports/metrics.json")}
    for model in uris(run_id):
        with run_directory(model) as folder:
            assert folder.name == "first"
            assert {path: (folder / path).read_bytes() for path in expected} == expected


def test_a_downloaded_copy_is_gone_afterwards(project):
    with run_directory("models:/watkins-baseline@champion") as folder:
        assert not (folder / "checkpoints").exists()
    assert not folder.exists()


@pytest.mark.parametrize(
    "model",
    [
        "models:/walrus@champion",
        "models:/watkins-baseline@favourite",
        "models:/watkins-baseline/99",
        "models:/watkins-baseline/newest",
        "models:/watkins-baseline",
        "models:/",
        "runs:/0123456789abcdef0123456789abcdef",
        "runs:/",
    ],
)
@pytest.mark.parametrize("open_model", [load_classifier, lambda model: run_directory(model).__enter__()])
def test_an_unknown_uri_is_one_line_that_names_it_and_the_server(project, model, open_model):
    with pytest.raises(UserError) as caught:
        open_model(model)
    assert str(caught.value).startswith(f"{model}: not found on sqlite:///")
    assert "`watkins models` lists what there is" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_told_with_the_way_to_write_a_registered_model():
    with pytest.raises(UserError, match=r"runs/none: no such run directory; .*models:/NAME@champion"):
        load_classifier("runs/none")
    with pytest.raises(UserError, match="runs/none: not a run directory"):
        run_directory("runs/none").__enter__()


def test_a_run_that_did_not_get_to_its_model_says_what_is_missing(project, tmp_path):
    shutil.copytree(project.run_dir, tmp_path / "early", ignore=shutil.ignore_patterns("model"))
    with pytest.raises(UserError, match=r"early/model: no trained model here \(model\.json is missing\)"):
        load_classifier(str(tmp_path / "early"))


def test_a_model_of_another_program_is_refused(store, tmp_path):
    import mlflow

    mlflow.set_experiment("foreign")
    with mlflow.start_run() as run:
        (tmp_path / "MLmodel").write_text("flavors: {}\n")
        mlflow.log_artifact(str(tmp_path / "MLmodel"), "model")
    with pytest.raises(UserError, match="holds no watkins_ml model"):
        load_classifier(f"runs:/{run.info.run_id}")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("models:/watkins-baseline@champion", "watkins-baseline@champion"),
        ("models:/watkins-baseline/3", "watkins-baseline-3"),
        ("runs:/0123abcd", "runs-0123abcd"),
        ("../runs/first/", "runs-first"),
    ],
)
def test_every_model_can_name_a_file(model, name):
    assert file_name(model) == name


def test_an_alias_is_pinned_to_its_version_and_other_models_stay(finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    assert pinned("models:/watkins-baseline@champion") == "models:/watkins-baseline/1"
    for model in ("models:/watkins-baseline/1", "runs/a@b", str(finished.run_dir)):
        assert pinned(model) == model
    with pytest.raises(UserError, match=r"models:/walrus@champion: not found"):
        pinned("models:/walrus@champion")
