import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from PIL import Image

from tests.support.splits import CLASSES, Spectrograms, make_split
from watkins_ml.core.errors import UserError
from watkins_ml.dataset.layout import read_prepared
from watkins_ml.dataset.loading import load_side
from watkins_ml.evaluation import report
from watkins_ml.evaluation.result import Evaluation, evaluate

FILES = {
    "reports/val_classification_report.csv",
    "reports/val_classification_report.json",
    "reports/val_confusion_pairs.csv",
    "preds/val.csv",
    "preds/val_logits.npy",
    "misclassified/val.csv",
    "galleries/val_least_confident.png",
    "galleries/val_random.png",
    "plots/val_confusion_matrix.png",
    "plots/val_stripplot.png",
    "plots/val_reliability.png",
    "plots/val_risk_coverage.png",
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("run")
    frame, probabilities = make_split(120, skill=1)
    spectrograms, evaluation = Spectrograms(120), evaluated(frame, probabilities)
    report.write_report(run_dir, "val", frame, evaluation, spectrograms)
    return run_dir, frame, evaluation.probabilities, spectrograms, evaluation.scores


def evaluated(frame: pd.DataFrame, probabilities: np.ndarray) -> Evaluation:
    return evaluate(frame.label.to_numpy(), np.log(probabilities), CLASSES)


def test_writes_every_file(written):
    run_dir = written[0]
    assert {str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file()} == FILES
    for path in run_dir.rglob("*.png"):
        with Image.open(path) as image:
            image.verify()


def test_predictions_carry_every_probability(written):
    run_dir, frame, probabilities, _, _ = written
    preds = pd.read_csv(run_dir / "preds/val.csv", dtype={"cut_id": str, "tape": str})
    assert list(preds.columns) == [
        "path", "cut_id", "tape", "species", "predicted", "confidence", "correct", "temperature",
        *[f"p_{name}" for name in CLASSES],
    ]  # fmt: skip
    assert preds.cut_id.tolist() == frame.cut_id.tolist()
    assert np.allclose(preds.filter(like="p_"), probabilities, rtol=1e-5)
    assert preds.correct.tolist() == (probabilities.argmax(axis=1) == frame.label).tolist()


def test_misclassified_are_the_mistakes_most_confident_first_with_second_choice(written):
    run_dir, frame, _, _, scores = written
    wrong = pd.read_csv(run_dir / "misclassified/val.csv")
    assert len(wrong) == round((1 - scores["accuracy"]) * len(frame))
    assert wrong.confidence.is_monotonic_decreasing
    assert (wrong.species != wrong.predicted).all() and (wrong.second_choice != wrong.predicted).all()
    assert (wrong.second_confidence <= wrong.confidence).all()


def test_reports_are_readable(written):
    run_dir, frame, _, _, scores = written
    table = pd.read_csv(run_dir / "reports/val_classification_report.csv")
    assert table.species.tolist() == CLASSES and table.support.sum() == len(frame)
    content = json.loads((run_dir / "reports/val_classification_report.json").read_text(encoding="utf-8"))
    assert content["macro avg"]["f1-score"] == pytest.approx(scores["macro_f1"])
    pairs = pd.read_csv(run_dir / "reports/val_confusion_pairs.csv")
    assert pairs["count"].is_monotonic_decreasing


def test_galleries_read_only_the_least_confident_25_and_a_seeded_25(written):
    _, _, probabilities, spectrograms, _ = written
    confidence = probabilities.max(axis=1)
    assert len(spectrograms.read) == 50
    assert set(spectrograms.read[:25]) == set(np.argsort(confidence)[:25])
    rows = report.gallery_rows(confidence, seed=0)
    assert spectrograms.read == [*rows["least_confident"], *rows["random"]]
    assert len(set(rows["random"])) == 25
    assert not np.array_equal(rows["random"], report.gallery_rows(confidence, seed=1)["random"])


def test_small_splits_and_tensors_do(tmp_path):
    frame, probabilities = make_split(3, skill=9)
    tensors = [torch.randn(1, 128, 400) for _ in range(3)]
    report.write_report(tmp_path, "test", frame, evaluated(frame, probabilities), tensors)
    assert pd.read_csv(tmp_path / "misclassified/test.csv").empty


def test_logits_come_back_bit_by_bit(written):
    run_dir, frame, probabilities, _, _ = written
    logits = report.read_logits(run_dir, "val", (len(frame), len(CLASSES)))
    assert logits.dtype == np.float32
    again = evaluate(frame.label.to_numpy(), logits, CLASSES)
    assert np.array_equal(again.probabilities, probabilities)
    assert report.read_logits(run_dir, "test", (len(frame), len(CLASSES))) is None, "an earlier version kept none"


DAMAGE = {
    "empty": lambda content: b"",
    "torn": lambda content: content[:-1],
    "pickle": lambda content: b"\x80\x04K\x01.",
    "huge": lambda content: content.replace(b"(120, 4), } ", b"(9999999999,4)}"),
    "objects": lambda content: content.replace(b"<f4", b"|O "),
    "doubles": lambda content: content.replace(b"<f4", b"<f8"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_logits_are_named(written, tmp_path, kind):
    content = (written[0] / "preds" / "val_logits.npy").read_bytes()
    (tmp_path / "preds").mkdir()
    (tmp_path / "preds" / "val_logits.npy").write_bytes(DAMAGE[kind](content))
    assert DAMAGE[kind](content) != content
    with pytest.raises(UserError, match=r"val_logits\.npy: damaged"):
        report.read_logits(tmp_path, "val", (120, 4))


@pytest.fixture(scope="module")
def kept(prepared, tmp_path_factory):
    """The real test split of three species with half of the answers wrong, and one recording gone since."""
    archive = tmp_path_factory.mktemp("kept") / "archive"
    data = read_prepared(prepared)
    shutil.copytree(data.audio_dir, archive)
    split = load_side(data, "test")
    (archive / split.frame.path[0]).unlink()
    elsewhere = {key: value for key, value in data.summary.items() if key != "audio_dir_from_here"}
    data = replace(data, summary=elsewhere | {"audio_dir": str(archive)})
    labels = (split.frame.label + split.frame.index % 2) % 2  # the split tests two species
    logits = np.log(np.eye(3)[labels] * 0.6 + 0.4 / 3)
    evaluation = evaluate(split.labels.numpy(), logits, data.classes)
    for name in ("one", "two"):
        run_dir = archive.parent / name
        report.write_report(run_dir, "test", split.frame, evaluation, split.spectrograms, data)
    cuts = pd.read_csv(run_dir / "galleries/test_cuts.csv", dtype=str, keep_default_na=False)
    return run_dir, split.frame, cuts


def test_cuts_are_kept_with_picture_and_sound_or_with_the_reason_why_there_is_none(kept):
    run_dir, frame, cuts = kept
    for cut in cuts.itertuples():
        with Image.open(run_dir / cut.picture) as image:
            assert image.size == (100, 32)
        if cut.path == frame.path[0]:
            assert cut.sound == "" and cut.silent.startswith("unreadable: ")
        else:
            assert soundfile.info(run_dir / cut.sound).duration == pytest.approx(1, abs=0.02)
    assert frame.path[0] in set(cuts.path)
    random = cuts[cuts.shown_in == "random"]
    assert random.path.tolist() == frame.path.tolist()  # fewer than 25


def test_pairs_have_a_mistake_and_a_recognised_cut_of_either_species(kept):
    run_dir, _, cuts = kept
    pairs = pd.read_csv(run_dir / "reports/test_confusion_pairs.csv")
    for number, pair in enumerate(pairs.itertuples()):
        shown = cuts[cuts["rank"] == str(number)].set_index("shown_in")
        mistake = shown.loc["pair_mistake"]
        assert (mistake.species, mistake.predicted) == (pair.true, pair.predicted)
        for role, species in (("pair_true", pair.true), ("pair_predicted", pair.predicted)):
            assert shown.loc[role].species == shown.loc[role].predicted == species


def test_what_is_kept_of_cuts_is_the_same_byte_by_byte(kept):
    second, first = kept[0], kept[0].parent / "one"
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(files) > 20
    for path in files:
        assert (second / path).read_bytes() == (first / path).read_bytes(), path


def test_the_species_of_the_data_are_told_with_cuts_and_tapes(kept, prepared):
    table = pd.read_csv(kept[0] / "reports/species.csv", keep_default_na=False)
    assert table.cuts.tolist() == [12] * 3 and table.tapes.tolist() == [4] * 3
    reasons = table[table.not_tested != ""].set_index("species").not_tested.to_dict()
    assert reasons == read_prepared(prepared).summary["species_not_tested"] != {}


def test_learning_curves(tmp_path):
    columns = ["train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_macro_f1"]
    history = pd.DataFrame(0.5, index=range(2), columns=columns).assign(epoch=[1, 2])
    report.write_learning_curves(tmp_path, history, 2)
    with Image.open(tmp_path / "plots/learning_curves.png") as image:
        image.verify()
