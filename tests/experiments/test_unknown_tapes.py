"""Unknown species across tapes: sides without a species, and what a table of answers comes to."""

from __future__ import annotations

import pandas as pd
from few_shot import write_folder
from unknown_tapes import row, without

from watkins_ml.dataset.folds import FoldRule, make_folds
from watkins_ml.dataset.layout import read_prepared


def test_a_species_that_is_left_out_is_on_no_side_and_the_others_keep_their_numbers(prepared, tmp_path):
    fold = make_folds(read_prepared(prepared), FoldRule(3)).data_of("1")
    gone = fold.classes[0]
    data = read_prepared(write_folder(without(fold, [gone]), tmp_path / "without"))
    for side, frame in fold.sides.items():
        kept = frame[frame["species"] != gone]
        assert data.sides[side][["path", "label"]].values.tolist() == kept[["path", "label"]].values.tolist()
    assert data.classes == fold.classes and data.digest != fold.digest


def test_unknown_cuts_are_counted_where_so_many_known_ones_are_answered():
    known = pd.DataFrame({"known": True, "novelty": [0.1 * number for number in range(1, 11)], "confidence": 0.5})
    unknown = pd.DataFrame({"known": False, "novelty": [0.85, 0.95, 1.2, 2.0], "confidence": [0.4, 0.6, 0.6, 0.6]})
    cells = list(row(pd.concat([known, unknown], ignore_index=True), 0.9).values())
    assert cells[0] == "100.0% / 50.0%"
    assert cells[1].startswith("25.0% (area under ROC"), "up to 0.9 of novelty"
    assert cells[2] == "75.0% (area under ROC 0.25)"
