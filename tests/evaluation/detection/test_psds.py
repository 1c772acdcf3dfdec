"""PSDS against the public package; `tests/support/psds_oracle.py` made the file of its answers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support import ROOT
from tests.support.timelines import sliding, timeline, track
from watkins_ml.evaluation.detection.curves import thresholds_of
from watkins_ml.evaluation.detection.psds import PsdsRule, psds, roc_of

ORACLE = json.loads((ROOT / "tests" / "fixtures" / "psds.json").read_text())


def psds_of(line, thresholds, rule) -> float:
    rocs = [roc_of(line, at, line.sweep(at, each), rule) for at, each in enumerate(thresholds)]
    return psds([each for each in rocs if each is not None], rule)


@pytest.mark.parametrize("case", ORACLE["cases"], ids=range(len(ORACLE["cases"])))
@pytest.mark.parametrize("number", range(len(ORACLE["rules"])))
def test_it_equals_sed_scores_eval(case, number):
    parts = [
        track(each["scores"], list(each["calls"].values()), windows=sliding(len(each["scores"]), case["length"]))
        for each in case["recordings"]
    ]
    line = timeline(*parts)
    thresholds = [thresholds_of(line.scores[at], 10**6) for at in range(len(line.species))]
    rule = PsdsRule(**ORACLE["rules"][number])
    assert psds_of(line, thresholds, rule) == pytest.approx(case["psds"][number], abs=1e-6)


def test_perfect_detections_score_one_and_none_zero():
    line = timeline(track([0.9, 0.1, 0.9, 0.1], [[0, 1], [2, 3]]))
    assert psds_of(line, [thresholds_of(line.scores[0])], PsdsRule()) == pytest.approx(1.0)
    assert psds_of(line, [np.array([2.0])], PsdsRule()) == 0.0


def test_what_nobody_listened_to_does_not_count():
    line = timeline(track([0.9, 0.1, 0.95, 0.1], [[0, 1]], reviewed=[[0, 2]]))
    assert psds_of(line, [thresholds_of(line.scores[0])], PsdsRule()) == pytest.approx(1.0)


def test_without_calls_there_is_no_score():
    line = timeline(track([0.9, 0.1], []))
    assert np.isnan(psds_of(line, [thresholds_of(line.scores[0])], PsdsRule()))
