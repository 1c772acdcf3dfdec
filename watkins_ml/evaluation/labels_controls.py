"""The controls where a recording may hold any number of species; see `controls`.

Their answers are texts as of `dataset.targets`, a character a species, without anything unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from watkins_ml.core.metric_names import control
from watkins_ml.dataset.targets import decode, encode
from watkins_ml.evaluation.controls import ITERATIONS, SPECTRUM, STRENGTH, learned_from
from watkins_ml.evaluation.intervals import score_intervals
from watkins_ml.evaluation.labels import best_thresholds

MAJORITY = "majority"


def labels_controls(
    sides: Mapping[str, pd.DataFrame], classes: int, refit: bool, spectra: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """What the controls answer for validation and test, by side; each with the index of that side.

    `majority` answers what is in more than half of the recordings, `spectrum` a logistic regression a species on
    `spectra` (see `spectrum.band_statistics`), from the probability that is best on validation. `refit` says that
    those for test learn from training and validation side.
    """
    validated = _regression(sides["train"], sides["val"], classes, spectra)
    thresholds = best_thresholds(decode(sides["val"]["targets"], classes), validated)
    learned = learned_from(sides, refit)
    tested = _regression(learned, sides["test"], classes, spectra)
    found = {}
    for side, known, values in (("val", sides["train"], validated), ("test", learned, tested)):
        index = sides[side].index
        usual = np.nan_to_num(_means(decode(known["targets"], classes))) > 0.5
        every = np.ones((len(index), classes), dtype=bool)
        answers = {MAJORITY: encode(every & usual, every), SPECTRUM: encode(values >= thresholds, every)}
        found[side] = pd.DataFrame(answers, index=index)
    return found


def labels_control_scores(frame: pd.DataFrame, predictions: pd.DataFrame) -> dict[str, float]:
    """As `controls.control_scores`, of rows with tape and targets."""
    found: dict[str, float] = {}
    for name in predictions:
        table = frame[["tape", "targets"]].assign(answers=predictions[name])
        scores = score_intervals(table, draws=1)
        found |= {control(str(name), quantity): interval.value for quantity, interval in scores.items()}
    return found


def _regression(train: pd.DataFrame, test: pd.DataFrame, classes: int, spectra: pd.DataFrame) -> np.ndarray:
    """The probability of each species, float64 (rows of test, classes); that of one with one answer only is its share
    in training."""
    targets, features = decode(train["targets"], classes), spectra.loc[train["path"]].to_numpy()
    tested = spectra.loc[test["path"]].to_numpy()
    probabilities = np.zeros((len(test), classes))
    for label in range(classes):
        known = ~np.isnan(targets[:, label])
        true = targets[known, label] == 1
        if true.all() or not true.any():
            probabilities[:, label] = float(true.any())
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=ITERATIONS))
        with threadpool_limits(1):
            model.fit(features[known], true)
            probabilities[:, label] = model.predict_proba(tested)[:, 1]
    return probabilities


def _means(targets: np.ndarray) -> np.ndarray:
    known = (~np.isnan(targets)).sum(axis=0)
    return np.nansum(targets, axis=0) / np.maximum(known, 1)
