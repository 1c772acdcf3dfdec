"""Whole runs: training, cross-validation, the saved model, and how a run ends."""
