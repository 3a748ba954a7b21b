"""Real numbers as fixed-point ring elements: encode with range checks, decode."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ring.compile import kernel
from ring.errors import ArgumentError, DtypeError, RangeError
from ring.real_arrays import plain_array, real_array

__all__ = ["FixedPoint", "decode", "encode"]

# Truncation and comparison need values below 2^62 in magnitude.
HEADROOM_BITS = 62


@dataclass(frozen=True)
class FixedPoint:
    """A fixed-point format: a real v stands as ``round(v * 2**frac_bits)``, for |v| < 2**int_bits.

    Parameters
    ----------
    frac_bits : int, default=16
        Fractional bits, behind the binary point.
    int_bits : int, default=15
        Integer bits, before the binary point; the sign is not counted.

    Raises
    ------
    RangeError
        If the product of two values inside the range, at twice the fractional bits, does not
        fit: ``2 * frac_bits + int_bits`` must be below 62.

    Examples
    --------
    >>> from ring import FixedPoint
    >>> FixedPoint().limit
    32768.0
    """

    frac_bits: int = 16
    int_bits: int = 15

    def __post_init__(self) -> None:
        for name, lowest in (("frac_bits", 0), ("int_bits", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise DtypeError(f"{name} must be a whole number, got {value!r}")
            if value < lowest:
                raise RangeError(f"{name} must be at least {lowest}, got {value}")
        needed = 2 * self.frac_bits + self.int_bits
        if needed >= HEADROOM_BITS:
            raise RangeError(
                "2 * frac_bits + int_bits must be below 62, so that a product fits the ring before it is"
                f" truncated; got 2 * {self.frac_bits} + {self.int_bits} = {needed}"
            )

    @property
    def limit(self) -> float:
        """The smallest magnitude that no longer fits."""
        return float(2**self.int_bits)

    @property
    def guard_bits(self) -> int:
        """Extra fractional bits that one factor of a product may have, 0 to 8.

        Weights in training keep them: one update may be smaller than a unit of the format.
        """
        room = HEADROOM_BITS - 1 - 2 * self.frac_bits - self.int_bits
        return max(0, min(8, self.frac_bits - 1, room))

    @property
    def bound(self) -> int:
        """The largest magnitude of an encoded value, as an integer."""
        return 2 ** (self.int_bits + self.frac_bits) - 1


@kernel
def _encode(x: NDArray[Any], scale: float, limit: float, out: NDArray[np.int64]) -> int:
    """Round x * scale into out; return the index of the first value out of range, or -1."""
    for i in range(x.size):
        value = np.rint(np.float64(x[i]) * scale)
        # Written so that NaN fails too. The limit is a power of two, exact as a double.
        if not (abs(value) < limit):
            return i
        out[i] = np.int64(value)
    return -1


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise DtypeError(f"{name} must be a whole number, got {value!r}") from None


def _first_bad(x: NDArray[Any], flat_index: int) -> tuple[Any, str]:
    index = tuple(int(i) for i in np.unravel_index(flat_index, x.shape))
    where = f" at index {index if len(index) != 1 else index[0]}" if index else ""
    return x.reshape(-1)[flat_index], where


def encode(
    x: ArrayLike, frac_bits: int = 16, *, int_bits: int = 15, name: str = "x"
) -> NDArray[np.uint64]:
    """Encode real numbers as fixed-point ring elements.

    Parameters
    ----------
    x : array_like of floats, integers or bools
        Integers count as reals: ``encode(1)`` is ``2**frac_bits``.
    frac_bits, int_bits : int
        The format, see :class:`FixedPoint`. With ``frac_bits=0`` only whole numbers fit.
    name : str
        What to call `x` in an error.

    Returns
    -------
    uint64 array of the shape of `x`
        ``round(x * 2**frac_bits)``, half to even, negative values in two's complement.

    Raises
    ------
    RangeError
        If a value is NaN, infinite, or not below ``2**int_bits`` in magnitude after rounding. The
        message names the value and its index.
    DtypeError
        If `x` does not hold real numbers, or floats are given where ``frac_bits=0`` asks for
        whole numbers, or the format is not given in whole numbers.

    Examples
    --------
    >>> from ring import decode, encode
    >>> encode([0.5, -1.0]).view("int64")
    array([ 32768, -65536])
    >>> decode(encode([0.5, -1.0]))
    array([ 0.5, -1. ])
    """
    frac_bits, int_bits = _whole("frac_bits", frac_bits), _whole("int_bits", int_bits)
    if frac_bits < 0 or int_bits < 0 or frac_bits + int_bits > HEADROOM_BITS:
        raise RangeError(
            f"frac_bits and int_bits must not be negative, nor exceed {HEADROOM_BITS} together,"
            f" got {frac_bits} and {int_bits}"
        )
    largest = 2 ** (int_bits + frac_bits) - 1
    values = real_array(x, name)
    if frac_bits == 0 and values.dtype.kind == "f":
        raise DtypeError(
            f"{name} must hold whole numbers for a format without fractional bits,"
            f" got dtype {values.dtype}"
        )
    if values.dtype.kind in "iub":
        # Doubles cannot hold every 64-bit integer, so integers are scaled as integers.
        outside = (values > largest >> frac_bits) | (values < -(largest >> frac_bits))
        if np.any(outside):
            value, where = _first_bad(values, int(np.argmax(outside)))
            raise RangeError(f"{name} must be below 2^{int_bits} in magnitude, got {value}{where}")
        shifted = np.asarray(values.astype(np.int64) << np.int64(frac_bits))
        return shifted.view(np.uint64)
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float64)
    out = np.empty(values.shape, np.int64)
    bad = _encode(
        np.ascontiguousarray(values).reshape(-1),
        float(2**frac_bits),
        float(2 ** (int_bits + frac_bits)),
        out.reshape(-1),
    )
    if bad >= 0:
        value, where = _first_bad(values, bad)
        rule = f"be below 2^{int_bits} in magnitude" if np.isfinite(value) else "be finite"
        raise RangeError(f"{name} must {rule}, got {value}{where}")
    return out.view(np.uint64)


def decode(x: ArrayLike, frac_bits: int = 16) -> NDArray[np.float64]:
    """Turn fixed-point ring elements back into floats.

    Parameters
    ----------
    x : uint64 array of any shape
    frac_bits : int
        Fractional bits of `x`; twice the format's for a product not yet truncated.

    Returns
    -------
    float64 array of the shape of `x`
        The signed values times ``2**-frac_bits``.

    Raises
    ------
    DtypeError
        If `x` is not uint64, or `frac_bits` is no whole number.

    Examples
    --------
    >>> import numpy as np
    >>> from ring import decode
    >>> decode(np.array([2**64 - 32768], np.uint64))
    array([-0.5])
    """
    words = plain_array(x, "x")
    if words.dtype != np.uint64:
        raise DtypeError(f"x must be a uint64 array of ring elements, got dtype {words.dtype}")
    bits = _whole("frac_bits", frac_bits)
    if not 0 <= bits < 64:
        raise ArgumentError(f"frac_bits must be in [0, 64), got {bits}")
    return np.asarray(words.view(np.int64) * 2.0**-bits)
