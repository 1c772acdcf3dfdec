import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.intervals import Interval, interval_sentence, paired_difference, score_intervals, verdict
from watkins_ml.evaluation.metrics import score

SPECIES = ["Beluga", "Narwhal", "Orca"]


def table(rows: list[tuple[int, int, int]]) -> pd.DataFrame:
    """Cuts from (tape, true species, predicted species)."""
    return pd.DataFrame(
        {
            "path": [f"{number:04d}.wav" for number in range(len(rows))],
            "tape": [f"tape{tape}" for tape, _, _ in rows],
            "species": [SPECIES[true] for _, true, _ in rows],
            "predicted": [SPECIES[said] for _, _, said in rows],
        }
    )


def same(first: dict[str, Interval], second: dict[str, Interval]) -> bool:
    return all(first[name] == pytest.approx(second[name], nan_ok=True) for name in first)


cuts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(cuts)
def test_values_are_the_scores_and_one_tape_has_no_interval(rows):
    predictions = table(rows)
    found = score_intervals(predictions, draws=50)
    probabilities = np.eye(3)[[said for _, _, said in rows]]
    expected = score(np.array([true for _, true, _ in rows]), probabilities, SPECIES)
    for name, interval in found.items():
        assert interval.value == pytest.approx(expected[name])
        if predictions["tape"].nunique() > 1:
            assert 0 <= interval.low <= interval.high <= 1
        else:
            assert np.isnan([interval.low, interval.high]).all(), "one tape says nothing about others"


@settings(max_examples=40, deadline=None)
@given(cuts, st.randoms())
def test_the_order_of_the_cuts_does_not_matter(rows, chance):
    predictions = table(rows)
    shuffled = predictions.sample(frac=1, random_state=chance.randint(0, 1000))
    assert same(score_intervals(predictions, draws=30), score_intervals(shuffled, draws=30))
    zero = paired_difference(predictions, shuffled, draws=30)
    assert all(np.nan_to_num(interval, nan=0.0) == pytest.approx((0, 0, 0)) for interval in zero.values())


def test_a_thousand_cuts_from_few_tapes_are_as_unsure_as_the_tapes():
    """Copying every cut a hundred times adds cuts and no knowledge."""
    rows = [(tape, tape % 3, tape % 3 if tape % 4 else (tape + 1) % 3) for tape in range(12)]
    once, copied = score_intervals(table(rows)), score_intervals(table(rows * 100))
    assert same(once, copied)
    assert once["accuracy"].high - once["accuracy"].low > 0.3
    alone = table(rows * 100).assign(tape=[f"tape{number}" for number in range(1200)])
    apart = score_intervals(alone)["accuracy"]
    assert apart.high - apart.low < 0.06


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    chance = np.random.default_rng(0)
    held = 0
    for seed in range(150):
        of_tape = chance.beta(6, 2, size=30)  # how easy each of thirty tapes is; 0.75 in the mean
        rows = [(tape, 0, int(chance.random() > ease)) for tape, ease in enumerate(of_tape) for _ in range(20)]
        found = score_intervals(table(rows), draws=400, seed=seed)["accuracy"]
        held += found.low <= 0.75 <= found.high
    assert 0.87 <= held / 150 <= 0.99


def test_pairing_sees_a_difference_that_single_intervals_hide():
    chance = np.random.default_rng(1)
    easy = [tape % 2 for tape in range(40)]
    first = [(tape, 0, 0 if easy[tape] or chance.random() < 0.2 else 1) for tape in range(40) for _ in range(5)]
    second = [(tape, true, 0 if chance.random() < 0.25 else said) for tape, true, said in first]
    single, other = score_intervals(table(first))["accuracy"], score_intervals(table(second))["accuracy"]
    difference = paired_difference(table(first), table(second))["accuracy"]
    assert other.low < single.high, "the single intervals overlap"
    assert difference.low > 0 and difference.value == pytest.approx(other.value - single.value)


def test_other_cuts_are_refused():
    rows = [(0, 0, 0), (1, 1, 1)]
    with pytest.raises(UserError, match="not tested on the same cuts"):
        paired_difference(table(rows), table(rows[:1]))
    with pytest.raises(UserError, match="not tested on the same cuts"):
        paired_difference(table(rows[:1]), table(rows))
    with pytest.raises(UserError, match="not tested on the same cuts"):
        paired_difference(table(rows), table(rows).assign(path=["0000.wav", "other.wav"]))


@pytest.mark.parametrize(
    ("difference", "said"),
    [
        (
            Interval(0.031, 0.004, 0.06),
            "E is 3.1 points of macro F1 above B (95 % interval over tapes 0.4 to 6.0): more",
        ),
        (
            Interval(-0.02, -0.03, -0.01),
            "B is 2.0 points of macro F1 above E (95 % interval over tapes 1.0 to 3.0): mo",
        ),
        (Interval(0.01, -0.02, 0.04), "above B (95 % interval over tapes −2.0 to 4.0): no more than noise."),
        (
            Interval(-0.01, -0.04, 0.02),
            "B is 1.0 points of macro F1 above E (95 % interval over tapes −2.0 to 4.0): no",
        ),
        (Interval(0.0, -0.02, 0.02), "B and E have the same macro F1"),
        (Interval(0.01, np.nan, np.nan), "too few tapes to say"),
    ],
)
def test_the_verdict_in_words(difference, said):
    assert said in verdict(difference, "B", "E")


def test_a_run_tells_its_intervals_or_why_it_has_none():
    scores = {"test_accuracy": 0.5, "test_macro_f1": 0.4}
    bounds = {f"test_{name}_{end}": value for name in ("accuracy", "macro_f1")
              for end, value in (("low", 0.3), ("high", 0.625))}  # fmt: skip
    told = "Test, with 95 % intervals over 7 tapes: accuracy 50.0% (30.0–62.5), macro F1 40.0% (30.0–62.5)."
    assert interval_sentence(scores | bounds, 7) == told
    assert interval_sentence(scores, 1).endswith("no interval over tapes: all test cuts are of one tape.")
    assert "made before" in interval_sentence(scores, 7)
