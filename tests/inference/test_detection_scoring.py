"""`watkins evaluate --recordings`: a trained network on recordings with calls at known times."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.conftest import RATE, THREE_SPECIES, tone
from watkins_ml.annotations.collect import AnnotationOptions
from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.detection.choosing import Wish
from watkins_ml.inference.detection_report import write_detection_report
from watkins_ml.inference.detection_scoring import DetectionOptions, evaluate_detections
from watkins_ml.inference.detections import DetectionOptions as PredictOptions
from watkins_ml.inference.detections import detect
from watkins_ml.inference.scores import score_recordings
from watkins_ml.inference.windows import WindowOptions
from watkins_ml.models.bundle import Classifier
from watkins_ml.models.thresholds import Thresholds, write_thresholds
from watkins_ml.tracking.server import client

SPECIES = list(THREE_SPECIES)
ALL = AnnotationOptions(reviewed="all")


@pytest.fixture(scope="module")
def sea(tmp_path_factory) -> Path:
    """Three recordings of 12 s: a second of tone of each species, with digital silence around; and their table."""
    folder = tmp_path_factory.mktemp("sea")
    rows = []
    for number in range(3):
        sound = np.zeros(12 * RATE, np.float32)
        for place, (name, frequency) in enumerate(THREE_SPECIES.items()):
            begin = 2 + 3 * place
            sound[begin * RATE : (begin + 1) * RATE] = tone(frequency, 1.0, 100 * number + place)
            rows.append((f"r{number}.wav", begin, begin + 1, name))
        soundfile.write(folder / f"r{number}.wav", sound, RATE)
    pd.DataFrame(rows, columns=["file", "start_s", "end_s", "species"]).to_csv(folder / "calls.csv", index=False)
    return folder


def evaluated(classifier: Classifier, sea: Path, **options):
    asked = DetectionOptions(**({"tables": ALL, "max_novelty": np.inf} | options))
    return evaluate_detections(classifier, "model", sea, sea / "calls.csv", None, asked)


def test_what_predict_detects_is_what_is_scored(classifier, sea):
    found = evaluated(classifier, sea, threshold=0.4).verdicts
    found = found[found["verdict"] != "miss"]
    options = PredictOptions(0.4, top=3, max_novelty=np.inf)
    scores = score_recordings(classifier, sorted(sea.glob("*.wav")), WindowOptions())
    rows = pd.concat([detect(each, classifier.classes, options).rows for each in scores])
    mine = found[["recording", "species", "start_s", "end_s", "score"]].values.tolist()
    theirs = [[Path(row.path).name, row.species, row.start_s, row.end_s, row.probability] for row in rows.itertuples()]
    assert sorted(mine) == [[*each[:2], *map(pytest.approx, each[2:])] for each in sorted(theirs)]


def test_a_network_that_knows_the_tones_finds_them(classifier, sea):
    evaluation = evaluated(classifier, sea)
    metrics = evaluation.scores.metrics()
    assert metrics["detection_micro_recall"] > 0.5
    assert metrics["detection_hours"] == pytest.approx(3 * 12 / 3600)
    assert set(evaluation.scores.groups["group"]) == {"r0", "r1", "r2"}
    assert evaluation.thresholds_from == "default 0.5"


def test_labels_that_the_model_does_not_know_and_the_background_are_not_scored(classifier, sea, tmp_path):
    table = pd.read_csv(sea / "calls.csv")
    table.loc[0, "species"], table.loc[1, "species"] = "Kraken", "background"
    table.to_csv(tmp_path / "calls.csv", index=False)
    named = replace(classifier, classes=[*SPECIES[:2], "background"])
    asked = DetectionOptions(ALL, max_novelty=np.inf)
    evaluation = evaluate_detections(named, "model", sea, tmp_path / "calls.csv", None, asked)
    assert evaluation.timeline.species == tuple(SPECIES[:2])
    assert "1 call of Kraken left out: the model does not know it" in evaluation.remarks


def test_nothing_listened_through_is_said_and_no_threshold_is_chosen(classifier, sea):
    evaluation = evaluated(classifier, sea, tables=AnnotationOptions())
    assert any(each.startswith("Nothing is marked as listened through") for each in evaluation.remarks)
    assert evaluation.scores.hours == pytest.approx(9 / 3600)
    with pytest.raises(UserError, match="--reviewed spans: nothing was listened through, so no threshold"):
        evaluated(classifier, sea, tables=AnnotationOptions(), wish=Wish(false_alarms=1))


def test_tables_of_other_species_are_refused(classifier, sea, tmp_path):
    (tmp_path / "calls.csv").write_text("file,start_s,end_s,species\nr0.wav,1,2,Kraken\n")
    with pytest.raises(UserError, match=r"no call of a species that model knows \(FinWhale.*marked is Kraken"):
        evaluate_detections(classifier, "model", sea, tmp_path / "calls.csv", None, DetectionOptions(ALL))


def test_a_recording_that_cannot_be_read_is_left_out_and_named(classifier, sea, tmp_path):
    shutil.copytree(sea, tmp_path / "sea")
    path = tmp_path / "sea" / "r1.wav"
    path.write_bytes(path.read_bytes()[:50_000])
    evaluation = evaluated(classifier, tmp_path / "sea")
    assert {track.recording for track in evaluation.timeline.tracks} == {"r0.wav", "r2.wav"}
    assert evaluation.rejected["path"].tolist()[:1] == ["r1.wav"]


def test_kept_thresholds_are_used_and_others_go_before_them(classifier, sea):
    kept = replace(classifier, thresholds=Thresholds({SPECIES[0]: 0.9}, "a wish", {"overlap": 0.5}))
    evaluation = evaluated(kept, sea)
    assert evaluation.scores.thresholds == {SPECIES[0]: 0.9, SPECIES[1]: 0.5, SPECIES[2]: 0.5}
    assert evaluation.thresholds_from == "kept with the model (a wish)"
    assert set(evaluated(kept, sea, threshold=0.3).scores.thresholds.values()) == {0.3}


def test_the_report_shows_errors_with_picture_and_sound(classifier, sea, tmp_path, real_pictures):
    evaluation = evaluated(classifier, sea, threshold=1.0)  # so that all is missed
    write_detection_report(tmp_path, evaluation, classifier, "model")
    page = (tmp_path / "detection.html").read_text()
    assert len(re.findall(r'<audio[^>]* src="data:audio/mpeg;base64,', page)) == 9
    assert page.count("missed call</strong>") == 9 and "https://" not in page
    verdicts = pd.read_csv(tmp_path / "preds" / "detection_verdicts.csv")
    assert (verdicts["verdict"] == "miss").sum() == 9
    metrics = json.loads((tmp_path / "reports" / "detection_metrics.json").read_text())
    assert metrics["detection_micro_recall"] == 0.0
    assert metrics["evaluated"]["thresholds"] == dict.fromkeys(SPECIES, 1.0)
    for name in ("species", "groups", "curves"):
        assert len(pd.read_csv(tmp_path / "reports" / f"detection_{name}.csv"))
    assert (tmp_path / "plots" / "detection_precision_recall.png").stat().st_size > 5_000


@pytest.fixture
def own_model(finished, tmp_path) -> Path:
    """A copy of a finished run that may be changed."""
    shutil.copytree(finished.run_dir / "model", tmp_path / "run" / "model")
    return tmp_path / "run"


def test_the_command_chooses_and_keeps_thresholds_that_predict_then_uses(watkins, own_model, sea, tmp_path):
    asked = (
        "evaluate",
        own_model,
        "--recordings",
        sea,
        "--annotations",
        sea,
        "--reviewed",
        "all",
        "--max-novelty",
        "inf",
    )
    said = watkins(
        *asked, "--overlap", 0.75, "--false-alarms", "24/day", "--save-thresholds", "--out", tmp_path / "rep"
    )
    assert said.status == 0, said.err
    assert "Thresholds: at most 1 false alarms an hour" in said.out
    kept = json.loads((own_model / "model" / "thresholds.json").read_text())
    assert set(kept["thresholds"]) == set(SPECIES) and kept["facts"]["overlap"] == 0.75
    again = watkins(*asked)
    assert "kept with the model (at most 1 false alarms an hour)" in again.out and "overlap 0.75" in again.out
    predicted = watkins("predict", own_model, sea, "--format", "csv", "--max-novelty", "inf")
    assert "Thresholds kept with the model: at most 1 false alarms an hour" in predicted.err
    verdicts = pd.read_csv(tmp_path / "rep" / "preds" / "detection_verdicts.csv")
    assert predicted.out.count("\n") - 1 == (verdicts["verdict"] != "miss").sum()
    own = watkins("predict", own_model, sea, "--format", "csv", "--threshold", 0.5)
    assert own.status == 0 and "kept" not in own.err


def test_thresholds_of_another_model_are_refused(watkins, own_model, sea):
    write_thresholds(own_model / "model", Thresholds({"Kraken": 0.5}, "a wish", {}))
    said = watkins("predict", own_model, sea)
    assert said.status == 1 and "damaged thresholds (Kraken is no species of the model)" in said.err
    (own_model / "model" / "thresholds.json").write_text("{")
    assert "damaged thresholds" in watkins("predict", own_model, sea).err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recordings", "sea"), "--recordings: needs what is marked in them (--annotations TABLES)"),
        (("--reviewed", "all"), "--reviewed: is about detections; give --recordings too"),
        (("--recordings", "sea", "--annotations", "sea", "--split", "val"), "--split: is about prepared data"),
        (("--recordings", "s", "--annotations", "s", "--false-alarms", "few"), "--false-alarms few: is no rate"),
        (("--recordings", "s", "--annotations", "s", "--false-alarms", "1", "--precision", "0.9"), "not together"),
        (("--recordings", "s", "--annotations", "s", "--save-thresholds"), "--save-thresholds: needs what they are"),
    ],
)
def test_misuse_is_one_line(watkins, options, message):
    said = watkins("evaluate", "model", *options)
    assert said.status == 2 and message in said.err and len(said.err.strip().splitlines()) == 1


def test_a_registered_version_has_its_thresholds_as_a_tag(watkins, finished, sea, tmp_path, monkeypatch):
    folder = tmp_path / "project"
    shutil.copytree(finished.folder, folder)
    monkeypatch.chdir(folder)
    model = "models:/watkins-baseline@champion"
    asked = ("evaluate", model, "--recordings", sea, "--annotations", sea, "--reviewed", "all", "--precision", 0.5)
    said = watkins(*asked, "--save-thresholds", "--out", tmp_path / "rep")
    assert said.status == 0, said.err
    assert "Thresholds kept: tag watkins.thresholds of watkins-baseline version 1" in said.out
    tags = client().get_model_version("watkins-baseline", "1").tags
    assert float(tags["detection_macro_average_precision"]) > 0 and "centre" in tags["detection_scored_on"]
    run = client().get_run(client().get_model_version("watkins-baseline", "1").run_id)
    assert run.data.metrics["detection/macro_average_precision"] == pytest.approx(
        float(tags["detection_macro_average_precision"]), abs=1e-6
    )
    assert json.loads(tags["watkins.thresholds"])["chosen_for"] == "precision of at least 0.5"
    assert "precision" in watkins("models").out
    assert "kept with the model (precision of at least 0.5)" in watkins(*asked[:-2], "--out", tmp_path / "rep").out
