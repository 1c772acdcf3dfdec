import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.page import write_page
from watkins_ml.evaluation.runs import (
    NEEDED,
    TEST_REPORT,
    ComparedRun,
    comparison_table,
    data_warning,
    headline,
)


@pytest.fixture
def pair(run_dirs):
    return [ComparedRun.from_dir(path, label) for label, path in run_dirs.items()]


@pytest.fixture
def copy(run_dirs, tmp_path):
    return shutil.copytree(run_dirs["efficientnet_b0"], tmp_path / "copy")


def with_metrics(run: ComparedRun, **metrics: float) -> ComparedRun:
    return replace(run, metrics=metrics)


def test_table_is_metric_by_run(pair):
    table = comparison_table(pair)
    assert list(table.columns) == ["baseline", "efficientnet_b0"]
    assert table.loc["test_accuracy", "efficientnet_b0"] == pair[1].metrics["test_accuracy"]
    assert table.loc["control_tape_accuracy"].tolist() == [0.3, 0.3]
    assert np.isnan(table.loc["control_tape_macro_f1", "baseline"])  # not in metrics.json
    assert table.attrs["warning"] is None


def test_another_digest_is_exposed_and_nobody_leads(pair, copy, change_info):
    change_info(copy, data_digest="d2")
    runs = [pair[0], ComparedRun.from_dir(copy, "other")]
    warning = comparison_table(runs).attrs["warning"]
    assert warning == data_warning(runs)
    assert "d1" in warning and "d2" in warning
    assert "above" not in headline(runs)


def test_random_split_is_stamped_on_the_numbers(copy, change_info):
    change_info(copy, split_protocol="random")
    run = ComparedRun.from_dir(copy, "x")
    assert list(comparison_table([run]).columns) == ["x (leaky reference)"]
    assert "leaky reference" in headline([run])


def test_headline_of_one_tested_run(pair):
    untested = with_metrics(pair[1])
    assert headline([untested]) == "No run has a test report yet."
    scores = (f"{pair[0].metrics[key]:.1%}" for key in ("test_macro_f1", "test_accuracy"))
    expected = "baseline reaches {} macro F1 and {} accuracy on the test split.".format(*scores)
    assert headline([pair[0]]) == headline([untested, pair[0]]) == expected


def test_headline_says_whether_the_better_of_two_is_better_by_more_than_noise(pair, copy):
    gain = 100 * (pair[1].metrics["test_macro_f1"] - pair[0].metrics["test_macro_f1"])
    for runs in (pair, pair[::-1]):
        sentence = headline(runs)
        assert sentence.startswith(f"efficientnet_b0 is {gain:.1f} points of macro F1 above baseline (95 % interval")
        assert sentence.endswith(": more than noise.")
    assert "the same macro F1" in headline([pair[1], ComparedRun.from_dir(copy, "copy")])


def test_headline_of_runs_tested_on_other_cuts_lets_none_lead(pair, copy, change_info):
    predictions = pd.read_csv(copy / "preds/test.csv").iloc[1:]
    predictions.to_csv(copy / "preds/test.csv", index=False)
    change_info(copy, folds=5)
    pooled = ComparedRun.from_dir(copy, "pooled")
    assert "not tested on the same cuts" in headline([pair[0], pooled])
    assert headline([pooled]).endswith("accuracy pooled over 5 folds.")


@pytest.mark.parametrize(
    ("train", "known", "best"),
    [
        ({}, {}, 2),  # of an earlier version: by the loss
        ({"monitor": "val_loss"}, {}, 2),
        ({"monitor": "val_macro_f1"}, {}, 3),
        ({"monitor": "val_macro_f1"}, {"best_epoch": 1}, 1),
    ],
)
def test_the_best_epoch_is_that_of_the_rule_that_the_run_was_trained_by(copy, train, known, best):
    config = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump(config | {"train": config["train"] | train}))
    metrics = json.loads((copy / "reports/metrics.json").read_text())
    del metrics["best_epoch"]  # as in a cross-validation
    (copy / "reports/metrics.json").write_text(json.dumps(metrics | known))
    run = ComparedRun.from_dir(copy, "x")
    assert run.best_epoch == best
    assert run.config["train"]["monitor"] == train.get("monitor", "val_loss")


@pytest.mark.parametrize("name", NEEDED + TEST_REPORT)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(UserError, match=name):
        ComparedRun.from_dir(copy, "x")


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe\x00", b"species\n"], ids=["empty", "torn", "binary", "other"]
)
@pytest.mark.parametrize(
    "name", sorted({*NEEDED, *TEST_REPORT, "reports/species.csv"} - {"plots/test_confusion_matrix.png"})
)
def test_a_damaged_file_is_named_and_no_page_is_written(copy, tmp_path, name, content):
    (copy / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: (missing or )?damaged|run.json has no"):
        write_page([ComparedRun.from_dir(copy, "Baseline")], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_missing_digest_is_named(copy, change_info):
    change_info(copy, data_digest=None)
    with pytest.raises(UserError, match="data_digest"):
        ComparedRun.from_dir(copy, "x")


def test_labels_must_differ(pair):
    with pytest.raises(UserError, match="'baseline'"):
        comparison_table([pair[0], pair[0]])


def test_reads_reports(pair):
    assert pair[0].species().loc["Fraser'sDolphin", "support"] > 0
    assert list(pair[0].pairs().columns) == ["true", "predicted", "count", "share_of_true"]
