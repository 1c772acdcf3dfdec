"""Experiment-tracked spectrogram CNNs for marine mammal recordings."""

__version__ = "0.1.0"
