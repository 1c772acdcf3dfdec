"""The logged model's code: MLflow stores this file and runs it on loading, so that no pickle is involved.

Input: a table with a recording a row, in the columns that `audio_table` describes.
Output: a table with `species`, `probability`, `probabilities` (species to probability) and `novelty` a row; where
novelty is above 1 the species is "unknown".
"""

from pathlib import Path

import mlflow
import pandas as pd


class SpeciesModel(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined]
    def load_context(self, context):  # type: ignore[no-untyped-def]
        from watkins_ml.serving.request_limits import (
            limit_requests,  # not above: MLflow runs this file also to store it
        )
        from watkins_ml.serving.table_model import TableModel

        self.model = TableModel(Path(context.artifacts["bundle"]))
        limit_requests(SpeciesModel)

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:  # type: ignore[no-untyped-def]
        return self.model.predict(model_input)


mlflow.models.set_model(SpeciesModel())
