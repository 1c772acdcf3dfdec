import pandas as pd
import pytest

from watkins_ml.evaluation.controls import controls


def cuts(*rows: tuple[str, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["species", "tape", "sample_rate", "duration_s"])


TRAIN = cuts(
    *[("orca", "54018", 40_000, 1.0)] * 6,
    *[("walrus", "72001", 10_000, 3.0)] * 4,
    *[("beluga", "49001", 40_000, 9.0)] * 3,
)


def test_a_leaky_split_is_solved_by_the_tape_alone():
    test = cuts(("orca", "54018", 1, 1.0), ("walrus", "72001", 1, 1.0), ("beluga", "49001", 1, 1.0))
    found = controls(TRAIN, test)
    assert found["control_tape_accuracy"] == 1
    assert found["control_tape_macro_f1"] == 1
    assert found["control_majority_accuracy"] == pytest.approx(1 / 3)


def test_in_a_grouped_split_the_tape_falls_back_to_the_majority():
    test = cuts(("orca", "90001", 1, 1.0), ("walrus", "90002", 1, 1.0), ("walrus", "90003", 1, 1.0))
    found = controls(TRAIN, test)
    assert found["control_tape_accuracy"] == found["control_majority_accuracy"] == pytest.approx(1 / 3)
    assert found["control_majority_macro_f1"] == pytest.approx(0.5 / 2)  # orca 0.5, walrus 0, beluga absent


def test_sample_rate_alone_and_with_duration():
    test = cuts(("orca", "x", 40_000, 1.1), ("walrus", "y", 10_000, 3.1), ("beluga", "z", 40_000, 8.9))
    train = pd.concat([TRAIN] * 5)
    found = controls(train, test)
    assert found["control_sample_rate_accuracy"] == pytest.approx(2 / 3)
    assert found["control_rate_duration_accuracy"] == 1


@pytest.mark.parametrize("train", [TRAIN.head(1), TRAIN.head(6), TRAIN.iloc[[0, 6]]])
def test_tiny_sets_and_one_species(train):
    found = controls(train, TRAIN)
    assert len(found) == 8
    assert all(0 <= value <= 1 for value in found.values())


def test_is_repeatable_and_indifferent_to_the_index():
    shuffled = TRAIN.sample(frac=1, random_state=1)
    assert controls(TRAIN, shuffled) == controls(TRAIN, shuffled.reset_index(drop=True))
