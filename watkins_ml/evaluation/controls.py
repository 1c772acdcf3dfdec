"""No-audio controls: what a split gives away before anybody listens.

In an archive, species, tape, recorder and cut length go together (one expedition, one recorder, one species),
so metadata alone can name the species. A model's score means something only beside these.
"""

import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import accuracy_score, f1_score
from threadpoolctl import threadpool_limits

RATE_AND_DURATION = ["sample_rate", "duration_s"]


def controls(train: pd.DataFrame, test: pd.DataFrame) -> dict[str, float]:
    """Accuracy and macro F1 on `test` of four predictors fitted on `train` without any audio.

    Both frames have a row per cut: species, tape, sample_rate (native, Hz), duration_s (seconds). Keys are
    `control_{majority,tape,sample_rate,rate_duration}_{accuracy,macro_f1}`; macro F1 runs over the species
    present in `test`, as in `metrics.score`.
    """
    predictions = {
        "majority": pd.Series(_majority(train.species), index=test.index),
        "tape": _lookup(train, test, "tape"),
        "sample_rate": _lookup(train, test, "sample_rate"),
        "rate_duration": _boosted(train, test),
    }
    present = sorted(test.species.unique())
    found: dict[str, float] = {}
    for name, predicted in predictions.items():
        found[f"control_{name}_accuracy"] = float(accuracy_score(test.species, predicted))
        found[f"control_{name}_macro_f1"] = float(
            f1_score(test.species, predicted, labels=present, average="macro", zero_division=0)
        )
    return found


def _majority(species: pd.Series) -> str:
    return species.mode().iloc[0]  # of equals the first by name, so that ties are stable


def _lookup(train: pd.DataFrame, test: pd.DataFrame, column: str) -> pd.Series:
    """The commonest species in `train` for the same value of `column`; for an unseen value, overall."""
    known = train.groupby(column).species.agg(_majority)
    return test[column].map(known).fillna(_majority(train.species))


def _boosted(train: pd.DataFrame, test: pd.DataFrame) -> pd.Series:
    if train.species.nunique() == 1:
        return pd.Series(_majority(train.species), index=test.index)
    # Rare species have fewer cuts than the default leaf of 20, and too few for an internal hold-out.
    model = HistGradientBoostingClassifier(
        learning_rate=0.2, max_iter=30, min_samples_leaf=5, early_stopping=False, random_state=0
    )
    # Thousands of tiny trees: threads that wait for each other cost ten times what they save.
    with threadpool_limits(1, "openmp"):
        model.fit(train[RATE_AND_DURATION], train.species)
        return pd.Series(model.predict(test[RATE_AND_DURATION]), index=test.index)
