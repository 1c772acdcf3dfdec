"""A network that is not above the best control by more than noise is told so, in a run's output and on the page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support.splits import make_split
from watkins_ml.core.errors import UserError
from watkins_ml.core.files import write_csv
from watkins_ml.evaluation.controls import WITH_AUDIO, control_scores
from watkins_ml.evaluation.intervals import paired_difference
from watkins_ml.evaluation.runs import ComparedRun
from watkins_ml.evaluation.shortfall import control_note, shortfall, shortfall_of


def answers(right: float, seed: int, tapes: int = 15) -> pd.DataFrame:
    """60 cuts of three species on some tapes, of which about the share `right` are named rightly."""
    frame, _ = make_split(60, 1)
    frame["tape"] = [f"t{n % tapes}" for n in range(60)]
    rng = np.random.default_rng(seed)
    wrong = frame.species.map(dict(zip(frame.species.unique(), np.roll(frame.species.unique(), 1), strict=True)))
    return frame.assign(predicted=frame.species.where(rng.random(60) < right, wrong))


def judged(network: pd.DataFrame, control: pd.DataFrame, with_tables: bool = True) -> str | None:
    answered = pd.DataFrame({"spectrum": control.predicted, "majority": "x"})
    controls = control[["path", "tape", "species"]].join(answered.add_prefix("control_"))
    scores = control_scores(control.species, answered)
    own = control_scores(network.species, network[["predicted"]].rename(columns={"predicted": "n"}))
    metrics = scores | {f"test_{key}": own[f"control_n_{key}"] for key in ("accuracy", "macro_f1")}
    return shortfall("It", metrics, *((network, controls) if with_tables else ()))


def test_above_by_more_than_noise_nothing_is_said():
    assert judged(answers(0.95, 1), answers(0.3, 2)) is None


@pytest.mark.parametrize("network", [0.3, 0.65])
def test_below_or_above_by_no_more_than_noise_the_difference_is_told(network):
    own, control = answers(network, 1), answers(0.6, 2)
    sentence = judged(own, control)
    assert sentence.startswith("It is not above the best control by more than noise: accuracy ")
    difference = paired_difference(control, own)["macro_f1"]
    assert difference.low <= 0
    told = re.search(r"macro F1 .* \((.*); (.*) points, 95 % interval over tapes (.*) to (.*)\)\.$", sentence)
    assert told[1] == WITH_AUDIO["spectrum"]
    numbers = [float(each.replace("−", "-")) for each in told.groups()[1:]]
    assert numbers == [pytest.approx(100 * each, abs=0.051) for each in difference]


def test_without_an_interval_the_sign_decides():
    """Runs of earlier versions kept no predictions of controls, and one tape has no interval."""
    better, worse = answers(0.65, 1), answers(0.6, 2)
    assert judged(better, worse) is not None and judged(better, worse, with_tables=False) is None
    told = judged(worse, better, with_tables=False)
    assert told is not None and "interval" not in told
    assert judged(better.assign(tape="one"), worse.assign(tape="one")) is None


def test_beside_no_control_there_is_nothing_to_say():
    assert shortfall("It", {"test_accuracy": 0.1, "test_macro_f1": 0.1}) is None
    assert shortfall("It", {"control_tape_accuracy": 0.9}) is None


def test_the_best_control_is_named_for_each_quantity_and_of_equals_the_simplest():
    metrics = {"test_accuracy": 0.5, "test_macro_f1": 0.5, "control_spectrum_accuracy": 0.6}
    metrics |= {"control_tape_accuracy": 0.6, "control_tape_macro_f1": 0.5, "control_spectrum_macro_f1": 0.55}
    sentence = shortfall("It", metrics)
    assert "accuracy 50.0% against 60.0% (tape, without audio)" in sentence
    assert f"macro F1 50.0% against 55.0% ({WITH_AUDIO['spectrum']})" in sentence


@pytest.fixture
def pair(run_dirs):
    return [ComparedRun.from_dir(path, label) for label, path in run_dirs.items()]


def test_the_note_of_a_page_names_the_best_controls_and_the_runs_that_do_not_beat_them(pair, run_dirs, tmp_path):
    scores = {"control_rate_duration_accuracy": 0.68, "control_tape_accuracy": 0.2, "control_spectrum_accuracy": 0.7}
    runs = [replace(run, metrics=scores | {"test_macro_f1": 0.5, "test_accuracy": 0.6 + 0.3 * n})
            for n, run in enumerate(pair)]  # fmt: skip
    note = control_note(runs)
    assert "without audio (native sample rate and duration) reaches 68.0% accuracy" in note
    assert f"a {WITH_AUDIO['spectrum']} 70.0% on the test split." in note
    assert "baseline is not above the best control" in note and "efficientnet_b0 is" not in note
    assert control_note([replace(pair[0], metrics={"test_accuracy": 0.6})]) is None
    other = shutil.copytree(run_dirs["baseline"], tmp_path / "other")
    facts = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(facts | {"data_digest": "d2"}))
    assert control_note([runs[1], ComparedRun.from_dir(other, "other")]) is None


def test_a_run_directory_is_judged_by_its_own_tables(run_dirs, tmp_path):
    run = ComparedRun.from_dir(shutil.copytree(run_dirs["efficientnet_b0"], tmp_path / "run"), "run")
    table = run.predictions[["path", "tape", "species"]]
    perfect = table.assign(control_spectrum=table.species)
    write_csv(run.run_dir / "preds" / "test_controls.csv", perfect)
    metrics = run.metrics | {"control_spectrum_accuracy": 1.0, "control_spectrum_macro_f1": 1.0}
    assert "interval over tapes" in shortfall_of(run.run_dir, metrics)
    write_csv(run.run_dir / "preds" / "test_controls.csv", perfect.iloc[1:])
    with pytest.raises(UserError, match=r"test_controls\.csv: of other cuts than test\.csv"):
        shortfall_of(run.run_dir, metrics)
    (run.run_dir / "preds" / "test_controls.csv").write_text("species\norca\n")
    with pytest.raises(UserError, match=r"test_controls\.csv: damaged"):
        shortfall_of(run.run_dir, metrics)
