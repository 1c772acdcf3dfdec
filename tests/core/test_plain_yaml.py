"""Recipes from strangers: without end, too large, too deep, or no recipe at all. Each is refused in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.support import EXPERIMENTS, forked
from watkins_ml.config import load_config
from watkins_ml.config.recipe_files import MOST_BASES
from watkins_ml.core.errors import UsageError
from watkins_ml.core.plain_yaml import DEEPEST, MOST_BYTES, MOST_VALUES, parse_yaml
from watkins_ml.tuning.recipe import load_study

BASELINE, STUDY = EXPERIMENTS / "baseline.yaml", EXPERIMENTS / "tune-efficientnet.yaml"
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)
)
MERGES = "a0: &a0 {x: 1}\n" + "\n".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10))
REFUSED = {
    "aliases": (ALIASES, "the alias *a0; write the value out"),
    "merged aliases": (MERGES, "'<<' is a special token of YAML; put it into quotes"),
    "an alias of itself": ("a: &a [*a]", "the alias *a"),
    "nested lists": ("[" * 100_000, "nested more than 20 deep"),
    "nested mappings": ("{a: " * 50_000, "nested more than 20 deep"),
    "nested blocks": ("- " * 100_000, "nested more than 20 deep"),
    "nested keys": ("? " * 100_000, "nested more than 20 deep"),
    "many values": ("[" + "1, " * MOST_VALUES + "]", "more than 10,000 values"),
    "many keys": ("\n".join(f"k{n}: 1" for n in range(MOST_VALUES)), "more than 10,000 values"),
    "a long text": ("a: " + "x" * 200_000, "a text of 200,000 characters, more than 4,096"),
    "a long key": ("x" * 101 + ": 1", "a key of 101 characters, more than 100"),
    "a long number": ("a: " + "9" * 5000, "a text of 5,000 characters"),
    "a large file": ("#" * (MOST_BYTES + 1), "larger than 256 kB"),
    "a key twice": ("train: {seed: 1}\ntrain: {}", "line 2: not valid YAML (the key 'train' stands there twice)"),
    "a list as key": ("? [a]\n: 1", "a key that is no text"),
    "a tag": ("a: !!binary aGk=", "the tag 'tag:yaml.org,2002:binary'; write the value without it"),
    "a set": ("a: !!set {b}", "the tag 'tag:yaml.org,2002:set'"),
    "an object": ("a: !!python/object/apply:os.system [id]", "the tag 'tag:yaml.org,2002:python/object"),
    "a number that is none": ('a: !!int ""', "the tag"),
    "NUL": ('data: {dir: "a\\0b"}', "a control character or a line break"),
    "half a character": ('data: {dir: "\\uD800"}', "a control character or a line break"),
    "an escape sequence": ('data: {dir: "\\e[31m"}', "a control character or a line break"),
    "a time zone that is none": ("a: 2020-01-01T00:00:00+99:99", "not valid YAML (offset must be"),
    "a bit without digits": ("a: 0b_", "not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: not valid YAML"),
    "a base that is no name": ("base: [a]", "base must be the name of a recipe file, not ['a']"),
    "a base that is a number": ("base: 3", "base must be the name of a recipe file, not 3"),
    "a device as base": ("base: /dev/zero", "/dev/zero: cannot read this recipe (not a regular file)"),
}  # fmt: skip


def message(recipe: Path, *overrides: str, load=load_config) -> str:
    with pytest.raises(UsageError) as error:
        load(recipe, overrides)
    said = str(error.value)
    assert said.isprintable() and len(said) < 2000
    return said


SCRIPT = """
import resource, sys
from watkins_ml.config import load_config
from watkins_ml.models.registry import all_families

all_families()
with open("/proc/self/statm") as file:
    taken = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + (1 << 30), taken + (1 << 30)))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
