"""Freed memory is kept for the next arrays."""

import platform
import subprocess
import sys

import pytest

# Prints how many pages the system clears for arrays of 24 MB that are made, dropped and made again. None
# is so large that NumPy asks for huge pages.
REPEATED = """
import resource
import numpy as np
{imported}

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def made():
    arrays = [np.ones(3 << 17) for _ in range(8)]

for _ in range(3):
    made()
before = faults()
made()
print(faults() - before)
"""


def repeated(imported):
    done = subprocess.run(
        [sys.executable, "-c", REPEATED.format(imported=imported)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do as they like")
def test_arrays_take_memory_that_others_left():
    pages = 24 * 2**20 // 4096
    assert repeated("import ring") < pages / 10
