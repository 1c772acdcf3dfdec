"""Temperature scaling: one number, fitted on validation, that makes a network's confidence mean something."""

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.special import logsumexp

from watkins_ml.core.errors import UserError

BOUNDS = (0.05, 20.0)
"""No temperature outside of these, whatever the logits."""
PRIOR_OF_TAPES = 10.0
"""Inverse variance of the prior on ln T beside a sum over tapes. On the validation sides of watkins21's folds, fitted
to all tapes but one, it makes that one likelier than a prior of 1 does; far stronger ones spare what is too sure."""


def fit_temperature(labels: np.ndarray, logits: np.ndarray, tapes: np.ndarray | pd.Series | None = None) -> float:
    """The temperature T for which softmax(logits / T) fits `labels` best.

    Minimises the negative log-likelihood over the cuts (Guo et al. 2017, "On Calibration of Modern Neural Networks",
    section 4.2). Cuts that are all right would drive T to 0 and hopeless ones to infinity; so (ln T)² / 2 is added, a
    normal prior on ln T that weighs less than one cut: many cuts outvote it, and where they say nothing T stays at 1.

    Cuts of one tape are right or wrong together, and a dozen tapes say little about the next one. So where the tapes
    are given, each counts as one, by the mean over its cuts, and the prior weighs PRIOR_OF_TAPES times as much.

    Args:
        labels: class indices (N,).
        logits: (N, C), finite.
        tapes: the tape of each cut (N,).

    Raises:
        UserError: there are no cuts, or logits are not finite.
    """
    if not len(labels):
        raise UserError("There are no validation cuts to fit a temperature to.")
    logits = np.asarray(logits, dtype=float)
    if not np.isfinite(logits).all():
        raise UserError("The model's logits are not finite: its training diverged.")
    below = logits - logits.max(axis=1, keepdims=True)  # so that no exponential overflows
    weights, prior = np.ones(len(labels)), 1.0
    if tapes is not None:
        _, tape, cuts = np.unique(np.asarray(tapes, dtype=str), return_inverse=True, return_counts=True)
        weights, prior = 1 / cuts[tape], PRIOR_OF_TAPES
    of_truth, scaled = (weights * below[np.arange(len(labels)), labels]).sum(), np.empty_like(below)

    def objective_and_slope(log_temperature: float) -> tuple[float, float]:
        """The loss over all cuts with the prior, and its derivative, in one array: each epoch asks some fifty times."""
        factor = np.exp(-log_temperature)
        total = np.exp(np.multiply(below, factor, out=scaled), out=scaled).sum(axis=1)
        mean = np.multiply(scaled, below, out=scaled).sum(axis=1) / total
        loss = (weights * np.log(total)).sum() - of_truth * factor + prior * log_temperature**2 / 2
        return float(loss), float(prior * log_temperature - ((weights * mean).sum() - of_truth) * factor)

    lowest, highest = np.log(BOUNDS).tolist()
    grid = np.linspace(lowest, highest, 41)  # with the prior there may be more than one valley
    best = int(np.argmin([objective_and_slope(point)[0] for point in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]

    def slope(log_temperature: float) -> float:
        return objective_and_slope(log_temperature)[1]

    if not slope(low) < 0 < slope(high):  # the best is one of the bounds
        return float(np.exp(grid[best]))
    return float(np.exp(brentq(slope, low, high, xtol=1e-14)))  # where a search for the least loss ends at 1e-8


def calibrated_loss(labels: np.ndarray, logits: np.ndarray) -> float:
    """Cross-entropy after temperature scaling, fitted on the same cuts: its plain mean over them, in nats.

    It falls with what a network can tell apart, and unlike the cross-entropy itself does not rise with mere
    overconfidence. Arguments and errors as of `fit_temperature`.
    """
    scaled = np.asarray(logits, dtype=float) / fit_temperature(labels, logits)
    return float((logsumexp(scaled, axis=1) - scaled[np.arange(len(labels)), labels]).mean())
