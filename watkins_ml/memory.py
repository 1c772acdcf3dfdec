"""How this process uses the machine's memory."""

from __future__ import annotations

import ctypes
import gc

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
ALL = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep what is freed for the next tensor instead of giving it back to the system, and share it among threads.

    Every spectrogram, layer and step needs the same megabytes again, and the system would clear them each time before
    giving them. Only glibc (Linux) needs to be told; elsewhere nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return
    for option, value in ((MMAP_MAX, 0), (TRIM_THRESHOLD, ALL), (ARENA_MAX, 1)):
        mallopt(option, value)


def use_memory_freely() -> None:
    """For a process that is ours alone: keep what is freed, and look for cycles after 20,000 new objects, not 700.

    torch, MLflow and scikit-learn make half a million objects while they are imported, none of them garbage, and a
    sixth of that time went into looking.
    """
    keep_freed_memory()
    gc.set_threshold(20_000, *gc.get_threshold()[1:])
