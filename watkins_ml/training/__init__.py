"""The training loop and its checkpoints. It writes to a run directory and knows no tracker by name."""
