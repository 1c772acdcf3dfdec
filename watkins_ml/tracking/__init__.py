"""The run directory first, MLflow after: nothing here can stop or slow a training."""
