"""Networks, the bundle of files that a trained one is, and what it has to say of a sound."""
