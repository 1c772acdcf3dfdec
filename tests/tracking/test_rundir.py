import json
import threading

import pandas as pd
import pytest
import yaml

from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.tracking.rundir import RunDirectory


@pytest.fixture
def create(recipe, prepared, tmp_path):
    def start(root=tmp_path / "run", *overrides: str) -> RunDirectory:
        return RunDirectory.create(root, recipe("baseline", *overrides), read_prepared(prepared))

    return start


def test_a_new_run_knows_its_configuration_and_data(create, recipe, prepared):
    run = create()
    assert yaml.safe_load((run.root / "config.yaml").read_text()) == recipe("baseline").model_dump()
    summary = read_prepared(prepared).summary
    facts = json.loads((run.root / "run.json").read_text())
    assert (facts["name"], facts["family"], facts["status"]) == ("run", "baseline", "RUNNING")
    assert (facts["data_digest"], facts["split_protocol"]) == (summary["data_digest"], "tape")
    assert [facts[key] for key in ("species", "train", "val", "test")] == [
        summary["counts"][key] for key in ("species", "train", "val", "test")
    ]


def test_a_new_journal_begins_with_start_params_tags_and_datasets(create, recipe):
    entries = create().entries()
    assert [entry.kind for entry in entries] == ["start", "params", "tags", "datasets"]
    assert entries[1].values == recipe("baseline").flat()
    tags = entries[2].values
    for key in ("git_commit", "data_digest", "split_protocol", "model_family", "device", "host", "version.torch"):
        assert tags[key]


def test_without_run_dir_each_run_gets_a_new_folder_in_runs(create, tmp_path):
    first, second = create(None), create(None)
    assert first.root != second.root
    assert {path.parent for path in (first.root.resolve(), second.root.resolve())} == {tmp_path / "runs"}
    assert first.name.startswith("baseline-")


def test_a_finished_run_has_the_whole_layout(finished):
    present = {str(path.relative_to(finished.run_dir)) for path in finished.run_dir.rglob("*") if path.is_file()}
    expected = {
        "config.yaml", "history.csv", "timing.csv", "run.json", "journal.jsonl", "upload.json",
        "checkpoints/best.pt", "checkpoints/best.json", "checkpoints/last.pt", "checkpoints/last.json",
        "model/model.json", "model/weights.pt", "model/example.wav",
        "reports/metrics.json", "plots/learning_curves.png",
    }  # fmt: skip
    for side in ("val", "test"):
        expected |= {
            f"reports/{side}_classification_report.json",
            f"reports/{side}_classification_report.csv",
            f"reports/{side}_confusion_pairs.csv",
            f"preds/{side}.csv",
            f"misclassified/{side}.csv",
            f"galleries/{side}_least_confident.png",
            f"galleries/{side}_random.png",
            f"plots/{side}_confusion_matrix.png",
            f"plots/{side}_stripplot.png",
            f"plots/{side}_reliability.png",
        }
    assert expected <= present
    assert not [name for name in present if "partial" in name]


def test_a_finished_run_says_so_in_its_facts_and_last_in_its_journal(finished):
    run = RunDirectory(finished.run_dir)
    kinds = [entry.kind for entry in run.entries()]
    assert run.facts.status == run.entries()[-1].status == "FINISHED"
    assert kinds == ["start", "params", "tags", "datasets", *["epoch"] * 3, "metrics", "model", "artifacts", "end"]
    assert run.facts.parameters > 90_000
    assert run.facts.epoch_seconds > 0


def test_numbers_are_kept_in_full(tmp_path):
    run = RunDirectory(tmp_path)
    loss = 0.1 + 0.2  # 0.30000000000000004
    run.epoch({"epoch": 1, "train_loss": loss}, {"epoch": 1, "epoch_seconds": 1 / 3})
    run.epoch({"epoch": 2, "train_loss": 1e-17}, {"epoch": 2, "epoch_seconds": 2 / 3})
    assert run.history.read_text() == "epoch,train_loss\n1,0.30000000000000004\n2,1e-17\n"
    assert run.entries()[0].metrics == {"epoch": 1, "train_loss": loss}
    assert run.entries()[0].timing == {"epoch": 1, "epoch_seconds": 1 / 3}
    assert [entry.step for entry in run.entries()] == [1, 2]
    assert pd.read_csv(run.timing)["epoch"].tolist() == [1, 2]


def test_whoever_listens_is_told_after_the_entry_is_written(tmp_path):
    run, seen = RunDirectory(tmp_path), []
    run.on_record = lambda: seen.append(run.entries()[-1].kind)
    run.record("resume", epoch=None)
    run.record("end", status="FAILED")
    assert seen == ["resume", "end"]


def test_two_threads_can_change_facts_without_losing_any(tmp_path):
    run = RunDirectory(tmp_path)
    run.update_facts(uid="u", status="RUNNING")

    def change(name: str) -> None:
        for number in range(40):
            run.update_facts(**{f"{name}{number}": number})

    threads = [threading.Thread(target=change, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(run.facts.model_dump(exclude_unset=True)) == 82


def test_a_folder_in_use_is_refused_and_left_alone(create, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"--run-dir .*/run: exists and is not empty"):
        create()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_an_empty_folder_may_become_a_run(create, tmp_path):
    (tmp_path / "run").mkdir()
    assert create().facts.status == "RUNNING"


def test_a_folder_below_a_regular_file_is_refused(create, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write the run directory .*file/run"):
        create(tmp_path / "file" / "run")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_folder_that_is_no_run_is_named(tmp_path, content):
    if content:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match="not a run directory"):
        _ = RunDirectory(tmp_path).facts
