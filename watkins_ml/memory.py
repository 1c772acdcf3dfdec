"""How this process uses the machine's memory."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 1 << 28
LARGEST_KEPT = 1 << 25  # the most that glibc takes


def keep_freed_memory() -> None:
    """Keep what is freed, up to 256 MiB, for the next tensor instead of giving it back to the system.

    Every spectrogram and every step needs the same few megabytes again, and the system would clear them each time
    before giving them. Only glibc (Linux) needs to be told; elsewhere nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; Windows
        return
    mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
    mallopt(TRIM_THRESHOLD, KEPT)
