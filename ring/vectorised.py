"""Whether this processor runs the kernels with vector instructions."""

from __future__ import annotations

import platform
import re
from typing import Any

import numba
import numpy as np

from ring.matmul import _multiply_packed, _multiply_rows

__all__ = ["cpu_features", "vector_products"]

# What decides how fast the kernels are: width of the vectors, 64-bit products in one instruction,
# AES in hardware.
_FEATURES = {
    "x86_64": ("avx2", "avx512f", "avx512dq", "aes"),
    "aarch64": ("neon", "sve", "aes"),
}
# A product of 64-bit lanes in one instruction, or of their 32-bit halves.
_PRODUCTS = {
    "x86_64": r"\bvpmul(?:lq|udq)\b.*%[yz]mm",
    "aarch64": r"\bum(?:ull|lal)2?\s+v\d+\.2d",
}
_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}
_WORDS = np.zeros(8, np.uint64)
# Arguments of the types that the kernels are called with.
_CALLS: dict[Any, tuple[Any, ...]] = {
    _multiply_packed: (0, 1, _WORDS, 1, 1, _WORDS, 1, 1, _WORDS, 1),
    _multiply_rows: (0, 1, _WORDS, 1, 1, _WORDS, 1, 1, 1, _WORDS, 1),
}


def _processor() -> str:
    name = platform.machine().lower()
    return _NAMES.get(name, name)


def cpu_features() -> dict[str, bool]:
    """Return which of the processor's features that matter to the kernels are there."""
    from llvmlite import binding

    there = binding.get_host_cpu_features()
    return {name: bool(there.get(name)) for name in _FEATURES.get(_processor(), ())}


def _assembly(kernel: Any, arguments: tuple[Any, ...]) -> str:
    """Compile a kernel with its own options, but afresh: cached code has no listing."""
    options = {k: v for k, v in kernel.targetoptions.items() if k != "nopython"}
    fresh = numba.njit(**options)(kernel.py_func)
    fresh.compile(tuple(numba.typeof(argument) for argument in arguments))
    return "\n".join(fresh.inspect_asm().values())


def vector_products() -> dict[str, int] | None:
    """Count the vector multiplications in the compiled matrix products.

    Returns
    -------
    dict of str to int, or None
        By kernel; fewer than eight mean that the inner loop is not vectorised. None on processors
        whose instructions are not known here.
    """
    pattern = _PRODUCTS.get(_processor())
    if pattern is None:
        return None
    return {
        kernel.py_func.__name__: len(re.findall(pattern, _assembly(kernel, arguments)))
        for kernel, arguments in _CALLS.items()
    }
