"""What a user meets at the terminal: help, exit codes, one line for an error."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests.support import EXPERIMENTS, forked
from tests.support.commands import BASELINE, assert_one_line
from watkins_ml.cli import app

COMMANDS = {
    "prepare": [
        "audio_dir", "--out", "--split", "--seed", "--group-regex", "--min-clips", "--sample-rate", "--seconds",
        "--mels", "--f-min", "--f-max", "--compression", "--normalisation", "--no-upsampling", "--metadata",
        "--export-sides", "--workers", "--task", "--annotations", "--table-index", "--label-column", "--label",
        "--labels", "--reviewed", "--group-by", "--overlap", "--present", "--absent", "--background-ratio",
        "--each-channel",
    ],
    "demo": ["--out", "--seed"],
    "fetch": [],
    "train": ["recipe", "--override", "-o", "--name", "--run-dir", "--tag", "--note", "--json", "--resume"],
    "sync": ["run_dirs"],
    "server": ["--host", "--port", "--backend"],
    "tune": ["recipe", "--override", "-o", "--trials", "--workers", "--storage", "--name", "--tag", "--note", "--json"],
    "crossval": [
        "recipe", "--override", "-o", "--folds", "--split", "--seed", "--fold-regex", "--fold-column", "--name",
        "--run-dir", "--tag", "--note", "--json",
    ],
    "models": ["--json"],
    "promote": ["model_version", "--if-detects-better"],
    "evaluate": [
        "model", "--data", "--split", "--out", "--recordings", "--annotations", "--false-alarms", "--precision",
        "--save-thresholds", "--threshold", "--by", "--match", "--iou", "--group-by", "--metadata", "--overlap",
        "--each-channel", "--max-novelty", "--device", "--reviewed", "--labels", "--label-column", "--label",
        "--table-index", "--json",
    ],
    "compare": ["models", "--out", "--json"],
    "ensemble": [
        "members", "--name", "--register-as", "--register", "--no-register", "--data", "--tag", "--note", "--json",
    ],
    "report": ["model", "--out"],
    "predict": [
        "model", "audio", "--by", "--format", "--out", "--top", "--threshold", "--min-confidence", "--max-novelty",
        "--species", "--overlap", "--channels", "--device",
    ],
    "export": ["model", "--to", "--out"],
    "explain": ["model", "audio", "--out", "--species"],
    "config": ["family", "--json"],
}  # fmt: skip


def commands() -> dict[str, typer.core.TyperCommand]:
    return typer.main.get_command(app).commands


def test_commands_and_their_options_stay_as_published():
    found = {}
    for name, command in commands().items():
        options = [option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)]
        found[name] = [option for option in options if option not in ("--help", "-h")]
    assert found == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(watkins, command):
    said = watkins(command, "--help")
    assert said.status == 0
    assert f"Example: watkins {command}" in said.out


def test_the_program_itself_has_help_that_lists_the_commands(watkins):
    said = watkins("--help")
    assert said.status == 0
    assert "Example: watkins" in said.out
    assert all(command in said.out for command in COMMANDS)


@pytest.mark.parametrize("arguments", [("swim",), ("train",), ("train", BASELINE, "--epochs", "3"), ("models", "all")])
def test_a_command_line_that_makes_no_sense_is_misuse(watkins, arguments):
    said = watkins(*arguments)
    assert said.status == 2
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("train.epoch=3", ["unknown key train.epoch", "did you mean train.epochs?"]),
        ("optim.lr=fast", ["optim.lr must be", "'fast'"]),
        ("train.epochs=2.5", ["train.epochs must be", "2.5"]),
        ("model.freeze_depth=12", ["model.freeze_depth must be", "9", "12"]),
        ("model.name=resnet", ["model.name resnet: must be one of baseline, efficientnet_b0, encoder, ensemble, timm"]),
        ("train.epochs", ["override 'train.epochs': write it as key.path=value"]),
        ("=3", ["override '=3': write it as key.path=value"]),
    ],
)
def test_a_wrong_override_is_misuse_and_names_the_key(watkins, tmp_path, override, parts):
    said = watkins("train", EXPERIMENTS / "efficientnet.yaml", "-o", override)
    assert_one_line(said, 2, *parts)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_recipe_is_named(watkins):
    assert_one_line(watkins("train", "no/such.yaml"), 2, "no/such.yaml: cannot read this recipe")


def test_missing_data_say_how_to_prepare_them(watkins, tmp_path):
    said = watkins("train", BASELINE)
    assert_one_line(said, 1, "data: prepared data are missing; run `watkins prepare AUDIO_DIR --out data`")
    assert list(tmp_path.iterdir()) == []


def test_unfinished_data_are_not_trained_on(watkins, prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "data", ignore=shutil.ignore_patterns("dataset.json", "*.pt"))
    assert_one_line(watkins("train", BASELINE), 1, "prepared data are not finished")
    assert not (tmp_path / "runs").exists()


def test_weights_that_cannot_be_used_are_told_before_anything_is_written(watkins, prepared, tmp_path):
    said = watkins(
        "train", EXPERIMENTS / "efficientnet.yaml", "-o", f"data.dir={prepared}", "-o", "model.weights=gone.pth"
    )  # fmt: skip
    assert_one_line(said, 1, "model.weights gone.pth: no such file")
    assert list(tmp_path.iterdir()) == []


def test_a_run_directory_in_use_is_left_alone(watkins, prepared, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("chapter one")
    said = watkins("train", BASELINE, "-o", f"data.dir={prepared}", "--run-dir", "mine")
    assert_one_line(said, 2, "--run-dir mine: exists and is not empty")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_run_directory_below_a_regular_file_cannot_be_written(watkins, prepared, tmp_path):
    (tmp_path / "file").write_text("")
    said = watkins("train", BASELINE, "-o", f"data.dir={prepared}", "--run-dir", "file/run")
    assert_one_line(said, 1, "cannot write the run directory file/run")


@pytest.mark.parametrize("command", [("predict", "MODEL", "RECORDING"), ("evaluate", "MODEL", "--data", "PREPARED")])
@pytest.mark.parametrize(
    "model", ["models:/walrus@champion", "models:/walrus/3", "runs:/0123456789abcdef", "runs/gone"]
)
def test_a_model_that_does_not_exist_is_one_line(watkins, store, archive, prepared, command, model):
    places = {"MODEL": model, "RECORDING": str(next(archive.rglob("*.wav"))), "PREPARED": str(prepared)}
    assert_one_line(watkins(*(places.get(word, word) for word in command)), 1, model)


def test_a_recording_that_does_not_exist_is_named(watkins, finished):
    assert_one_line(watkins("predict", finished.run_dir, "gone.wav"), 1, "gone.wav: no such file")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (
            ("prepare", "audio", "--split", "tapes"),
            "Invalid value for '--split': 'tapes' is not one of 'tape', 'random'; watkins prepare --help",
        ),
        (("prepare", "audio", "--overlap", "0.2"), "--overlap: is for long recordings; give their tables too"),
        (("prepare", ".", "--annotations", "t", "--group-regex", "x"), "--group-regex: is for recordings in species"),
        (("prepare", "audio", "--sample-rate", "10"), "'--sample-rate': Input should be greater than or equal to 1000"),
        (
            ("predict", "runs/x", "a.wav", "--format", "xml"),
            "'--format': 'xml' is not one of 'table', 'csv', 'parquet'",
        ),
        (("promote", "watkins-baseline"), "'watkins-baseline': write NAME/VERSION"),
        (("compare", "runs/one"), "compare needs two MODELs or more"),
    ],
)
def test_values_outside_a_choice_are_misuse(watkins, store, arguments, part):
    assert_one_line(watkins(*arguments), 2, part)


def test_models_shows_versions_scores_and_the_champion(watkins, finished, monkeypatch):
    monkeypatch.chdir(finished.folder)
    said = watkins("models")
    assert said.status == 0
    (row,) = [line for line in said.out.splitlines() if "watkins-baseline" in line]
    assert "champion" in row and "first" in row and f"{finished.metrics['best_val_macro_f1']:.4f}" in row


def test_models_of_an_empty_registry_says_how_to_get_one(watkins, store):
    said = watkins("models")
    assert (said.status, said.err) == (0, "")
    assert "No registered models" in said.out and "watkins train" in said.out


def test_promote_moves_the_champion_and_says_so(watkins, store):
    store.create_registered_model("watkins-baseline")
    store.create_model_version("watkins-baseline", "file:///nowhere")
    said = watkins("promote", "watkins-baseline/1")
    assert (said.status, said.out) == (0, "watkins-baseline version 1 is now champion\n")
    assert store.get_model_version_by_alias("watkins-baseline", "champion").version == 1
    assert_one_line(watkins("promote", "watkins-baseline/2"), 1, "watkins-baseline/2: no such model version")


def test_a_server_that_is_away_is_one_line(watkins, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for command in (("models",), ("promote", "watkins-baseline/1"), ("predict", "models:/x/1", os.devnull)):
        assert_one_line(watkins(*command), 1, "http://127.0.0.1:9")


def test_sync_sends_the_runs_it_finds_and_names_folders_that_are_none(watkins, store, finished, tmp_path):
    shutil.copytree(finished.run_dir, tmp_path / "runs" / "first")
    (tmp_path / "runs" / "first" / "upload.json").unlink()
    said = watkins("sync")
    assert said.status == 0
    assert "runs/first: 11 of 11 entries sent" in said.out and "nothing" not in said.out
    said = watkins("sync")
    assert (said.status, said.out) == (0, "nothing to send for 1 run\n")
    assert_one_line(watkins("sync", tmp_path), 1, f"{tmp_path}: not a run directory")


def test_sync_sums_up_the_runs_that_have_nothing_to_send(watkins, store, finished, tmp_path):
    for name in ("first", "second", "third"):
        shutil.copytree(finished.run_dir, tmp_path / "runs" / name)
    for name in ("first", "second"):
        assert watkins("sync", tmp_path / "runs" / name).status == 0
    said = watkins("sync")
    sent, *summary = said.out.splitlines()[:1] + said.out.splitlines()[-1:]
    assert sent == "runs/third: 11 of 11 entries sent" and summary == ["nothing to send for 2 runs"]
    assert "0 of" not in said.out


def test_sync_without_any_run_says_so(watkins):
    said = watkins("sync")
    assert (said.status, said.out) == (0, "no runs in runs/; name a run directory\n")


@pytest.mark.slow
def test_server_starts_mlflow_on_the_embedded_store(watkins, monkeypatch, tmp_path):
    started = []

    def instead(program: str, command: list[str], environment: dict[str, str]) -> None:
        started.extend((command, environment))
        raise SystemExit(0)

    monkeypatch.setattr(os, "execve", instead)
    said = watkins("server", "--port", 5123)
    assert "export MLFLOW_TRACKING_URI=http://127.0.0.1:5123" in said.out
    command = " ".join(started[0])
    assert started[1]["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{tmp_path}/mlflow/mlflow.db"
    assert f"--artifacts-destination {tmp_path}/mlflow/artifacts" in command
    assert "--host 127.0.0.1 --port 5123" in command


@pytest.mark.slow
def test_debug_shows_where_an_error_came_from():
    command = [sys.executable, "-m", "watkins_ml", "--debug", "train", "no/such.yaml"]
    said = forked.run(command, capture_output=True, text=True)
    assert said.returncode != 0
    assert "Traceback" in said.stderr and "UsageError: no/such.yaml" in said.stderr


def test_a_fault_nobody_foresaw_is_one_line_too(watkins, monkeypatch):
    import watkins_ml.config

    def fails(*_):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr(watkins_ml.config, "load_config", fails)
    assert_one_line(watkins("train", BASELINE), 1, "unexpected ZeroDivisionError: first line second line", "--debug")


@pytest.mark.slow
def test_the_console_script_is_the_same_program():
    script = Path(sys.executable).with_name("watkins")
    said = subprocess.run([script, "train", "no/such.yaml"], capture_output=True, text=True)
    assert said.returncode == 2
    assert (
        said.stderr == "watkins: no/such.yaml: cannot read this recipe (No such file or directory); see experiments/\n"
    )
