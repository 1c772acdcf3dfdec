"""How this process uses the machine's memory."""

from __future__ import annotations

import ctypes
import errno
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of glibc's malloc.h
ALL = 2**31 - 1


def keep_freed_memory() -> None:
    """Keep what is freed for the next tensor instead of giving it back to the system, and share it among threads.

    Every spectrogram, layer and step needs the same megabytes again, and the system would clear them each time before
    giving them. Only glibc (Linux) needs this; elsewhere nothing changes.
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


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Inside, this process gets no more than `more` bytes beside those that it has (on Linux; elsewhere no limit).

    For libraries that take as much memory as a file tells them to; they raise a MemoryError.
    """
    try:
        import resource

        has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    except (ImportError, OSError, ValueError):
        yield
        return
    known = [limit for limit in (has + more, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_AS, (min(known), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


MORE_MEMORY = "close other programs, allow more (ulimit -v), or take smaller batches (data.batch_size)"
SHORT_OF_MEMORY = ("allocate memory", "failed to map segment", "can't start new thread", "bad_alloc", "out of memory")
"""What the system, the loader of libraries, Python and PyTorch say where there is too little."""


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that caused it, is a lack of memory; a missing library is not."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        if isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno == errno.ENOMEM):
            return True
        if isinstance(cause, ImportError | OSError | RuntimeError):
            if any(sign in str(cause).lower() for sign in SHORT_OF_MEMORY):
                return True
        cause = cause.__cause__ or cause.__context__
    return False


def give_back_memory() -> None:
    """Give back what is free between what is in use; in threads, glibc keeps ever more of that for large tensors."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
