"""Whole runs: training, cross-validation, what is kept of a network, and how a run ends."""
