"""Data, runs, a study and a registered model that the code before model families made (commit 1d76c39) still work.

They lie in `fixtures/before_families.zip`, together with the answers that the code of that time gave about them; how
they were made stands in `fixtures/README.md`.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pandas as pd
import pytest

MADE_BEFORE = Path(__file__).parent / "fixtures" / "before_families.zip"
CHAMPION = "models:/watkins-baseline@champion"
CLOSE = {"rtol": 1e-3, "atol": 1e-6}
"""Other processors round otherwise; on the one that made the fixture all numbers are equal."""


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """A project folder as the earlier code left it, as working folder; what that code answered, by command."""
    project = tmp_path / "project"
    with zipfile.ZipFile(MADE_BEFORE) as archive:
        archive.extractall(project)
    monkeypatch.chdir(project)
    return json.loads((project / "answers.json").read_text(encoding="utf-8"))


def table(text: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(text), float_precision="round_trip")


def trials() -> pd.DataFrame:
    return pd.read_csv("runs/study/reports/trials.csv", float_precision="round_trip")


def test_the_interrupted_run_is_resumed_and_ends_as_it_would_have(watkins, answers):
    history = Path("runs/interrupted/history.csv")
    before = history.read_text().splitlines()
    result = watkins("train", "--resume", "runs/interrupted")
    assert result.status == 0, result.err
    assert "after epoch 2" in result.err
    assert history.read_text().splitlines()[:3] == before
    expected = table(answers["resume history"])
    # two more epochs of 36 recordings enlarge what another processor sums otherwise in the last digit
    pd.testing.assert_frame_equal(table(history.read_text())[list(expected)], expected, rtol=1e-2, atol=1e-6)
    assert json.loads(Path("runs/interrupted/run.json").read_text())["status"] == "FINISHED"


def test_a_changed_setting_of_the_interrupted_run_is_still_noticed(watkins, answers):
    result = watkins("train", "baseline.yaml", "--resume", "runs/interrupted")
    assert result.status == 2
    assert "train.epochs was 4, now 10" in result.err
    same = ["-o", "data.batch_size=8", "-o", "train.device=cpu", "-o", "optim.lr=0.004", "-o", "train.epochs=4"]
    masks = ["-o", "augment.freq_mask=8", "-o", "augment.time_mask=6"]
    options = [*same, *masks, "-o", "tracking.register_as=null"]
    result = watkins("train", "baseline.yaml", "--resume", "runs/interrupted", *options)
    assert result.status == 2 and "mixup" in result.err and "lr" not in result.err


def test_a_finished_run_is_left_as_it_is(watkins, answers):
    before = {path: path.read_bytes() for path in Path("runs/masked").rglob("*.csv")}
    result = watkins("train", "--resume", "runs/masked")
    assert result.status == 0, result.err
    assert before == {path: path.read_bytes() for path in Path("runs/masked").rglob("*.csv")}


@pytest.mark.parametrize("model", ["runs/masked", "runs/rolled", CHAMPION])
def test_models_answer_as_they_did(watkins, answers, model):
    result = watkins(
        "predict", model, "audio", "--by", "file", "--format", "csv", "--top", 3, "--max-novelty", "inf"
    )  # fmt: skip
    assert result.status == 0, result.err
    expected = table(answers[f"predict {model}"])
    pd.testing.assert_frame_equal(table(result.out)[list(expected)], expected, **CLOSE)


@pytest.mark.parametrize("model", ["runs/masked", CHAMPION])
def test_models_are_evaluated_on_the_data_as_they_were(watkins, answers, model):
    result = watkins("evaluate", model, "--out", "evaluated")
    assert result.status == 0, result.err
    assert "another split or other data" not in result.err
    found = json.loads(Path("evaluated/reports/test_metrics.json").read_text())
    expected = {key: value for key, value in answers[f"evaluate {model}"].items() if isinstance(value, float)}
    assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-3, nan_ok=True)


def test_the_data_folder_is_taken_as_it_is(watkins, answers):
    """Recordings that have not changed keep their spectrograms, and the digest that runs and models name."""
    before = sorted(path.read_bytes() for path in Path("data").rglob("*.pt"))
    digest = json.loads(Path("data/dataset.json").read_text())["data_digest"]
    result = watkins("prepare", "audio", "--out", "data", "--min-clips", 2, "--workers", 1)
    assert result.status == 0, result.err
    assert json.loads(Path("data/dataset.json").read_text())["data_digest"] == digest
    assert sorted(path.read_bytes() for path in Path("data").rglob("*.pt")) == before


def test_the_two_finished_runs_are_compared_and_reported(watkins, answers):
    result = watkins("compare", "runs/masked", "runs/rolled", "--out", "compare.html")
    assert result.status == 0, result.err
    assert "test macro F1" in result.out and Path("compare.html").stat().st_size > 10_000
    for model in ("runs/masked", CHAMPION):
        result = watkins("report", model, "--out", "report.html")
        assert result.status == 0, result.err
        assert Path("report.html").stat().st_size > 10_000


def test_the_registered_model_is_listed_with_its_score(watkins, answers):
    result = watkins("models")
    assert result.status == 0, result.err
    score = json.loads(Path("runs/masked/reports/metrics.json").read_text())["val_macro_f1"]
    assert "watkins-baseline" in result.out and "champion" in result.out and f"{score:.4f}" in result.out


@pytest.mark.slow
def test_the_study_has_all_its_trials_and_can_be_given_one_more(watkins, answers):
    before = trials()
    result = watkins("tune", "study.yaml")
    assert result.status == 0, result.err
    pd.testing.assert_frame_equal(trials()[list(before)], before)
    result = watkins("tune", "study.yaml", "--trials", 3)
    assert result.status == 0, result.err
    after = trials()
    assert len(after) == 3 and after["state"].iloc[2] in ("complete", "pruned")
    pd.testing.assert_frame_equal(after[list(before)].head(2), before, check_dtype=False)
