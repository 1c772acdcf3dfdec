"""One module a family of models; the registry finds each by its `FAMILY`."""
