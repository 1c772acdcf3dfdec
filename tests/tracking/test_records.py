"""What a run directory says of itself has types; what other versions wrote is read, and damage is told from it."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from watkins_ml.core.errors import UserError
from watkins_ml.tracking import journal
from watkins_ml.tracking.records import CROSSVAL, TRAIN, Entry, Epoch, RunFacts, Values, parse_entry
from watkins_ml.tracking.rundir import RunDirectory

FIRST = {"uid": "u", "status": "FINISHED", "name": "r", "family": "baseline", "species": 3}
"""`run.json` as the first versions wrote it."""


def test_facts_of_an_earlier_version_have_defaults_for_what_it_left_out():
    facts = RunFacts.model_validate(FIRST)
    assert (facts.command, facts.study, facts.folds, facts.untestable, facts.concluded) == (
        TRAIN,
        None,
        None,
        {},
        False,
    )


def test_facts_of_a_later_version_are_kept_as_they_are(tmp_path):
    path = tmp_path / "run.json"
    later = FIRST | {"depth": {"metres": [1, 2.5]}, "crossval": {"uid": "c", "name": "n", "fold": "1", "site": "Disko"}}
    path.write_text(json.dumps(later))
    run = RunDirectory(tmp_path)
    run.update_facts(status="KILLED")
    assert json.loads(path.read_text()) == later | {"status": "KILLED"}
    assert run.facts.crossval.fold == "1" and run.facts.depth == {"metres": [1, 2.5]}


def test_only_what_was_given_is_written(tmp_path):
    run = RunDirectory(tmp_path)
    run.update_facts(uid="u", status="RUNNING", command=CROSSVAL)
    assert json.loads(run.facts_file.read_text()) == {"uid": "u", "status": "RUNNING", "command": CROSSVAL}


@pytest.mark.parametrize(
    "change",
    [{"uid": 5}, {"status": None}, {"folds": "five"}, {"study": {"uid": "u"}}, {"model": []}, {"species": 1.5}],
)
def test_facts_of_other_types_are_no_run_directory_and_never_written(tmp_path, change):
    run = RunDirectory(tmp_path)
    run.update_facts(**FIRST)
    with pytest.raises(ValidationError):
        run.update_facts(**change)
    assert run.facts.model_dump(exclude_unset=True) == FIRST
    run.facts_file.write_text(json.dumps(FIRST | change))
    with pytest.raises(UserError, match=r"not a run directory \(its run.json is missing or damaged\)"):
        _ = run.facts


def test_whole_numbers_of_an_epoch_stay_whole():
    entry = parse_entry({"kind": "epoch", "time_ms": 1, "step": 2, "metrics": {"epoch": 2, "train_loss": 0.1 + 0.2}})
    assert isinstance(entry, Epoch) and entry.timing == {}
    assert repr(entry.metrics) == "{'epoch': 2, 'train_loss': 0.30000000000000004}"


def test_an_entry_of_a_kind_that_is_not_known_keeps_its_content(tmp_path):
    journal.append(tmp_path / "j", "swim", {"depth": 3})
    (entry,) = journal.read(tmp_path / "j")
    assert type(entry) is Entry and (entry.kind, entry.depth) == ("swim", 3)


@pytest.mark.parametrize(
    "content",
    [
        {"kind": "end"},
        {"kind": "epoch", "step": "2", "metrics": {}},
        {"kind": "metrics", "step": 0, "values": {"test_accuracy": "high"}},
        {"kind": "artifacts", "paths": "plots"},
        {"kind": "start", "name": "n", "uid": "u", "experiment": None},
        {"kind": "tags", "values": []},
        {"kind": ["end"], "status": "FAILED"},
    ],
)
def test_an_entry_that_lacks_what_its_kind_has_is_damaged_and_never_written(tmp_path, content):
    path = tmp_path / "journal.jsonl"
    with pytest.raises(ValueError):
        journal.append(path, **{"kind": content["kind"], "content": {k: v for k, v in content.items() if k != "kind"}})
    assert not path.exists()
    path.write_text(json.dumps(content | {"time_ms": 1}) + "\n")
    with pytest.raises(UserError, match=r"journal\.jsonl: line 1 is damaged; restore the file from a copy"):
        journal.read(path)


def test_the_journal_of_a_run_is_typed(finished):
    entries = RunDirectory(finished.run_dir).entries()
    assert [type(entry) for entry in entries if entry.kind in ("params", "tags")] == [Values] * 2
    assert Entry not in map(type, entries) and not any(entry.model_extra for entry in entries)
    assert not RunDirectory(finished.run_dir).facts.model_extra
