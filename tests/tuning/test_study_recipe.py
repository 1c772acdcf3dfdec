"""Recipes of studies: what may be searched, and the sentence that each mistake earns."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tests.support import EXPERIMENTS
from watkins_ml.core.errors import UsageError
from watkins_ml.tuning.recipe import StudyRecipe, load_study

LR = "optim.lr: {low: 0.0001, high: 0.01, log: true}"


def written(
    folder: Path, search: str, study: str = "trials: 3", base: str = "efficientnet", name: str = "mine"
) -> Path:
    """A recipe that searches `search`, one or more keys as YAML in flow style."""
    path = folder / f"{name}.yaml"
    path.write_text(f"base: {EXPERIMENTS / base}.yaml\nstudy: {{{study}, search: {{{search}}}}}\n", encoding="utf-8")
    return path


def message(recipe: Path, *overrides: str, **given: object) -> str:
    """The one-line error of a recipe that must be refused; it names the recipe."""
    with pytest.raises(UsageError) as error:
        load_study(recipe, overrides, **given)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def recipe(tmp_path):
    """A function that loads a recipe with this search space."""

    def recipe(search: str = LR, *overrides: str, **given: str) -> StudyRecipe:
        return load_study(written(tmp_path, search, **given), overrides)

    return recipe


def test_the_shipped_study_of_efficientnet_searches_learning_rate_and_freeze_depth():
    study = load_study(EXPERIMENTS / "tune-efficientnet.yaml")
    assert (study.name, study.settings.trials, study.settings.pruner) == ("tune-efficientnet", 20, "median")
    assert study.space == {
        "optim.lr": FloatDistribution(0.00003, 0.01, log=True),
        "model.freeze_depth": IntDistribution(0, 9),
    }
    assert study.own_point == {"optim.lr": 0.001, "model.freeze_depth": 4}
    assert study.config.augment == []


def test_the_shipped_study_of_the_baseline_loads():
    study = load_study(EXPERIMENTS / "tune-baseline.yaml")
    assert study.settings.trials == 20
    assert study.at(study.own_point) == study.config
    assert study.space["data.batch_size"] == CategoricalDistribution([8, 16, 32, 64])


@pytest.mark.parametrize("name", ["tune-efficientnet", "tune-baseline"])
def test_watkins_train_refuses_a_study_and_says_what_to_run(watkins, name):
    said = watkins("train", EXPERIMENTS / f"{name}.yaml")
    assert said.status == 2
    assert f"{name}.yaml" in said.err and "watkins tune" in said.err
    assert len(said.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("search", "right"),
    [
        ("", "study.search is empty; name at least one key"),
        ("optim.lrr: {low: 0.1, high: 1}", "study.search.optim.lrr: no such key in an experiment with efficientnet_b0"),
        ("optim.lrr: {low: 0.1, high: 1}", "did you mean optim.lr?"),
        ("freeze_depth: {low: 0, high: 9}", "did you mean model.freeze_depth?"),
        ("train.lr: {low: 0.0001, high: 0.1}", "did you mean optim.lr?"),
        ("optim: {lrr: {low: 0.1, high: 1}}", "study.search.optim.lrr: no such key"),
        ("1: {low: 0, high: 9}", "study.search.1: no such key"),
        ("model.name: {choices: [baseline, efficientnet_b0]}", "study.search.model.name: a study searches one model"),
        ("data.dir: {choices: [data, other]}", "study.search.data.dir: does not change"),
        ("train.device: {choices: [auto, cpu]}", "study.search.train.device: does not change"),
        ("data.feature_cache_gb: {low: 1, high: 20}", "study.search.data.feature_cache_gb: does not change"),
        ("tracking.experiment: {choices: [watkins, b]}", "study.search.tracking.experiment: does not change"),
        ("tracking.register_as: {choices: [a, null]}", "study.search.tracking.register_as: does not change"),
    ],
)
def test_keys_that_cannot_be_searched_are_refused(tmp_path, search, right):
    said = message(written(tmp_path, search))
    assert right in said and "mine.yaml" in said


def test_freeze_depth_of_the_baseline_is_refused_without_a_misleading_hint(tmp_path):
    said = message(written(tmp_path, "model.freeze_depth: {low: 0, high: 9}", base="baseline"))
    assert said.endswith("study.search.model.freeze_depth: no such key in an experiment with baseline")


@pytest.mark.parametrize(
    ("search", "right"),
    [
        ("optim.lr: 0.1", "optim.lr: write {low: …, high: …}"),
        ("optim.lr: null", "optim.lr: write {low: …, high: …}"),
        ("optim.lr: [0.1, 0.2]", "optim.lr: write {low: …, high: …}"),
        ("optim.lr: {low: 0.1}", "optim.lr: write {low: …, high: …}"),
        ("optim.lr: {low: 0.1, high: 1, lgo: true}", "optim.lr: write {low: …, high: …}"),
        ("optim.lr: {low: 0.1, high: 1, choices: [1]}", "optim.lr: give either choices or a range, not both"),
        ("optim.lr: {low: 0.01, high: 0.0001}", "optim.lr: low 0.01 is greater than high 0.0001"),
        ("optim.lr: {low: 0, high: 0.1, log: true}", "optim.lr: log needs low above 0, not 0"),
        ("optim.lr: {low: -1, high: 0.1, log: true}", "optim.lr: log needs low above 0, not -1"),
        ("optim.lr: {low: 0.001, high: 0.1, log: 1}", "optim.lr.log must be true or false, not 1"),
        ("optim.lr: {low: 0.001, high: 0.1, log: true, step: 0.1}", "optim.lr: log and step exclude each other"),
        ("optim.lr: {low: 0.001, high: 0.1, step: 0}", "optim.lr.step must be above 0, not 0"),
        ("optim.lr: {low: 0.001, high: 0.1, step: -0.1}", "optim.lr.step must be above 0, not -0.1"),
        ("optim.lr: {low: 0.001, high: 0.1, step: null}", "optim.lr.step must be a number, not None"),
        ("optim.lr: {low: true, high: 0.1}", "optim.lr.low must be a number, not True"),
        ("optim.lr: {low: 0.001, high: much}", "optim.lr.high must be a number, not 'much'"),
        ("optim.lr: {low: 0.001, high: .inf}", "optim.lr.high must be between -1e15 and 1e15"),
        ("optim.lr: {low: .nan, high: 0.1}", "optim.lr.low must be between -1e15 and 1e15"),
        (f"data.batch_size: {{low: 1, high: 1{'0' * 400}}}", "data.batch_size.high must be between -1e15 and 1e15"),
        ("model.freeze_depth: {low: 0, high: 9, step: 2}", "steps of 2 from low 0 do not meet high 9"),
        ("model.freeze_depth: {low: 0, high: 4, step: 5}", "steps of 5 from low 0 do not meet high 4"),
        ("model.dropout: {low: 0, high: 0.5, step: 0.2}", "steps of 0.2 from low 0 do not meet high 0.5"),
        ("model.freeze_depth: {low: 0, high: 8.5}", "model.freeze_depth: takes whole numbers only"),
        ("model.freeze_depth: {low: 0, high: 9.0}", "model.freeze_depth: takes whole numbers only"),
        ("model.freeze_depth: {low: 0, high: 8, step: 0.5}", "model.freeze_depth: takes whole numbers only"),
        ("augment.time_roll: {low: 0, high: 1}", "augment.time_roll: true is not a number; give {choices: […]}"),
        ("model.weights: {low: 0, high: 1}", 'model.weights: "imagenet" is not a number; give {choices: […]}'),
    ],
)
def test_ranges_that_contradict_themselves_are_refused(tmp_path, search, right):
    assert f"study.search.{search.split(':')[0]}" in (said := message(written(tmp_path, search)))
    assert right in said


@pytest.mark.parametrize(
    ("search", "right"),
    [
        ("model.freeze_depth: {low: 0, high: 12}", "model.freeze_depth must be less than or equal to 9, not 12"),
        ("model.freeze_depth: {low: -1, high: 9}", "model.freeze_depth must be greater than or equal to 0, not -1"),
        ("model.dropout: {low: 0, high: 1}", "model.dropout must be less than 1, not 1.0"),
        ("optim.lr: {low: 0, high: 0.1}", "optim.lr must be greater than 0, not 0.0"),
        ("data.batch_size: {choices: [32, 0]}", "data.batch_size must be greater than or equal to 1, not 0"),
        ("data.batch_size: {choices: [32, 16.5]}", "data.batch_size must be a whole number, not 16.5"),
        ("data.batch_size: {choices: [32, true]}", "data.batch_size must be a whole number, not True"),
        ("augment.time_roll: {choices: [true, 1.5]}", "augment.time_roll must be true or false, not 1.5"),
        (
            "train.class_weights: {choices: [balanced, equal]}",
            "train.class_weights must be 'balanced', 'sampled', 'tapes' or 'none'",
        ),
    ],
)
def test_values_that_a_recipe_may_not_have_are_refused(tmp_path, search, right):
    assert f"study.search.{search.split(':')[0]}: {right}" in message(written(tmp_path, search))


@pytest.mark.parametrize(
    "search",
    [
        "optim.lr: {low: 0.01, high: 0.1, log: true}",
        "model.freeze_depth: {low: 5, high: 9}",
        "model.freeze_depth: {low: 0, high: 9, step: 3}",
        "model.dropout: {low: 0, high: 0.6, step: 0.15}",
        "augment.time_roll: {choices: [false]}, model.freeze_depth: {low: 0, high: 9}",
        "data.batch_size: {choices: [8, 16]}",
    ],
)
def test_a_space_without_the_recipes_own_point_begins_with_a_drawn_one(recipe, search):
    study = recipe(search)
    assert study.own_point is None and study.first_points == []


def test_a_grid_is_every_combination_once_the_recipes_own_first(recipe):
    study = recipe(
        "model.freeze_depth: {low: 2, high: 6, step: 2}, optim.lr: {choices: [0.1, 0.001]}, "
        "model.dropout: {low: 0, high: 0.3, step: 0.1}",
        study="sampler: grid",
    )
    points = study.first_points
    assert study.settings.trials == len(points) == 3 * 2 * 4
    assert len({tuple(point.values()) for point in points}) == len(points)
    assert study.at(points[0]) == study.config
    assert {study.at(point).model.dropout for point in points} == {0.0, 0.1, 0.2, 0.3}
    assert {point["model.freeze_depth"] for point in points} == {2, 4, 6}


@pytest.mark.parametrize(
    ("search", "study", "right"),
    [
        (
            "optim.lr: {low: 0.0001, high: 0.1}",
            "sampler: grid",
            "study.search.optim.lr: a grid needs choices or a step",
        ),
        ("model.freeze_depth: {low: 0, high: 9}", "sampler: grid, trials: 7", "has 10 points, not 7"),
        ("data.batch_size: {low: 1, high: 20000}", "sampler: grid", "has 20,000 points, more than 10,000"),
        (
            "model.freeze_depth: {low: 0, high: 9}",
            "sampler: grids, trials: 7",
            "study.sampler must be 'tpe', 'random' or 'grid'",
        ),
    ],
)
def test_a_grid_that_has_no_end_or_another_size_is_refused(tmp_path, search, study, right):
    assert right in message(written(tmp_path, search, study))


@pytest.mark.parametrize(
    ("choices", "right"),
    [
        ("[]", "give a list of at least one value"),
        ("32", "give a list of at least one value"),
        ("[32, 16, 32]", "the same value stands there twice"),
        ("[32, 32.0]", "the same value stands there twice"),
        ("[32, [16]]", "each must be a single value, not [16]"),
        ("[32, {a: 1}]", "each must be a single value"),
        ("[32, 2020-01-01]", "each must be a single value, not 2020-01-01"),
        ("[32, .inf]", "must be between -1e15 and 1e15"),
    ],
)
def test_choices_that_are_none_are_refused(tmp_path, choices, right):
    said = message(written(tmp_path, f"data.batch_size: {{choices: {choices}}}"))
    assert "study.search.data.batch_size.choices" in said and right in said


@pytest.mark.parametrize(
    "search",
    ["model.freeze_depth: {low: 4, high: 4}", "data.batch_size: {choices: [32]}, optim.lr: {low: 0.001, high: 0.001}"],
)
def test_a_space_of_a_single_point_is_refused(tmp_path, search):
    assert "study.search allows a single point only; widen a range" in message(written(tmp_path, search))


@pytest.mark.parametrize(
    ("study", "right"),
    [
        ("trials: 3, pruners: median", "unknown key study.pruners; did you mean study.pruner?"),
        ("trials: 3, trails: 3", "unknown key study.trails; did you mean study.trials?"),
        ("trials: 3, 7: 3", "unknown key study.7"),
        ("sampler: tpe", "missing key study.trials"),
        ("trials: 0", "study.trials must be greater than or equal to 1, not 0"),
        ("trials: many", "study.trials must be a whole number, not 'many'"),
        ("trials: 3, sampler: grids", "study.sampler must be 'tpe', 'random' or 'grid', not 'grids'"),
        ("trials: 3, pruner: null", "study.pruner must be 'median', 'hyperband' or 'none', not None"),
        ("trials: 3, startup_trials: 0", "study.startup_trials must be greater than or equal to 1, not 0"),
        ("trials: 3, warmup_epochs: -1", "study.warmup_epochs must be greater than or equal to 0, not -1"),
        ("trials: 0, seed: -1", "study.seed must be"),
    ],
)
def test_settings_that_are_wrong_are_refused(tmp_path, study, right):
    assert right in message(written(tmp_path, LR, study=study))


def test_trials_from_the_command_line_are_checked_too(tmp_path):
    assert "study.trials must be greater than or equal to 1, not 0" in message(written(tmp_path, LR), trials=0)
    assert load_study(written(tmp_path, LR, study="seed: 1"), trials=7).settings.trials == 7


@pytest.mark.parametrize("name", ["a/b", "../a", ".hidden", "-x", "two words", "a\nb", "a" * 101])
def test_a_name_that_no_folder_may_have_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match=r"study name .* letters, digits, - _ and \."):
        load_study(written(tmp_path, LR), name=name)


def test_a_study_is_named_by_the_command_or_its_recipe_or_its_file(tmp_path):
    path = written(tmp_path, LR, study="trials: 3, name: whales-2")
    assert load_study(path, name="other").name == "other"
    assert load_study(path).name == "whales-2"
    assert load_study(written(tmp_path, LR, name="étude")).name == "étude"


@pytest.mark.parametrize("text", ["", "study: null", "study: 5", "study: [1]"])
def test_a_recipe_without_a_section_study_is_refused(tmp_path, text):
    path = tmp_path / "plain.yaml"
    path.write_text(f"base: {EXPERIMENTS / 'baseline.yaml'}\n{text}")
    assert message(path) == f"{path}: no section study; see experiments/tune-efficientnet.yaml"


@pytest.mark.parametrize("search", ["null", "[]", "5"])
def test_a_search_space_that_is_no_mapping_is_refused(tmp_path, search):
    path = tmp_path / "odd.yaml"
    path.write_text(f"base: {EXPERIMENTS / 'baseline.yaml'}\nstudy: {{trials: 2, search: {search}}}")
    assert "study.search is empty" in message(path)


def test_a_fault_in_the_experiment_itself_is_named_by_its_own_key(tmp_path):
    assert "unknown key optim.lrr; did you mean optim.lr?" in message(written(tmp_path, LR), "optim.lrr=1")


def test_every_form_of_a_range_becomes_its_distribution(recipe):
    space = recipe(
        "optim.lr: {low: 1e-4, high: 1, log: true}, optim.weight_decay: {low: 0, high: 1}, "
        "model.dropout: {low: 0, high: 0.5, step: 0.1}, model.freeze_depth: {low: 0, high: 8, step: 2}, "
        "data.batch_size: {low: 2, high: 64, log: true}, augment.time_roll: {choices: [true, false]}"
    ).space
    assert space == {
        "optim.lr": FloatDistribution(0.0001, 1.0, log=True),
        "optim.weight_decay": FloatDistribution(0.0, 1.0),
        "model.dropout": FloatDistribution(0.0, 0.5, step=0.1),
        "model.freeze_depth": IntDistribution(0, 8, step=2),
        "data.batch_size": IntDistribution(2, 64, log=True),
        "augment.time_roll": CategoricalDistribution([True, False]),
    }


@pytest.mark.parametrize("sampler", [optuna.samplers.RandomSampler(0), optuna.samplers.TPESampler(seed=0)])
def test_the_own_point_of_a_stepped_range_is_one_of_those_drawn_and_becomes_tidy_numbers(recipe, sampler):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    searched = recipe("model.dropout: {low: 0.0, high: 0.6, step: 0.1}", "model.dropout=0.3")
    assert searched.at(searched.own_point) == searched.config
    study = optuna.create_study(sampler=sampler)
    drawn = set()
    for _ in range(60):
        trial = study.ask(searched.space)
        drawn.add(trial.params["model.dropout"])
        study.tell(trial, 0.5)
    assert searched.own_point["model.dropout"] in drawn
    dropouts = {searched.at({"model.dropout": value}).model.dropout for value in drawn}
    assert dropouts == {0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6}


def test_a_part_of_a_range_can_be_changed_on_the_command_line(recipe):
    assert recipe(LR, "study.search.optim.lr.high=0.1").space["optim.lr"] == FloatDistribution(0.0001, 0.1, log=True)
    added = recipe(LR, "study.search.model.freeze_depth={low: 0, high: 9}", "study.trials=9")
    assert list(added.space) == ["optim.lr", "model.freeze_depth"]
    assert added.settings.trials == 9


def test_sections_within_sections_say_the_same_as_dotted_keys(recipe):
    assert recipe("optim: {lr: {low: 0.0001, high: 0.01, log: true}}").space == recipe(LR).space


@given(some.data())
@settings(max_examples=60, deadline=None)
def test_any_log_range_round_trips_and_its_points_become_exactly_these_experiments(tmp_path_factory, data):
    low = data.draw(some.floats(1e-8, 0.001))
    high = data.draw(some.floats(0.001, 999, exclude_min=True))
    recipe = written(tmp_path_factory.getbasetemp(), f"optim.lr: {{low: {low!r}, high: {high!r}, log: true}}")
    study = load_study(recipe)
    distribution = study.space["optim.lr"]
    assert (distribution.low, distribution.high, distribution.log) == (low, high, True)
    lr = data.draw(some.floats(low, high))
    flat = study.at({"optim.lr": lr}).flat()
    assert flat == study.config.flat() | {"optim.lr": lr}
    assert load_study(recipe).identity() == study.identity()
    wider = written(tmp_path_factory.getbasetemp(), f"optim.lr: {{low: {low!r}, high: {math.nextafter(high, 1e4)!r}}}")
    assert load_study(wider).identity() != study.identity()


def test_identity_follows_the_content_of_the_weights_and_not_their_place(recipe, tmp_path):
    first, copy, other = tmp_path / "a.pth", tmp_path / "elsewhere" / "b.pth", tmp_path / "c.pth"
    copy.parent.mkdir()
    first.write_bytes(b"weights")
    shutil.copy(first, copy)
    other.write_bytes(b"other weights")
    identities = [recipe(LR, f"model.weights={path}").identity() for path in (first, copy, other)]
    assert identities[0] == identities[1] != identities[2]
    assert str(tmp_path) not in str(identities)
    assert recipe(LR).identity()["model.weights"] == "imagenet"


@pytest.mark.parametrize(
    "override",
    [
        "study.trials=99", "data.dir=elsewhere", "train.device=cpu", "data.feature_cache_gb=1",
        "tracking.system_metrics=true",
    ],
)  # fmt: skip
def test_identity_ignores_where_and_how_long_a_study_runs(recipe, override):
    assert recipe(LR, override).identity() == recipe(LR).identity()


@pytest.mark.parametrize(
    "override",
    [
        "optim.lr=0.002", "train.epochs=9", "train.seed=1", "study.seed=1", "study.sampler=random",
        "study.pruner=none", "study.search.optim.lr.high=0.0100000001", "study.search.optim.lr.log=false",
    ],
)  # fmt: skip
def test_identity_changes_with_all_that_decides_what_is_found(recipe, override):
    changed, plain = recipe(LR, override).identity(), recipe(LR).identity()
    assert len([key for key in plain if changed[key] != plain[key]]) == 1


def test_search_params_can_be_read(recipe):
    searched = recipe("optim.lr: {low: 1e-5, high: 1, log: true}, model.dropout: {low: 0, high: 0.5, step: 0.1}, "
                      "model.freeze_depth: {low: 0, high: 9}, augment.time_roll: {choices: [true, false]}")  # fmt: skip
    assert searched.search_params() == {
        "study.search.optim.lr": "1e-05 to 1, log",
        "study.search.model.dropout": "0 to 0.5, step 0.1",
        "study.search.model.freeze_depth": "0 to 9",
        "study.search.augment.time_roll": "one of [true, false]",
    }
