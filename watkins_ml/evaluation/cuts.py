"""Single cuts of a report to look at and to listen to: a picture and a short sound of each, small enough for a page."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import torch
from PIL import Image

from watkins_ml.audio.decode import AudioError
from watkins_ml.audio.excerpt import mp3_excerpt
from watkins_ml.audio.frontend import Frontend
from watkins_ml.core.files import write_bytes, write_csv
from watkins_ml.dataset.layout import PreparedData
from watkins_ml.dataset.rows import Rows

PAIRS = 8
"""So many of the most confused pairs get examples."""
MISTAKE, TRUE, PREDICTED = "pair_mistake", "pair_true", "pair_predicted"


def save_cuts(
    run_dir: Path,
    split: str,
    predictions: pd.DataFrame,
    galleries: dict[str, np.ndarray],
    pairs: pd.DataFrame,
    spectrograms: Sequence[Any] | torch.Tensor,
    data: PreparedData,
) -> None:
    """Write `galleries/<split>_cuts.csv`, and picture and sound of each cut in it to `galleries/<split>_cuts/`.

    The table has a row for each cut of `galleries` (positions in `predictions`, by name) and for each example of the
    most confused `pairs` (as `metrics.confusion_pairs` gives them): shown_in, rank, what `predictions` says of the
    cut, picture, sound, and in `silent` why a cut has no sound.
    """
    shown = [(name, rank, int(row)) for name, rows in galleries.items() for rank, row in enumerate(rows)]
    shown += pair_examples(predictions, pairs.head(PAIRS))
    frontend, rows_of, files = Frontend(data.frontend), Rows(data), {}
    for row in sorted({row for _, _, row in shown}):
        name = f"galleries/{split}_cuts/{row:05d}"
        write_bytes(run_dir / f"{name}.jpg", spectrogram_picture(np.asarray(spectrograms[row])))
        try:
            write_bytes(run_dir / f"{name}.mp3", mp3_excerpt(rows_of.read(predictions.path[row], frontend), frontend))
            files[row] = (f"{name}.jpg", f"{name}.mp3", "")
        except AudioError as error:
            files[row] = (f"{name}.jpg", "", str(error))
    rows = [row for _, _, row in shown]
    table = predictions.iloc[rows].reset_index(drop=True)
    table.insert(0, "shown_in", [name for name, _, _ in shown])
    table.insert(1, "rank", [rank for _, rank, _ in shown])
    table[["picture", "sound", "silent"]] = [files[row] for row in rows]
    write_csv(run_dir / "galleries" / f"{split}_cuts.csv", table, "%.6g")


def pair_examples(predictions: pd.DataFrame, pairs: pd.DataFrame) -> list[tuple[str, int, int]]:
    """For each pair the mistake that the model was surest of, and the surest right answer for either species.

    Returns:
        (MISTAKE, TRUE or PREDICTED; the pair's number; position in `predictions`). A species that is nowhere
        recognised has no example.
    """
    surest = predictions.sort_values("confidence", ascending=False, kind="stable").reset_index()
    first = surest.drop_duplicates(["species", "predicted"]).set_index(["species", "predicted"])["index"].to_dict()
    examples = []
    for number, pair in enumerate(pairs.itertuples()):
        true, predicted = pair.true, pair.predicted
        wanted = {MISTAKE: (true, predicted), TRUE: (true, true), PREDICTED: (predicted, predicted)}
        examples += [(role, number, first[cell]) for role, cell in wanted.items() if cell in first]
    return examples


def spectrogram_picture(spectrogram: np.ndarray) -> bytes:
    """A log-mel array, (mels, frames) or (1, mels, frames), as JPEG with low frequencies at the bottom."""
    mel = spectrogram.squeeze()[::-1]
    low, high = np.percentile(mel, [1, 99.7])
    shade = np.clip((mel - low) / max(high - low, 1e-9), 0, 1)
    file = io.BytesIO()
    Image.fromarray(matplotlib.colormaps["magma"](shade, bytes=True)[..., :3]).save(file, "JPEG", quality=70)
    return file.getvalue()
