"""A folder of recordings to split, labelled spectrograms on disk, and back into memory."""
