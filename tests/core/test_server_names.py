"""Names of experiments and models: whatever is allowed works on a real store, and nothing that is refused is sent."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_experiment_name, _validate_model_name

from tests.support import EXPERIMENTS
from watkins_ml.config import load_config
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.core.server_names import is_experiment, is_model
from watkins_ml.tracking.server import experiment_id

RECIPE = EXPERIMENTS / "baseline.yaml"
NO_NAMES = ["", " ", "a ", " a", "a\nb", "a\x1b[31m", "a\0", "\u202ea", "x" * 201, "é" * 101, "..\\x", "a\\b", "..",
            ".", 7, None]  # fmt: skip
NO_EXPERIMENTS = [*NO_NAMES, "../../../x", "a/../b", "/..", "a/."]
NO_MODELS = [*NO_NAMES, "a/b", "/a", "a:b", "a'b", "a@b", "a?b", ".a", "../a"]
EXPERIMENTS = ["sea", "team/whales", "/Users/me@home/sea", "Wale 2026 (ü)", "a:b", "x" * 188, "...", "CON"]
MODELS = ["walrus", "Wale 2026 (ü)", "100%", "100%25", "a#b", 'a"b', "-x", "x" * 200]


@pytest.mark.parametrize("name", NO_EXPERIMENTS)
def test_no_experiment(name, store):
    assert not is_experiment(name)
    with pytest.raises(UserError, match="cannot name an experiment"):
        experiment_id(store, name)


@pytest.mark.parametrize("name", NO_MODELS)
def test_no_model(name):
    assert not is_model(name)


@pytest.mark.parametrize(
    ("key", "name"), [("experiment", "../../../x"), ("register_as", r"..\x"), ("register_as", "a/b")]
)
def test_a_recipe_with_such_a_name_is_refused_at_once(key, name):
    with pytest.raises(UsageError, match=rf"tracking\.{key} must be a name of at most 200 bytes.*, not"):
        load_config(RECIPE, [f"tracking.{key}={name}"])


def test_what_mlflow_refuses_is_refused():
    for name in NO_MODELS:
        try:
            _validate_model_name(name)
        except (MlflowException, TypeError, AttributeError):
            assert not is_model(name)
    for name in MODELS:
        _validate_model_name(name)
    for name in EXPERIMENTS:
        _validate_experiment_name(name)


def test_experiments_of_any_name_keep_their_artifacts_in_folders_of_their_own_in_the_store(store, tmp_path):
    made = {}
    for name in EXPERIMENTS:
        assert is_experiment(name)
        number = experiment_id(store, name)
        assert experiment_id(store, name) == number
        run = store.create_run(number)
        store.log_text(run.info.run_id, name, "name.txt")
        made[name] = next((tmp_path / "mlflow" / "artifacts").rglob(f"{run.info.run_id}/artifacts/name.txt"))
        assert made[name].read_text() == name
    assert experiment_id(store, f"{'x' * 200}-comparisons") != experiment_id(store, "x" * 200)
    assert len({path.parents[2] for path in made.values()}) == len(EXPERIMENTS)


def test_models_of_any_name_are_found_again(store):
    for name in MODELS:
        assert is_model(name)
        store.create_registered_model(name)
        version = store.create_model_version(name, "file:///nowhere")
        store.set_registered_model_alias(name, "champion", version.version)
        assert store.get_model_version_by_alias(name, "champion").name == name
        assert [each.name for each in store.search_model_versions(f"name='{name}'")] == [name]
