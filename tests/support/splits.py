"""Splits with made-up predictions."""

import numpy as np
import pandas as pd

CLASSES = ["Fin_FinbackWhale", "Fraser'sDolphin", "Short_Finned(Pacific)PilotWhale", "Walrus"]


class Spectrograms:
    """Random log-mel arrays that remember which were read."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> np.ndarray:
        self.read.append(row)
        return np.random.default_rng(row).normal(size=(1, 128, 400)).astype("float32")


def make_split(cuts: int, skill: float, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """`cuts` cuts of the first three of CLASSES (the last is absent) and a model's probabilities (N, 4)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, cuts)
    logits = rng.normal(size=(cuts, 4)) + skill * np.eye(4)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ids = [f"{54000 + cut // 4}{cut % 4:03d}" for cut in range(cuts)]
    frame = pd.DataFrame(
        {
            "path": [f"audio/{cut}.wav" for cut in ids],
            "cut_id": ids,
            "species": np.asarray(CLASSES, dtype=object)[labels],
            "tape": [cut[:5] for cut in ids],
            "label": labels,
        }
    )
    return frame, probabilities.astype("float32")
