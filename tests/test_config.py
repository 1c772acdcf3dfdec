"""Recipes: what is accepted, and the sentence that each mistake earns."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import yaml

from tests.support import EXPERIMENTS
from watkins_ml.config import ExperimentConfig, load_config, validate
from watkins_ml.config.recipe_files import set_value
from watkins_ml.core.errors import UsageError

DESIGN_KEYS = yaml.safe_load("""
model:    {name: efficientnet_b0, weights: imagenet, freeze_depth: 0, dropout: 0.2}
data:     {dir: data, batch_size: 32}
optim:    {lr: 0.0003, weight_decay: 0.01}
train:    {epochs: 10, seed: 0, amp: auto, early_stopping_patience: 3, class_weights: balanced}
tracking: {experiment: watkins, register_as: watkins-efficientnet}
""")


def shipped(name: str) -> list[str]:
    return sorted(path.name for path in EXPERIMENTS.glob(f"{name}*.yaml"))


def message(recipe: Path, *overrides: str) -> str:
    """The one-line error of a recipe that must be refused; it names the recipe or the override."""
    with pytest.raises(UsageError) as error:
        load_config(recipe, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def write(tmp_path):
    """A function that writes a recipe: the shipped baseline with some text added, or another text alone."""

    def write(text: str, name: str = "mine.yaml", base: Path | str | None = EXPERIMENTS / "baseline.yaml") -> Path:
        path = tmp_path / name
        path.write_text((f"base: {base}\n" if base else "") + text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("name", [*shipped("baseline"), *shipped("efficientnet")])
def test_shipped_recipes_load(name):
    assert load_config(EXPERIMENTS / name).train.epochs <= 10


@pytest.mark.parametrize("name", ["baseline.yaml", "efficientnet.yaml"])
def test_a_configuration_goes_to_another_process(name):
    config = load_config(EXPERIMENTS / name)
    again = pickle.loads(pickle.dumps(config))
    assert again == config and type(again) is type(config)


def test_shipped_recipes_differ_in_model_and_registered_name():
    baseline, efficientnet = (load_config(EXPERIMENTS / f"{name}.yaml") for name in ("baseline", "efficientnet"))
    assert (baseline.model.name, baseline.tracking.register_as) == ("baseline", "watkins-baseline")
    assert (efficientnet.model.name, efficientnet.tracking.register_as) == ("efficientnet_b0", "watkins-efficientnet")


@pytest.mark.parametrize("key", sorted(f"{part}.{key}" for part, keys in DESIGN_KEYS.items() for key in keys))
def test_the_keys_that_design_fixes_are_accepted(key):
    section, name = key.split(".")
    value = DESIGN_KEYS[section][name]
    override = f"{key}={yaml.safe_dump(value).splitlines()[0]}"
    config = load_config(EXPERIMENTS / "efficientnet.yaml", [override])
    assert config.flat()[key] == value


@pytest.mark.parametrize("name", ["baseline", "efficientnet"])
def test_yaml_form_reads_back_as_the_same_configuration(name, write):
    config = load_config(EXPERIMENTS / f"{name}.yaml", ["data.dir=Bjørn's data, no. 1"])
    assert load_config(write(config.to_yaml(), base=None)) == config


@pytest.mark.parametrize("name", ["baseline", "efficientnet"])
def test_flat_form_holds_every_value_under_its_dotted_key(name):
    config = load_config(EXPERIMENTS / f"{name}.yaml", ["train.seed=7"])
    flat = config.flat()
    assert flat["train.seed"] == 7
    assert not any(isinstance(value, dict) for value in flat.values())
    assert flat["augment.0.name"] == "time_roll"
    tree: dict = {"augment": [{}]}
    for key, value in flat.items():
        set_value(tree, key.split("."), value)
    assert validate(tree, "flat") == config


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("optim.lr=1e-3", "optim.lr", 0.001),
        ("optim.lr=5E-4", "optim.lr", 0.0005),
        ("optim.lr=1", "optim.lr", 1.0),
        (" train.epochs=3", "train.epochs", 3),
        ("train.class_weights=none", "train.class_weights", "none"),
        ("tracking.register_as=null", "tracking.register_as", None),
        ("data.dir=a=b", "data.dir", "a=b"),
        ("data.dir=my data/run 1e-3", "data.dir", "my data/run 1e-3"),
    ],
)
def test_overrides_set_values_of_the_right_type(override, key, value):
    assert load_config(EXPERIMENTS / "baseline.yaml", [override]).flat()[key] == value


def test_the_last_override_wins():
    assert load_config(EXPERIMENTS / "baseline.yaml", ["train.seed=1", "train.seed=2"]).train.seed == 2


def test_scientific_notation_is_a_number_in_a_recipe_too(write):
    assert load_config(write("optim: {lr: 1e-3}")).optim.lr == 0.001


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("optim.learning_rate=1", "unknown key optim.learning_rate"),
        ("optim.lrr=1", "did you mean optim.lr?"),
        ("model.freeze_dept=1", "did you mean model.freeze_depth?"),
        ("trian.epochs=1", "did you mean train?"),
        ("train.epoch=1", "did you mean train.epochs?"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_name(override, right):
    assert right in message(EXPERIMENTS / "efficientnet.yaml", override)


def test_a_key_of_the_other_model_is_refused():
    assert "unknown key model.freeze_depth" in message(EXPERIMENTS / "baseline.yaml", "model.freeze_depth=3")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.freeze_depth=12", ["model.freeze_depth", "9", "12"]),
        ("model.freeze_depth=-1", ["model.freeze_depth", "0", "-1"]),
        ("model.dropout=1.0", ["model.dropout", "less than 1"]),
        ("model.name=resnet", ["model.name", "baseline", "efficientnet_b0"]),
        ("train.epochs=0", ["train.epochs", "1", "0"]),
        ("train.epochs=ten", ["train.epochs", "whole number", "'ten'"]),
        ("train.epochs=2.5", ["train.epochs", "whole number", "2.5"]),
        ("train.amp=bf15", ["train.amp", "'bf16'", "'bf15'"]),
        ("optim.lr=0", ["optim.lr", "greater than 0"]),
        ("optim.lr=fast", ["optim.lr", "number", "'fast'"]),
        ("data.dir=3", ["data.dir", "text", "3"]),
        ("data.batch_size=", ["data.batch_size", "whole number"]),
        ("tracking.experiment=", ["tracking.experiment"]),
        ("train=3", ["train", "3"]),
        (f"augment=[{', '.join(['{name: time_roll}'] * 101)}]", ["augment must be a list of at most 100, not"]),
    ],
)
def test_wrong_type_or_range_is_refused_with_key_limit_and_value(override, words):
    text = message(EXPERIMENTS / "efficientnet.yaml", override)
    assert [word for word in words if word not in text] == []


def test_every_problem_of_a_recipe_is_told_at_once():
    text = message(EXPERIMENTS / "efficientnet.yaml", "model.freeze_depth=12", "train.epochs=0")
    assert "model.freeze_depth" in text
    assert "train.epochs" in text


@pytest.mark.parametrize(
    "override",
    ["train.epochs", "=3", "train.=3", ".epochs=3", "train..epochs=3", "", "train.epochs=[1", "data.dir=: :"],
)
def test_override_that_is_not_key_value_is_refused(override):
    assert f"override '{override}'" in message(EXPERIMENTS / "baseline.yaml", override)


def test_override_below_a_value_is_refused():
    assert "epochs is a value" in message(EXPERIMENTS / "baseline.yaml", "train.epochs.more=3")


def test_override_with_an_impossible_date_is_refused():
    assert "2024-13-45" in message(EXPERIMENTS / "baseline.yaml", "tracking.experiment=2024-13-45")


def test_missing_keys_are_named(write):
    text = message(write("model: {name: baseline}\ntrain: {seed: 0}", base=None))
    for key in ("model.dropout", "data", "train.epochs"):
        assert f"missing key {key}" in text


def test_missing_model_name_is_explained(write):
    tree = load_config(EXPERIMENTS / "baseline.yaml").model_dump()
    del tree["model"]["name"]
    assert "missing key model.name" in message(write(yaml.safe_dump(tree), base=None))


def test_a_variant_gives_only_what_differs(write):
    write("train: {epochs: 5, seed: 3}", "first.yaml")
    config = load_config(write("train: {seed: 4}", "second.yaml", base="first.yaml"))
    assert (config.train.epochs, config.train.seed) == (5, 4)
    assert config.optim == load_config(EXPERIMENTS / "baseline.yaml").optim


@pytest.mark.parametrize("chain", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_circular_base_is_refused(chain, write):
    for name, base in zip(chain, [*chain[1:], chain[0]], strict=True):
        write("", f"{name}.yaml", base=f"{base}.yaml")
    assert "circle" in message(write("", "a.yaml", base=f"{[*chain, 'a'][1]}.yaml"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: [1, 2", "not valid YAML"),
        ("model:\n\t- x", "line 2: not valid YAML"),
        ("", "a recipe is a mapping"),
        ("- model", "a recipe is a mapping"),
        ("just words", "a recipe is a mapping"),
        ("when: 2024-13-45", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(text, words, write):
    path = write(text, base=None)
    assert words in message(path)
    assert str(path) in message(path)


def test_binary_file_is_no_recipe(tmp_path):
    (tmp_path / "image.yaml").write_bytes(b"\x89PNG\xff\xfe")
    assert "not valid YAML" in message(tmp_path / "image.yaml")


@pytest.mark.parametrize("missing", ["none.yaml", "."])
def test_missing_recipe_or_folder_is_refused(missing, tmp_path):
    assert "cannot read this recipe" in message(tmp_path / missing)


def test_missing_base_is_named(write):
    assert "gone.yaml" in message(write("", base="gone.yaml"))


def test_a_configuration_cannot_be_changed_afterwards():
    config = load_config(EXPERIMENTS / "baseline.yaml")
    with pytest.raises(ValueError, match="frozen"):
        config.train = None
    assert isinstance(config, ExperimentConfig)


@pytest.mark.parametrize("name", ["a/b", "a:b", "Risso's"])
def test_a_registered_model_has_a_name_that_mlflow_can_find_again(name):
    said = message(EXPERIMENTS / "baseline.yaml", f"tracking.register_as={name}")
    assert "tracking.register_as must be a name of at most 200 bytes" in said


ROLL, MASK = {"name": "time_roll"}, {"name": "freq_mask", "width": 8, "count": 2}
MIXUP = {"name": "mixup", "alpha": 0.2}


def augment(recipe: Path, *overrides: str) -> list[dict]:
    return load_config(recipe, overrides).model_dump()["augment"]


def test_transforms_stand_in_a_list_in_the_order_of_application(write):
    listed = write("augment: [{name: mixup, alpha: 0.2}, {name: freq_mask, width: 8}, {name: time_roll}]")
    assert augment(listed) == [MIXUP, MASK, ROLL]
    assert augment(listed, "augment.1.width=9", "augment.0={name: time_roll}") == [ROLL, MASK | {"width": 9}, ROLL]
    assert augment(listed, "augment=[]") == []


@pytest.mark.parametrize("text", ["augment: {mixup: 0.2, freq_mask: 8, time_mask: 0, time_roll: true}",
                                  "augment: {mixup: 0.2, freq_mask: 8}"])  # fmt: skip
def test_the_keys_of_earlier_recipes_stand_for_transforms_in_the_order_that_was(text, write):
    """Also where the base recipe has a list, of which the second names only what it adds."""
    assert augment(write(text)) == [ROLL, MASK, MIXUP]


def test_a_recipe_without_base_may_have_the_keys_too(write):
    tree = load_config(EXPERIMENTS / "baseline.yaml").model_dump() | {"augment": {"time_roll": False, "freq_mask": 8}}
    assert augment(write(yaml.safe_dump(tree), base=None)) == [MASK]
    assert validate(tree, "an old configuration").model_dump()["augment"] == [MASK]


@pytest.mark.parametrize(
    ("overrides", "entries"),
    [
        (["augment.time_roll=false"], []),
        (["augment.time_roll=false", "augment.time_roll=true"], [ROLL]),
        (["augment.mixup=0.2", "augment.freq_mask=8"], [ROLL, MASK, MIXUP]),
        (["augment.mixup=0.4", "augment.mixup=0.2"], [ROLL, MIXUP]),
        (["augment.mixup=0.4", "augment.mixup=0"], [ROLL]),
        (["augment={time_roll: true, mixup: 0.2}"], [ROLL, MIXUP]),
    ],
)
def test_the_keys_of_earlier_overrides_change_the_list(overrides, entries):
    assert augment(EXPERIMENTS / "baseline.yaml", *overrides) == entries


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "augment=[{name: freq_mask, width: 3, cuont: 2}]",
            "unknown key augment.0.cuont; did you mean augment.0.count?",
        ),
        (
            "augment=[{name: frq_mask, width: 3}]",
            "augment.0.name must be one of background, bandwidth, filter_augment, freq_mask",
        ),
        ("augment=3", "augment must be a list, not 3"),
        ("augment.3.width=1", "3 is none of the 1 entries of a list"),
        ("augment.mixpu=1", "unknown key augment.mixpu; did you mean augment.mixup?"),
        ("augment.mixup=much", "augment.mixup must be a number, not 'much'"),
        ("augment.mixup=-1", "augment.mixup must be greater than 0, not -1"),
        ("augment.time_roll=1", "augment.time_roll must be true or false, not 1"),
    ],
)
def test_a_wrong_transform_is_refused_with_its_dotted_key(override, sentence):
    assert sentence in message(EXPERIMENTS / "baseline.yaml", override)
