"""What every other part stands on: files, names, locks, text, errors, and the processes of a training."""
