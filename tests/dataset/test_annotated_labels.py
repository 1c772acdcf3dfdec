"""`watkins prepare --task labels`: windows with any number of species, of which some may not be known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.support.duets import FRONTEND, write_duets
from tests.support.folders import table
from watkins_ml.annotations.collect import AnnotationOptions
from watkins_ml.core.errors import UsageError, UserError
from watkins_ml.dataset.annotated import AnnotatedOptions, prepare_annotated
from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import load_side
from watkins_ml.dataset.prepare import Prepared, PrepareOptions, prepare
from watkins_ml.dataset.targets import LABELS, decode
from watkins_ml.dataset.windowing import WindowRule


@pytest.fixture(scope="module")
def duets(tmp_path_factory) -> Path:
    return write_duets(tmp_path_factory.mktemp("duets") / "sea")


@pytest.fixture
def prepare_duets(duets, tmp_path) -> Callable[..., Prepared]:
    def prepare_duets(calls: Path = duets / "calls.csv", reviewed: str = "all", **changed) -> Prepared:
        annotated = AnnotatedOptions(AnnotationOptions(reviewed=reviewed), WindowRule(background_ratio=100.0))
        options = PrepareOptions(**{"workers": 1, "min_clips": 3, "frontend": FRONTEND, "task": LABELS} | changed)
        return prepare_annotated(duets / "audio", calls, tmp_path / "out", options, annotated)

    return prepare_duets


def windows(folder: Path) -> pd.DataFrame:
    """All rows by path, with what is known of each species."""
    data = read_prepared(folder)
    rows = pd.concat(data.sides.values()).set_index("path")
    return rows.join(pd.DataFrame(decode(rows["targets"], len(data.classes)), rows.index, data.classes))


def shared(row: pd.Series, calls: pd.DataFrame) -> float:
    """The largest share of a call in a window, of the shorter of the two."""
    overlap = np.minimum(row["end_s"], calls["end_s"]) - np.maximum(row["start_s"], calls["start_s"])
    shorter = np.minimum(row["end_s"] - row["start_s"], calls["end_s"] - calls["start_s"])
    return float((overlap / shorter).max())


def test_every_species_of_a_window_is_known_to_be_there_or_not_or_masked(prepare_duets, duets, tmp_path):
    prepare_duets()
    calls, rows = pd.read_csv(duets / "calls.csv"), windows(tmp_path / "out")
    assert {"Orca", "Walrus", "Orca + Walrus", "background"} == set(rows["species"])
    for _, row in rows.iterrows():
        for species in ("Orca", "Walrus"):
            own = calls[(calls["file"] == row["recording"]) & (calls["species"] == species)]
            share = shared(row, own)
            wanted = 1.0 if share >= 0.5 else 0.0 if share <= 0.1 else np.nan
            assert row[species] == wanted or (np.isnan(row[species]) and np.isnan(wanted)), (row, species, share)


def test_where_nobody_listened_only_what_is_marked_is_known(prepare_duets, tmp_path):
    summary = prepare_duets(reviewed="none").summary
    rows = windows(tmp_path / "out")
    assert not (rows[["Orca", "Walrus"]] == 0).any().any()
    assert (rows[["Orca", "Walrus"]] == 1).any(axis=1).all()  # else nothing would be known
    assert summary["annotations"]["unreviewed_windows"] > 0


def test_no_recording_is_on_two_sides_or_in_two_folds_and_every_species_on_each(prepare_duets, tmp_path):
    prepare_duets()
    data = read_prepared(tmp_path / "out")
    recordings = [set(frame["recording"]) for frame in data.sides.values()]
    assert sum(map(len, recordings)) == 9 == len(set().union(*recordings))
    for frame in data.sides.values():
        assert set(data.row_a_species(frame)["species"]) == {"Orca", "Walrus"}
    folds = make_folds(data, FoldRule(3))
    assert folds.table.groupby("recording")["fold"].nunique().max() == 1
    tested = [folds.data_of(name).sides["test"] for name in folds.names]
    assert sorted(pd.concat(tested)["path"]) == sorted(folds.table["path"])  # also windows without a species
    assert "stratum" not in tested[0] and not folds.untestable


def test_a_side_has_a_row_of_numbers_for_each_window(prepare_duets, tmp_path):
    prepare_duets()
    data = read_prepared(tmp_path / "out")
    side = load_side(data, "train")
    assert side.labels.shape == (len(side), 2) and side.labels.isnan().any()
    assert data.species()["cuts"].tolist() == [
        sum((decode(frame["targets"], 2)[:, label] == 1).sum() for frame in data.sides.values()) for label in (0, 1)
    ]


def test_a_species_with_too_few_windows_is_no_class_but_its_windows_stay(prepare_duets, duets, tmp_path):
    calls = pd.concat([
        pd.read_csv(duets / "calls.csv"),
        pd.DataFrame({"file": ["duet0.wav"], "start_s": [18.2], "end_s": [18.8], "species": ["Narwhal"]}),
    ])  # fmt: skip
    calls.to_csv(tmp_path / "more.csv", index=False)
    summary = prepare_duets(tmp_path / "more.csv", min_clips=5).summary
    data, rejected = read_prepared(tmp_path / "out"), table(tmp_path / "out", "rejected")
    assert data.classes == ["Orca", "Walrus"] and summary["species_left_out"]["Narwhal"] < 5
    assert set(rejected.loc[rejected["species"] == "Narwhal", "path"]) <= set(windows(tmp_path / "out").index)


def test_the_task_is_part_of_the_data_digest_and_a_second_call_does_nothing(prepare_duets, tmp_path):
    first = prepare_duets()
    again = prepare_duets()
    assert again.computed == 0 and again.summary == first.summary
    assert prepare_duets(task="species").summary["data_digest"] != first.summary["data_digest"]


def test_a_random_split_of_such_windows_is_refused(prepare_duets, tmp_path):
    with pytest.raises(UsageError, match="--split random: divides windows of one species each"):
        prepare_duets(split="random")
    assert not (tmp_path / "out" / "dataset.json").exists()


def test_damaged_targets_are_refused(prepare_duets, tmp_path):
    prepare_duets()
    path = tmp_path / "out" / "annotations" / "val.csv"
    path.write_text(path.read_text().replace(",10\n", ",1x\n"))
    with pytest.raises(UserError, match=r"damaged data folder .targets with characters other than"):
        read_prepared(tmp_path / "out")


def test_species_folders_are_the_case_of_one_label_a_recording(archive, prepared, tmp_path):
    options = PrepareOptions(workers=1, frontend=read_prepared(prepared).frontend)
    prepare(archive, tmp_path / "one", options)
    prepare(archive, tmp_path / "many", PrepareOptions(workers=1, frontend=options.frontend, task=LABELS))
    one, many = read_prepared(tmp_path / "one"), read_prepared(tmp_path / "many")
    assert one.digest != many.digest and many.task == LABELS and one.classes == many.classes
    for side, frame in many.sides.items():
        pd.testing.assert_frame_equal(frame.drop(columns="targets"), one.sides[side])
        assert (decode(frame["targets"], len(many.classes)).argmax(axis=1) == frame["label"]).all()
        assert not np.isnan(decode(frame["targets"], len(many.classes))).any()
