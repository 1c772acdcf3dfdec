"""What is freed is kept for the next tensor."""

from __future__ import annotations

import subprocess
import sys

import pytest

TAKE = """
import resource, sys
import numpy as np
from watkins_ml.memory import keep_freed_memory

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
