"""The report and the controls of recordings that may hold any number of species."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from watkins_ml.dataset.targets import encode
from watkins_ml.evaluation.labels import evaluate_labels
from watkins_ml.evaluation.labels_controls import labels_control_scores, labels_controls
from watkins_ml.evaluation.labels_report import precision_recall_figure, write_labels_tables
from watkins_ml.evaluation.report import prediction_table

CLASSES = ["Orca", "Walrus", "nowhere"]
TARGETS = np.array([[1, 0, 0], [1, 1, 0], [0, np.nan, 0], [0, 1, 0]], dtype=np.float32)
LOGITS = np.array([[3, -2, -4], [2, -1, -4], [-3, 2, -4], [1, 3, -4]], dtype=np.float32)
FRAME = pd.DataFrame(
    {
        "path": [f"{n}.wav" for n in range(4)],
        "cut_id": list("0123"),
        "tape": list("aabb"),
        "species": ["Orca", "Orca + Walrus", "background", "Walrus"],
        "targets": encode(TARGETS == 1, ~np.isnan(TARGETS)),
    }
)


def test_tables_say_what_was_missed_and_what_was_false(tmp_path):
    evaluation = evaluate_labels(TARGETS, LOGITS, CLASSES, thresholds=np.full(3, 0.5))
    write_labels_tables(tmp_path, "test", prediction_table(FRAME, evaluation), evaluation)
    mistakes = pd.read_csv(tmp_path / "misclassified" / "test.csv", keep_default_na=False)
    assert mistakes[["path", "missed", "false"]].to_numpy().tolist() == [["1.wav", "Walrus", ""], ["3.wav", "", "Orca"]]
    report = json.loads((tmp_path / "reports" / "test_classification_report.json").read_text())
    assert report["Walrus"]["recall"] == 0.5 and report["nowhere"]["f1"] is None and report["all"]["macro_f1"] < 1
    table = pd.read_csv(tmp_path / "preds" / "test.csv", dtype={"targets": str, "answers": str})
    assert table["targets"].tolist() == ["100", "110", "0-0", "010"]
    assert table["predicted"].tolist() == ["Orca", "Orca", "Walrus", "Orca + Walrus"]
    assert table["correct"].tolist() == [True, False, True, False]


def test_the_picture_has_a_curve_for_each_species_that_is_there():
    evaluation = evaluate_labels(TARGETS, LOGITS, CLASSES, thresholds=np.full(3, 0.5))
    figure = precision_recall_figure(evaluation)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["Orca: 1.00 (2)", "Walrus: 1.00 (2)"]


def test_controls_answer_by_what_is_usual_and_by_the_mean_spectrum():
    rng = np.random.default_rng(0)

    def side(name: str, rows: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        present = rng.random((rows, 2)) < [0.7, 0.3]
        known = rng.random((rows, 2)) < 0.9
        paths = [f"{name}{n}.wav" for n in range(rows)]
        frame = pd.DataFrame({"path": paths, "tape": paths, "targets": encode(present & known, known)})
        return frame, pd.DataFrame(present + 0.1 * rng.standard_normal((rows, 2)), index=paths)

    made = {name: side(name, rows) for name, rows in (("train", 80), ("val", 40), ("test", 40))}
    sides = {name: frame for name, (frame, _) in made.items()}
    answers = labels_controls(sides, 2, False, pd.concat([spectra for _, spectra in made.values()]))
    assert set(answers["test"]["majority"]) == {"10"}
    scores = labels_control_scores(sides["test"], answers["test"])
    assert scores["control_spectrum_accuracy"] > 0.97 > 0.9 > scores["control_majority_accuracy"]
    assert scores["control_spectrum_macro_f1"] > 0.95
