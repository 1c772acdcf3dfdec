"""What is freed is kept for the next tensor."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from watkins_ml.core.errors import UserError
from watkins_ml.core.memory import at_most, is_short_of_memory

TAKE = """
import resource, sys
import numpy as np
from watkins_ml.core.memory import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
def take():
    return [np.ones(1_000_000) for _ in range(5)]  # 8 MB each

for _ in range(10):
    take()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    take()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc needs to be told")
def test_memory_that_was_freed_is_not_asked_for_again():
    done = subprocess.run([sys.executable, "-c", TAKE, "kept"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000, "400 MB are 100,000 pages of 4 kB"


def limited(megabytes: int, *arguments: str) -> subprocess.CompletedProcess:
    """A command as after `ulimit -v`."""
    limit = megabytes * 1_000_000
    return subprocess.run(
        [sys.executable, "-m", "watkins_ml", *arguments], capture_output=True, text=True, timeout=300,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the limit is not kept to")
@pytest.mark.parametrize("megabytes", [300, 900])
def test_a_command_with_too_little_memory_ends_with_one_sentence(megabytes):
    ended = limited(megabytes, "predict", "run", "a.wav")
    assert ended.returncode == 1 and len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("watkins: too little memory (lib") and "ulimit -v" in ended.stderr


def test_help_needs_none_of_the_large_libraries():
    assert limited(600, "fetch", "archive", "--help").returncode == 0


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cuda.so: failed to map segment from shared object"),
        ImportError("x.so: cannot allocate memory in static TLS block"),
        OSError(12, "Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to"),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_want_of_memory_is_seen_also_behind_another_error(watkins, monkeypatch, error):
    assert is_short_of_memory(error)

    def fails(*_: object) -> None:
        try:
            raise error
        except Exception as cause:
            raise ValueError("no image") from cause

    monkeypatch.setattr("watkins_ml.fetch.release.fetch", fails)
    said = watkins("fetch", "archive")
    assert said.status == 1 and said.err.startswith("watkins: too little memory (") and "ulimit -v" in said.err


@pytest.mark.parametrize("error", [ImportError("No module named x"), OSError(28, "No space left"), ValueError("x")])
def test_other_errors_are_not_for_want_of_memory(error):
    assert not is_short_of_memory(error)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is no limit")
def test_what_takes_more_than_it_may_gets_a_memory_error_and_the_limit_ends():
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(MemoryError), at_most(50_000_000):
        bytearray(8_000_000_000)  # more than what earlier tests may have left in the heap
    with pytest.raises(UserError), at_most(50_000_000):
        raise UserError("x")
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert len(bytearray(400_000_000)) == 400_000_000
