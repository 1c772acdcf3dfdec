"""A registered model: a table of recordings in, species with probabilities out."""

from __future__ import annotations

import logging
import sys
from contextlib import nullcontext
from pathlib import Path
from types import FrameType

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from watkins_ml.core.memory import give_back_memory
from watkins_ml.dataset.targets import LABELS, joined_names
from watkins_ml.models.bundle import MAX_NOVELTY, UNKNOWN, Predictions, load_bundle
from watkins_ml.serving.audio_table import ServingError, table_windows
from watkins_ml.serving.request_limits import REQUEST

AT_ONCE = 32
"""Rows after which memory is given back: the larger a table, the more of it would lie in pieces too small to use."""
EVALUATOR = "mlflow.models.evaluation.evaluators.classifier"


class TableModel:
    """A trained model that predicts the species of tables of recordings, as `audio_table` describes them."""

    def __init__(self, bundle: Path):
        self.classifier = load_bundle(bundle)

    def predict(self, table: pd.DataFrame) -> pd.DataFrame | pd.Series:
        """A row for each of `table`: species, probability, probabilities (by species) and novelty.

        Where novelty is above 1, species is "unknown". A model of the task `labels` names all species from their
        thresholds on ("A + B"), or "background". MLflow's evaluator of classifiers, which takes labels alone,
        gets the column species.

        Raises:
            ServingError: a table that cannot be used, or a fault of the model; fit for whoever sent the table.
        """
        try:
            probabilities, novelty = self._predict(table)
        except MlflowException:
            raise
        except Exception as error:  # MLflow would send the client a traceback with the paths of this machine
            logging.getLogger(__name__).exception("a fault of the model")
            raise ServingError("the model failed, not the recordings; see the log of its process") from error
        classes = self.classifier.classes
        if self.classifier.task == LABELS:
            named = joined_names(probabilities >= self.classifier.label_thresholds, classes)
        else:
            named = [classes[label] for label in probabilities.argmax(axis=1)]
        known = novelty <= MAX_NOVELTY
        rows = pd.DataFrame(
            {
                "species": [name if sure else UNKNOWN for name, sure in zip(named, known, strict=True)],
                "probability": probabilities.max(axis=1).astype(float),
                "probabilities": [dict(zip(classes, map(float, row), strict=True)) for row in probabilities],
                "novelty": novelty,
            }
        )
        return rows["species"] if _is_evaluated() else rows

    def _predict(self, table: pd.DataFrame) -> Predictions:
        request, parts = REQUEST.get(), []
        for first in range(0, max(len(table), 1), AT_ONCE):
            windows = table_windows(self.classifier.frontend, table[first : first + AT_ONCE], request, first)
            with nullcontext() if request is None else request.only_one():
                parts.append(self.classifier.predict(windows, max_novelty=MAX_NOVELTY))
            give_back_memory()
        return Predictions(*map(np.concatenate, zip(*parts, strict=True)))


def _is_evaluated() -> bool:
    """Whether `mlflow.models.evaluate` calls as for a classifier: it gives a model no way to learn what to return."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != EVALUATOR:
        frame = frame.f_back
    return frame is not None