load_config(sys.argv[1])
"""


def run(recipe: Path) -> subprocess.CompletedProcess:
    """Reads a recipe in a process that may take a gigabyte beyond its libraries, and 60 s of a processor."""
    return forked.run([sys.executable, "-c", SCRIPT, str(recipe)], capture_output=True, text=True, timeout=240)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_end_or_is_no_recipe_is_refused_in_one_line(tmp_path, name):
    text, says = REFUSED[name]
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    ended = run(path)
    assert ended.returncode == 1 and "UsageError" in ended.stderr.splitlines()[-1]
    assert says in message(path)


@pytest.mark.parametrize("name", [name for name in REFUSED if "base" not in name and "file" not in name])
def test_an_override_is_bounded_by_the_same_rules(name):
    text, says = REFUSED[name]
    text = text[:120_000]  # the system takes no longer word
    says = says.removeprefix("line 2: ").replace("200,000", "119,997")
    assert says in message(BASELINE, f"data.dir={text}")


@pytest.mark.parametrize("content", [b"\xff\xfea\x00:\x00", b"\x89PNG\r\n\x1a\n\x00", b"\xf6: 1", b"\x00" * 100])
def test_what_is_no_utf8_text_is_refused(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    assert "not valid YAML" in message(tmp_path / "mine.yaml")


def test_a_mark_of_utf8_at_the_beginning_is_no_fault(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"base: {BASELINE}\n", encoding="utf-8-sig")
    assert load_config(tmp_path / "mine.yaml") == load_config(BASELINE)


def test_pipes_sockets_devices_folders_and_links_in_a_circle_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "circle.yaml").symlink_to("circle.yaml")
    for path in (tmp_path / "pipe.yaml", Path("/dev/zero"), tmp_path, tmp_path / "circle.yaml", tmp_path / ("a" * 300)):
        assert f"{path}: cannot read this recipe" in message(path)
        based = tmp_path / "based.yaml"
        based.write_text(f"base: {path}")
        assert f"{path}: cannot read this recipe" in message(based)


@pytest.mark.parametrize("count, taken", [(MOST_BASES, True), (MOST_BASES + 1, False), (3000, False)])
def test_a_chain_of_bases_ends(tmp_path, count, taken):
    for number in range(count):
        base = f"{number + 1}.yaml" if number < count - 1 else BASELINE
        (tmp_path / f"{number}.yaml").write_text(f"base: {base}")
    if taken:
        assert load_config(tmp_path / "0.yaml") == load_config(BASELINE)
    else:
        assert "has more than 10 `base` recipes above it" in message(tmp_path / "0.yaml")


NUMBERS = [
    "data.batch_size", "data.feature_cache_gb", "data.memory_gb", "optim.lr", "optim.weight_decay",
    "optim.plateau_factor", "optim.plateau_patience", "optim.warmup_epochs", "optim.clip_norm", "optim.layer_decay",
    "train.epochs", "train.seed", "train.early_stopping_patience", "train.ema_decay", "train.label_smoothing",
    "augment.freq_mask", "augment.time_mask", "augment.mixup", "model.dropout", "model.freeze_depth", "model.stages",
    "model.dimensions", "model.whitening", "study.trials", "study.startup_trials", "study.warmup_epochs", "study.seed",
    "study.heartbeat_seconds",
]  # fmt: skip


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_largest_and_a_least_value(key):
    for value in ("9" * 30, "-1", "0x" + "f" * 4000, "1e400", ".nan", "-.inf", "1:" * 200 + "1"):
        assert f"{key} must be" in message(STUDY, f"{key}={value}", load=load_study)


def test_the_list_of_numbers_above_is_whole():
    study = load_study(STUDY)
    flat = study.config.flat() | {f"study.{key}": value for key, value in study.settings.model_dump().items()}
    numbers = {key for key, value in flat.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    assert numbers <= set(NUMBERS)


def test_the_largest_seed_is_one_that_pytorch_takes():
    import torch

    seed = load_config(BASELINE, [f"train.seed={2**63 - 1}"]).train.seed
    torch.manual_seed(seed)
    torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "search, says",
    [
        ("optim.lr: {low: 0.0001, high: 0.01, step: 1e-300}", "more than 1,000,000,000 steps of 1e-300"),
        ("optim.lr: {low: 0, high: 1e15, step: 1e-15}", "more than 1,000,000,000 steps"),
        (f"data.batch_size: {{choices: [1{'0' * 40}]}}", "must be less than or equal to 1000000"),
        (f"data.batch_size: {{choices: [32, 0x{'f' * 4000}]}}", "not a number of thousands of digits"),
    ],
)
def test_a_search_space_is_bounded_too(search, says, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"base: {EXPERIMENTS / 'efficientnet.yaml'}\nstudy: {{trials: 2, search: {{{search}}}}}")
    assert says in message(path, load=load_study)


@pytest.mark.parametrize(
    "override", ["a." * 30 + "b=1", "a" * 200 + "=1", "a\x1b[31m.b=1", "data.dir=" + "[" * 100, "\udcff=1"]
)
def test_overrides_without_end_are_refused(override):
    assert "override " in message(BASELINE, override)


def test_keys_are_texts_as_they_are_written():
    assert parse_yaml("{7: a, yes: b, null: c, 2020-01-01: d, '=': e}", "x") == {
        "7": "a", "yes": "b", "null": "c", "2020-01-01": "d", "=": "e",
    }  # fmt: skip


def test_many_unknown_keys_are_not_all_told(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"base: {BASELINE}\n" + "\n".join(f"key{n}: 1" for n in range(4000)))
    said = message(tmp_path / "mine.yaml")
    assert said.endswith("; and more") and said.count("unknown key") == 10


PIECES = some.sampled_from(
    ["base: ", "model", "train:", "study", "search: ", "optim.lr", "[", "]", "{", "}", ", ", ": ", "- ", "? ", "\n",
     "  ", "&a ", "*a", "<<: ", "!!set ", "!x ", "|", ">", "'", '"', "\\", "%YAML 1.1\n", "---\n", "...\n", "0x", "1e5",
     ".nan", "2020-01-01", "=", "~", "null", "yes", "1:2", "\t", "\0", "\x85", "\ufeff", "low",
     "high", "choices: [1]", "9" * 40]
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.lists(PIECES | some.text(max_size=8), max_size=25), some.integers(0, 600), some.integers(0, 40))
def test_any_text_is_a_recipe_or_one_line(tmp_path, pieces, place, gone):
    """A shipped recipe with a piece taken out and others put in, as a file and as an override."""
    whole, new = f"base: {STUDY}\n" + STUDY.read_text().partition("base: efficientnet.yaml\n")[2], "".join(pieces)
    path = tmp_path / "mine.yaml"
    for text in (whole[:place] + new + whole[place + gone :], new):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        for load in (load_config, load_study):
            for arguments in ((path,), (BASELINE, [new]), (STUDY, [f"study.search.optim.lr={new}"])):
                try:
                    load(*arguments)
                except UsageError as error:
                    assert "\n" not in str(error) and len(str(error)) < 4000


def test_depth_is_counted_from_the_first_value():
    assert parse_yaml("[" * (DEEPEST - 1) + "1" + "]" * (DEEPEST - 1), "x")
    with pytest.raises(UsageError, match=r"^x, line 1: not valid YAML \(nested more than 20 deep\)$"):
        parse_yaml("[" * DEEPEST + "1" + "]" * DEEPEST, "x")
