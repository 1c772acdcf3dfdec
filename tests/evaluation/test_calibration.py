import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from watkins_ml.core.errors import UserError
from watkins_ml.evaluation.calibration import BOUNDS, calibrated_loss, fit_temperature


def drawn(cuts: int, species: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits / temperature): what a network of that temperature sees."""
    rng = np.random.default_rng(seed)
    logits = 3 * rng.normal(size=(cuts, species))
    scaled = logits / temperature
    labels = (scaled + rng.gumbel(size=scaled.shape)).argmax(axis=1)
    return labels, logits


def loss(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    return -log_softmax(logits.astype(float) / temperature, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_finds_the_temperature_that_labels_were_drawn_with(temperature):
    labels, logits = drawn(5000, 8, temperature)
    assert fit_temperature(labels, logits) == pytest.approx(temperature, rel=0.06)


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(2, 12), st.floats(0.2, 5), st.integers(0, 10**6))
def test_no_other_temperature_fits_better_by_more_than_the_prior_weighs(cuts, species, temperature, seed):
    labels, logits = drawn(cuts, species, temperature, seed)
    found = fit_temperature(labels, logits)
    assert BOUNDS[0] <= found <= BOUNDS[1]
    others = np.geomspace(*BOUNDS, 200)
    prior = (np.log(others) ** 2 - np.log(found) ** 2) / 2 / cuts
    assert (
        loss(labels, logits, found)
        <= min(loss(labels, logits, t) + p for t, p in zip(others, prior, strict=True)) + 1e-9
    )


def test_cuts_that_are_all_right_or_all_wrong_give_a_moderate_temperature():
    logits = 8 * np.eye(5)[np.arange(150) % 5]
    right, wrong = np.arange(150) % 5, (np.arange(150) + 1) % 5
    assert 0.5 < fit_temperature(right, logits) < 1
    assert 1 < fit_temperature(wrong, logits) <= BOUNDS[1]
    assert 0.5 < fit_temperature(np.zeros(4, dtype=int), 9 * np.eye(3)[[0, 0, 0, 0]]) < 1  # one species


def test_a_tape_counts_once_however_many_cuts_it_has():
    labels, logits = drawn(600, 6, 3.0)  # half of the tapes are of a network that is too sure, and half of a modest one
    labels[300:], logits[300:] = drawn(300, 6, 0.4, seed=1)
    tapes = np.arange(600)
    found = fit_temperature(labels, logits, tapes)
    often = np.concatenate([np.arange(300), np.repeat(np.arange(300, 600), 20)])
    assert fit_temperature(labels[often], logits[often], tapes[often]) == pytest.approx(found, rel=1e-6)
    assert fit_temperature(labels[often], logits[often]) < 0.7 * found


def test_a_few_tapes_say_less_than_their_many_cuts_and_many_tapes_as_much():
    labels, logits = drawn(400, 6, 3.0)
    few, many = (fit_temperature(labels, logits, np.arange(400) % tapes) for tapes in (4, 400))
    assert 1 < few < 2 < many == pytest.approx(fit_temperature(labels, logits), rel=0.1)


def test_logits_that_say_nothing_leave_it_at_one():
    assert fit_temperature(np.array([0, 1, 2]), np.zeros((3, 4))) == pytest.approx(1, abs=1e-3)


def test_huge_and_float32_logits_are_no_trouble():
    labels, logits = drawn(200, 6, 1.0)
    assert fit_temperature(labels, logits * 1e6) == pytest.approx(BOUNDS[1], rel=1e-6)
    assert fit_temperature(labels, logits.astype("float32")) == pytest.approx(fit_temperature(labels, logits), rel=1e-5)


def test_equal_input_gives_an_equal_answer():
    labels, logits = drawn(100, 6, 2.0)
    assert fit_temperature(labels, logits) == fit_temperature(labels.copy(), logits.copy())


def test_nothing_to_fit_is_said():
    with pytest.raises(UserError, match="no validation cuts"):
        fit_temperature(np.array([], dtype=int), np.empty((0, 3)))
    with pytest.raises(UserError, match="diverged"):
        fit_temperature(np.array([0]), np.array([[np.nan, 0]]))


@settings(max_examples=40)
@given(st.integers(1, 60), st.integers(2, 12), st.floats(0.2, 5), st.integers(0, 10**6))
def test_rounding_changes_no_more_than_the_last_digits(cuts, species, temperature, seed):
    """Processes that share a training round otherwise, and have to agree on ties."""
    labels, logits = drawn(cuts, species, temperature, seed)
    nearly = logits * (1 + 1e-15 * np.random.default_rng(seed).normal(size=logits.shape))
    assert fit_temperature(labels, nearly) == pytest.approx(fit_temperature(labels, logits), rel=1e-10)
    assert calibrated_loss(labels, nearly) == pytest.approx(calibrated_loss(labels, logits), rel=1e-10)


def test_the_calibrated_loss_does_not_punish_mere_overconfidence():
    labels, logits = drawn(400, 6, 1.0)
    calibrated = calibrated_loss(labels, logits)
    assert calibrated == pytest.approx(loss(labels, logits, fit_temperature(labels, logits)))
    assert loss(labels, 8 * logits, 1.0) > 2 * loss(labels, logits, 1.0)
    assert calibrated_loss(labels, 8 * logits) == pytest.approx(calibrated, rel=1e-3)
    _, others = drawn(400, 6, 1.0, seed=1)
    assert calibrated_loss(labels, others) > calibrated + 0.5  # what knows nothing
