"""Controls: what a split gives away before anybody listens, and what the simplest use of the audio gives.

In an archive, species, tape, recorder, cut length and site go together (one expedition, one recorder, one species),
so metadata alone can name the species, and so can the mean spectrum, which holds the recorder's colour beside the
animal's. A network's score means something only beside these.
"""

from collections.abc import Mapping

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.core.metric_names import ACCURACY, MACRO_F1, control

CONTROLS = {
    "majority": "commonest species",
    "tape": "tape",
    "sample_rate": "native sample rate",
    "duration": "duration",
    "rate_duration": "native sample rate and duration",
    "site": "site",
}
"""What each control without audio knows of a recording, the simplest first; `site` only where a metadata table gave
it."""
SPECTRUM = "spectrum"
WITH_AUDIO = {SPECTRUM: "logistic regression on mean and deviation of each mel band"}
"""The control with audio; `spectrum.band_statistics` gives its features."""
STRENGTH = 1.0
"""Inverse weight of the ridge penalty; on the shared tapes no other power of ten scored better out of fold."""
ITERATIONS = 1000


def controls(train: pd.DataFrame, test: pd.DataFrame, spectra: pd.DataFrame | None = None) -> dict[str, float]:
    """`control_scores` on `test` of `control_predictions`."""
    return control_scores(test.species, control_predictions(train, test, spectra))


def learned_from(sides: Mapping[str, pd.DataFrame], refit: bool) -> pd.DataFrame:
    """What a network has learned from, and so the controls beside it: the training side, after a refit both."""
    return pd.concat([sides["train"], sides["val"]], ignore_index=True) if refit else sides["train"]


def control_predictions(train: pd.DataFrame, test: pd.DataFrame, spectra: pd.DataFrame | None = None) -> pd.DataFrame:
    """The species that each of CONTROLS, fitted on `train`, names for each row of `test`.

    Both frames have a row per cut: species, tape, sample_rate (native, Hz), duration_s (seconds), and perhaps site
    (empty where unknown). The table has the index of `test` and a column per control, `site` only if both frames
    have it, and SPECTRUM only with `spectra`, the `band_statistics` of both frames by `path`. Tables of several folds
    can be concatenated and scored together.
    """
    predictions = {
        "majority": pd.Series(_majority(train.species), index=test.index),
        "tape": _lookup(train, test, "tape"),
        "sample_rate": _lookup(train, test, "sample_rate"),
        "duration": _boosted(train, test, ["duration_s"]),
        "rate_duration": _boosted(train, test, ["sample_rate", "duration_s"]),
    }
    if "site" in train and "site" in test:
        predictions["site"] = _lookup(train, test, "site")
    if spectra is not None:
        predictions[SPECTRUM] = spectrum_prediction(train, test, spectra)
    return pd.DataFrame(predictions)


def spectrum_prediction(train: pd.DataFrame, test: pd.DataFrame, spectra: pd.DataFrame) -> pd.Series:
    """The control with audio alone: a multinomial logistic regression on standardised features, each species alike.

    `spectra` holds features by path, of the cuts of both frames. One thread computes it, so that the result is the
    same wherever it runs.
    """
    if train.species.nunique() == 1:
        return pd.Series(_majority(train.species), index=test.index)
    regression = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=ITERATIONS)
    model = make_pipeline(StandardScaler(), regression)
    with threadpool_limits(1):
        model.fit(spectra.loc[train.path].to_numpy(), train.species)
        return pd.Series(model.predict(spectra.loc[test.path].to_numpy()), index=test.index)


def control_scores(species: pd.Series, predictions: pd.DataFrame) -> dict[str, float]:
    """`control_<name>_accuracy` and `control_<name>_macro_f1` of each column of `control_predictions`.

    `species` holds the true ones, with the same index in any order. Macro F1 runs over the species present in it,
    as in `metrics.score`.

    Raises:
        ValueError: an index that is not the same, or that names a row twice in another order.
    """
    if len(species) != len(predictions):
        raise ValueError(f"{len(species)} cuts, but predictions for {len(predictions)}")
    predictions = predictions.reindex(species.index)
    present = sorted(set(species) - {BACKGROUND}) or [BACKGROUND]
    found: dict[str, float] = {}
    for name, predicted in predictions.items():
        found[control(name, ACCURACY)] = float(accuracy_score(species, predicted))
        found[control(name, MACRO_F1)] = float(
            f1_score(species, predicted, labels=present, average="macro", zero_division=0)
        )
    return found


def control_table(scores: dict[str, float]) -> pd.DataFrame:
    """The controls among `scores` for a reader: control, title, accuracy, macro_f1."""
    rows = [
        (name, title, *(scores[control(name, quantity)] for quantity in (ACCURACY, MACRO_F1)))
        for name, title in (CONTROLS | WITH_AUDIO).items()
        if control(name, ACCURACY) in scores
    ]
    return pd.DataFrame(rows, columns=["control", "title", ACCURACY, MACRO_F1])


def _majority(species: pd.Series) -> str:
    return species.mode().iloc[0]  # of equals the first by name, so that ties are stable


def _lookup(train: pd.DataFrame, test: pd.DataFrame, column: str) -> pd.Series:
    """The commonest species in `train` for the same value of `column`; for an unseen or empty one, overall."""
    known = train[train[column] != ""].groupby(column).species.agg(_majority)
    return test[column].map(known.to_dict()).fillna(_majority(train.species))


def _boosted(train: pd.DataFrame, test: pd.DataFrame, columns: list[str]) -> pd.Series:
    if train.species.nunique() == 1:
        return pd.Series(_majority(train.species), index=test.index)
    # Rare species have fewer cuts than the default leaf of 20, and too few for an internal hold-out.
    # Each species alike: the commonest in training are the rarest in a fold by tape, and would be named in vain.
    model = HistGradientBoostingClassifier(
        learning_rate=0.2,
        max_iter=30,
        min_samples_leaf=5,
        early_stopping=False,
        class_weight="balanced",
        random_state=0,
    )
    # Thousands of tiny trees: threads that wait for each other cost ten times what they save.
    with threadpool_limits(1, "openmp"):
        model.fit(train[columns], train.species)
        return pd.Series(model.predict(test[columns]), index=test.index)
