"""Several channels as one: their mean, or their difference where a cable or a setting has turned one of them round."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MOST_TURNED = 64
"""Channels that are compared with each other; of more, the loudest is heard where they cancel."""
ALIKE = 0.5
"""Correlation from which two channels count as the same sound, turned round or not."""
PIECE = 1 << 18
"""Samples that are converted to double precision at once."""
TURNED = "its channels are inverted and would cancel; they were turned round before they were mixed"


def mixed(channels: np.ndarray) -> tuple[np.ndarray, bool]:
    """(samples, channels) to mono (samples,), and whether channels had to be turned round (or left out) for that.

    It is the mean. Where that has less than half of the power that unrelated channels would leave of themselves, as
    with the two wires of a balanced cable, channels with the opposite of another one's sound are turned round first.
    Each stretch is decided by itself: in an inverted recording all are, and nothing has to be known of
    the rest of it. Offsets play no part.
    """
    if channels.shape[1] == 1:  # the same, five times faster
        return channels[:, 0].copy(), False
    with np.errstate(invalid="ignore", over="ignore"):  # of infinite samples, which are reported elsewhere
        mean = channels.mean(axis=1, dtype=np.float32)
        power = _powers(channels)
        if not _powers(mean[:, None])[0] < power.mean() / (2 * len(power)):
            return mean, False
        if len(power) <= MOST_TURNED:
            signs = _signs(channels)
            turned = (channels @ signs / len(signs)).astype(np.float32)
            if _powers(turned[:, None])[0] >= power.mean() / (2 * len(power)):
                return turned, True
    return np.ascontiguousarray(channels[:, power.argmax()]), True


def _powers(channels: np.ndarray) -> np.ndarray:
    """Variance of each channel."""
    sums, squares = (np.zeros(channels.shape[1]) for _ in range(2))
    middle = channels[len(channels) // 2].astype(np.float64)  # so that an offset costs no digits
    for piece in _pieces(channels):
        level = piece - middle
        sums += level.sum(axis=0)
        squares += (level * level).sum(axis=0)
    return np.maximum(squares / len(channels) - (sums / len(channels)) ** 2, 0)


def _signs(channels: np.ndarray) -> np.ndarray:
    """1 or -1 a channel, each as the one before that is most like it."""
    count = channels.shape[1]
    sums, products = np.zeros(count), np.zeros((count, count))
    middle = channels[len(channels) // 2].astype(np.float64)
    for piece in _pieces(channels):
        level = piece - middle
        sums += level.sum(axis=0)
        products += level.T @ level
    covariance = products - np.outer(sums, sums) / len(channels)
    size = np.sqrt(np.maximum(covariance.diagonal(), 0))
    alike = covariance / np.maximum(np.outer(size, size), 1e-300)
    signs = np.ones(count, np.float32)
    for number in range(1, count):
        nearest = np.abs(alike[number, :number]).argmax()
        if abs(alike[number, nearest]) > ALIKE:
            signs[number] = signs[nearest] * np.sign(alike[number, nearest])
    return signs


def _pieces(channels: np.ndarray) -> Iterator[np.ndarray]:
    step = max(1, PIECE // channels.shape[1])
    return (channels[start : start + step].astype(np.float64) for start in range(0, len(channels), step))
