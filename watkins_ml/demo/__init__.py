"""The demonstration: a small generated ocean and the whole job run on it."""
