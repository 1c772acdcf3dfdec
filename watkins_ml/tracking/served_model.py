"""The logged model's code: MLflow stores this file and runs it on loading, so that no pickle is involved.

Input: a table with a recording a row, in the columns that `audio_table` describes.
Output: a table with `species`, `probability`, `probabilities` (species to probability) and `novelty` a row; where
novelty is above 1 the species is "unknown".
"""

import logging
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.exceptions import MlflowException

from watkins_ml.models.bundle import MAX_NOVELTY, UNKNOWN, load_bundle
from watkins_ml.tracking.audio_table import table_windows


class SpeciesModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.classifier = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        try:
            probabilities, novelty = self.classifier.answers(
                table_windows(self.classifier.frontend, model_input), max_novelty=MAX_NOVELTY
            )
        except MlflowException:
            raise
        except Exception as error:  # MLflow would send the client a traceback with the paths of this machine
            logging.getLogger(__name__).exception("a fault of the model")
            raise MlflowException("the model failed, not the recordings; see the log of its process") from error
        best = probabilities.argmax(axis=1)
        classes = self.classifier.classes
        known = novelty <= MAX_NOVELTY
        return pd.DataFrame(
            {
                "species": [classes[label] if told else UNKNOWN for label, told in zip(best, known, strict=True)],
                "probability": probabilities.max(axis=1).astype(float),
                "probabilities": [dict(zip(classes, map(float, row), strict=True)) for row in probabilities],
                "novelty": novelty,
            }
        )


mlflow.models.set_model(SpeciesModel())
