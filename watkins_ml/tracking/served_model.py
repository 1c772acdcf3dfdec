"""The logged model's code: MLflow stores this file and runs it on loading, so that no pickle is involved.

Input: a table with one column `audio`, each value the bytes of an audio file (base64 over HTTP).
Output: a table with `species`, `probability`, and `probabilities` (species to probability) a row.
"""

import io
from pathlib import Path

import mlflow
import pandas as pd

from watkins_ml.models.bundle import load_bundle


class SpeciesModel(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        self.classifier = load_bundle(Path(context.artifacts["bundle"]))

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        probabilities = self.classifier.classify(io.BytesIO(audio) for audio in model_input["audio"])
        best = probabilities.argmax(axis=1)
        classes = self.classifier.classes
        return pd.DataFrame(
            {
                "species": [classes[label] for label in best],
                "probability": probabilities.max(axis=1).astype(float),
                "probabilities": [dict(zip(classes, map(float, row), strict=True)) for row in probabilities],
            }
        )


mlflow.models.set_model(SpeciesModel())
