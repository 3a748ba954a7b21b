"""What the compiled kernels are made of, and when they are compiled."""

import io
import os
import pkgutil
import platform
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numba
import numpy as np
import pytest
from numba.core.dispatcher import Dispatcher

import ring
from ring import vectorised
from ring.compile import Announcement, kernel

MODULES = [import_module(f"ring.{found.name}") for found in pkgutil.iter_modules(ring.__path__)]
# Two modules may have kernels of the same name.
KERNELS = {
    f"{kernel.py_func.__module__.removeprefix('ring.')}.{kernel.py_func.__qualname__}": kernel
    for module in MODULES
    for kernel in vars(module).values()
    if isinstance(kernel, Dispatcher)
}

ROOT = Path(ring.__file__).parents[1]


def test_matrix_products_are_vectorised():
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("checked on x86-64 alone")
    if numba.config.CPU_NAME or not vectorised.cpu_features()["avx2"]:
        pytest.skip("no AVX2 here, or Numba is told of another processor")
    found = vectorised.vector_products()
    assert set(found) == {"_multiply_packed", "_multiply_rows"}
    assert min(found.values()) >= 8


@kernel
def powers(x):
    """Each product waits for the one before."""
    for k in range(1, len(x)):
        x[k] = x[k - 1] * x[k]


def test_a_kernel_without_vectors_is_found_out(monkeypatch):
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("checked on x86-64 alone")
    monkeypatch.setattr(vectorised, "_CALLS", {powers: (np.zeros(8, np.uint64),)})
    assert vectorised.vector_products() == {"powers": 0}


def test_processors_that_are_not_known(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert vectorised.vector_products() is None
    assert vectorised.cpu_features() == {}


def test_there_are_kernels():
    named = {"_multiply_packed", "_multiply_rows", "_encode", "_read_tables"}
    assert named <= {name.split(".")[-1] for name in KERNELS}


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_options(name):
    """Kernels are cached, and leave the interpreter to the other threads."""
    options = KERNELS[name].targetoptions
    assert options["nopython"] and options["nogil"]
    assert options["error_model"] == "numpy"
    assert type(KERNELS[name]._cache).__name__ == "FunctionCache"


IMPORT = """
import sys
from importlib import import_module
import numba
from numba.core import event

class Counter(event.Listener):
    count = 0
    def on_start(self, _):
        self.count += 1
    def on_end(self, _):
        pass

counter = Counter()
event.register("numba:compile", counter)
import ring, pkgutil
modules = [import_module("ring." + found.name) for found in pkgutil.iter_modules(ring.__path__)]
kernels = [k for m in modules for k in vars(m).values() if hasattr(k, "signatures")]
print("kernels", len(kernels) > 4)
print("signatures", sum(len(kernel.signatures) for kernel in kernels))
print("compiled", counter.count)
print("others", sorted({"sklearn", "mpc", "nn", "torch", "pandas"} & set(sys.modules)))
numba.njit(lambda: 1)()
print("counts", counter.count)
"""


def test_import_compiles_nothing():
    """Nor does it import what only other packages need."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.stderr == ""
    assert result.stdout.splitlines() == [
        "kernels True",
        "signatures 0",
        "compiled 0",
        "others []",
        "counts 1",
    ]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("stream", "times"), [(Terminal(), 1), (io.StringIO(), 0)])
def test_compilation_is_announced_once_on_a_terminal(monkeypatch, stream, times):
    monkeypatch.setattr(sys, "stderr", stream)
    announcement = Announcement()
    for _ in range(3):
        announcement.on_start(None)
        announcement.on_end(None)
    assert stream.getvalue().count("compiles its kernels") == times
    assert stream.getvalue().count("\n") == times
