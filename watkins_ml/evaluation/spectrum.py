"""The features of the control with audio: each mel band's mean and standard deviation over time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

from watkins_ml.core.console import progress
from watkins_ml.dataset.loading import Side

BATCH = 64
"""Spectrograms in memory at a time."""


def band_statistics(sides: Iterable[Side]) -> pd.DataFrame:
    """Mean and standard deviation over the frames of each band of every cut's spectrogram (its central seconds).

    Spectrograms of sides on the disk are read batch by batch, and only the features are kept.

    Returns:
        float64, a row a cut with its path as index, 2 * n_mels columns: the means, then the deviations.

    Raises:
        UserError: a spectrogram is missing or damaged; names it.
    """
    tables = []
    with progress(transient=True) as bar:
        for side in sides:
            task = bar.add_task("Spectra for the control", total=len(side), note="")
            rows = []
            for spectrograms, _ in side.batches(BATCH):
                bands = spectrograms.numpy()[:, 0]
                rows.append(np.hstack([bands.mean(axis=-1, dtype=float), bands.std(axis=-1, dtype=float)]))
                bar.advance(task, len(bands))
            tables.append(pd.DataFrame(np.vstack(rows), index=pd.Index(side.frame["path"], name="path")))
    return pd.concat(tables)
