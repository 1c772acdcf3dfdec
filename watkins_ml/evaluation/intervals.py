"""How sure a score is: intervals from a bootstrap over tapes, and whether one model is better by more than noise.

Cuts of one tape are alike, so that a thousand cuts from ten tapes say about as much as ten tapes do. What is drawn
again and again here, with replacement, are therefore whole tapes (the cluster bootstrap: Davison and Hinkley 1997,
"Bootstrap Methods and their Application", section 3.8).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from watkins_ml.annotations.mapping import BACKGROUND
from watkins_ml.core.errors import UserError
from watkins_ml.core.metric_names import TEST, TEST_MACRO_F1
from watkins_ml.core.wording import plural
from watkins_ml.dataset.targets import decode

DRAWS = 2000
CONFIDENCE = 0.95
QUANTITIES = {"accuracy": "accuracy", "macro_f1": "macro F1"}
LOW, HIGH = "_low", "_high"
"""Behind the name of a metric: the bounds of its interval."""


class Interval(NamedTuple):
    """A value (0..1, or a difference of such) with its 95 % interval; NaN bounds where there are too few tapes."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.low):
            return f"{self.value:.1%}"
        return f"{self.value:.1%} ({100 * self.low:.1f}–{100 * self.high:.1f})"


def score_intervals(predictions: pd.DataFrame, draws: int = DRAWS, seed: int = 0) -> dict[str, Interval]:
    """Accuracy and macro F1 with their intervals, by name.

    `predictions` has a row per cut with tape, species and predicted, or tape, targets and answers, as `preds/test.csv`
    has. Macro F1 runs over the species with a cut among those drawn, as in `metrics.score`.
    """
    values, drawn = _scores(predictions, draws, seed)
    return {name: percentiles(values[name], drawn[name]) for name in QUANTITIES}


def paired_difference(
    first: pd.DataFrame, second: pd.DataFrame, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Scores of `second` minus those of `first` on the same cuts, drawing the same tapes for both.

    Raises:
        UserError: the two tables are not about the same cuts.
    """
    if sorted(first["path"]) != sorted(second["path"]):
        raise UserError("these runs were not tested on the same cuts, so their difference has no meaning")
    answers = ["targets", "answers"] if "targets" in first else ["species", "predicted"]
    second = first[["path", "tape"]].merge(second[["path", *answers]], on="path")
    (values, drawn), (other_values, other_drawn) = _scores(first, draws, seed), _scores(second, draws, seed)
    return {
        name: percentiles(other_values[name] - values[name], other_drawn[name] - drawn[name]) for name in QUANTITIES
    }


def verdict(difference: Interval, first: str, second: str, quantity: str = "macro F1") -> str:
    """The plain sentence: which of two models is better, by how much, and whether that is more than noise."""
    value, low, high = difference
    if value < 0:
        first, second, value, low, high = second, first, -value, -high, -low
    lead = f"{second} is {100 * value:.1f} points of {quantity} above {first}"
    if np.isnan(low):
        return f"{lead}; there are too few tapes to say whether that is more than noise."
    span = f"95 % interval over tapes {signed(low)} to {signed(high)}"
    if value == 0:
        return f"{first} and {second} have the same {quantity} ({span})."
    return f"{lead} ({span}): {'more than' if low > 0 else 'no more than'} noise."


def interval_sentence(metrics: Mapping[str, float], tapes: int) -> str:
    """The test scores of a run's `metrics` with their intervals over so many tapes, or why they have none."""
    if TEST_MACRO_F1 + LOW not in metrics:
        why = "all test cuts are of one tape" if tapes == 1 else "this run was made before they were computed"
        return f"The test scores have no interval over tapes: {why}."
    scores = [
        f"{title} {Interval(*(metrics[TEST + name + end] for end in ('', LOW, HIGH)))}"
        for name, title in QUANTITIES.items()
    ]
    return f"Test, with 95 % intervals over {plural(tapes, 'tape')}: {', '.join(scores)}."


def signed(share: float) -> str:
    """A share in points, its sign in print."""
    return f"{100 * share:.1f}".replace("-", "−")


def percentiles(value: float, drawn: np.ndarray) -> Interval:
    """A value with the 95 % interval of what was drawn (draws,), NaN left out; NaN bounds where nothing was."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn) or np.isnan(value):
        return Interval(value, np.nan, np.nan)
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(drawn, [tail, 100 - tail])
    return Interval(value, float(low), float(high))


def draws_of(groups: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """How often each group comes in each draw, float64 (draws, groups); no draw of fewer than two."""
    if groups < 2:
        return np.zeros((0, groups))
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(float)


def tape_draws(tapes: pd.Series, draws: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The number of each row's tape (rows,), and how often each tape comes in each draw, as `draws_of`."""
    numbers, names = pd.factorize(tapes, sort=True)
    return numbers, draws_of(len(names), draws, seed)


def _scores(predictions: pd.DataFrame, draws: int, seed: int) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """Each score as it is, and for every draw of tapes (none where there are fewer than two)."""
    predictions = predictions.sort_values("path") if "path" in predictions else predictions
    tapes, times = tape_draws(predictions["tape"], draws, seed)
    true, answered, right = _of_labels(predictions) if "targets" in predictions else _of_species(predictions)
    counts = np.zeros((3, tapes.max() + 1, true.shape[1]))  # right, true and answered by tape and species
    for count, marks in zip(counts, (true & answered, true, answered), strict=True):
        np.add.at(count, tapes, marks)
    cuts = np.zeros((2, tapes.max() + 1, 1))  # answered right, and all
    np.add.at(cuts[0], tapes, right[:, None])
    np.add.at(cuts[1], tapes, 1)
    every = np.ones((1, tapes.max() + 1))
    values = {name: float(score[0]) for name, score in _from_counts(every @ counts, every @ cuts).items()}
    return values, _from_counts(times @ counts, times @ cuts)


def _of_species(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of tables with `species` and `predicted`: both as marks (cuts, species), and which cuts are right (cuts,)."""
    species = pd.Index(sorted({*predictions["species"], *predictions["predicted"]}))
    true, predicted = (species.get_indexer(predictions[name]) for name in ("species", "predicted"))
    marks = np.eye(len(species), dtype=bool)
    if len(species) > 1:
        marks = marks[:, species != BACKGROUND]  # no species, see `metrics`
    return marks[true], marks[predicted], true == predicted


def _of_labels(predictions: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of tables with `targets` and `answers`, where any number of species is in a cut.

    What is not known of a cut is not there; right is the share of what is known.
    """
    classes = len(predictions["targets"].iloc[0])
    targets, answers = (decode(predictions[name], classes) for name in ("targets", "answers"))
    known = ~np.isnan(targets)
    right = ((answers == targets) & known).sum(axis=1) / known.sum(axis=1).clip(min=1)
    return targets == 1, (answers == 1) & known, right


def _from_counts(counts: np.ndarray, cuts: np.ndarray) -> dict[str, np.ndarray]:
    """Scores (draws,) from right, true and answered marks (3, draws, species), and cuts right and all (2, draws, 1)."""
    right, true, answered = counts
    present = true > 0
    f1 = np.divide(2 * right, true + answered, out=np.zeros_like(right), where=present)
    return {
        "accuracy": (cuts[0] / cuts[1])[:, 0],
        "macro_f1": f1.sum(axis=1) / present.sum(axis=1).clip(min=1),
    }
