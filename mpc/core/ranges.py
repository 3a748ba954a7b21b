"""The range policy: what a session does where public bounds do not prove that a result is in range.

Every shared integer must be below 2^62 in magnitude, the range for which truncation, comparison and
reveal are right; :data:`LARGEST` is 2^62 - 1. Each operation computes the bound of its result from the
bounds of its operands, as a Python integer. If that is at most LARGEST, the result is in range and
nothing more is done. Otherwise the operation goes through :meth:`RangePolicy.settle` before it is
carried out:

- "values": all parties live in this process, so the operation is also carried out on the values, in
  doubles with an error bound, and where that does not decide, in Python's integers.
- "check": the parties check on shares, and open one bit, see :mod:`mpc.protocols.range_check`.
- "warn": a :class:`RangeWarning`, once a place of the program.
- "error": a RangeError, before anything is sent.

Where results are known to be in range for another reason, such as the check of a model before it is
shared, operations run within :meth:`RangePolicy.vouched`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import ArgumentError, RangeError, RangeWarning

__all__ = ["LARGEST", "LIMIT_BITS", "MODES", "Operation", "RangePolicy"]

# The magnitude of a shared integer is below 2^62.
LIMIT_BITS = 62
LARGEST = (1 << LIMIT_BITS) - 1

MODES = ("values", "check", "warn", "error")

# Stack frames in these folders belong to the library, not to the user's program.
_OWN_FOLDERS = tuple(
    str(Path(__file__).resolve().parents[2] / name) + "/" for name in ("ring", "mpc", "nn")
)

# Bound on the relative error of a sum of doubles of one sign, for each addend.
_DOUBLE_ERROR = 2.0**-51


class Encoded(Protocol):
    """A shared array, as far as this module needs it."""

    frac_bits: int


@dataclass(frozen=True)
class Operation:
    """An operation over the integers, of which the ring computes the result modulo 2^64 alone.

    Attributes
    ----------
    name : str
        As the user writes it, for messages: ``*``, ``sum``.
    operands : tuple of SecretValue or array
        Secret and public operands; public floats are factors that are not encoded.
    exact : callable
        The operation on plain arrays of any dtype: a sum, or a sum of products, of the operands.
    addends : int
        How many terms are added up for an element of the result.
    bound : int
        On the magnitude of the encoded result, computed from the bounds of the operands.
    frac_bits : int
        Of the result.
    claims : callable
        Returns the claims that the parties check on shares, see :mod:`mpc.protocols.range_check`.
    sharp : bool
        True if the claims hold exactly when the results are in range; False if they imply it, but
        may fail for results in range.
    """

    name: str
    operands: tuple[Any, ...]
    exact: Callable[..., Any]
    addends: int
    bound: int
    frac_bits: int
    claims: Callable[[], tuple[Any, ...]]
    sharp: bool = True

    @property
    def said(self) -> str:
        """What a failed check says."""
        found = "is not" if self.sharp else "may not be"
        return f"{self.name}: a result {found} below {_limit(self.frac_bits)} in magnitude"


class RangePolicy:
    """How a session treats operations whose results are not proven by bounds to be in range.

    Parameters
    ----------
    mode : {"values", "check", "warn", "error"}
    values_of : callable
        Returns the encoded values of a shared array whose parties all live here; None in a plan.
    check : callable
        Checks on shares whether the results of an Operation are in range.
    check_bound : callable
        Checks on shares whether the encoded values of an array are within a bound.
    places : set, optional
        Places (file, line, operation) of the user's program that were warned of already.
    """

    def __init__(
        self,
        mode: str,
        values_of: Callable[[Any], NDArray[np.int64]] | None,
        check: Callable[[Operation], bool],
        check_bound: Callable[[Any, int], bool],
        places: set[tuple[str, int, str]] | None = None,
    ) -> None:
        if mode not in MODES:
            raise ArgumentError(f"ranges must be one of {', '.join(MODES)}, got {mode!r}")
        self.mode = mode
        self._values_of = values_of
        self._check, self._check_bound = check, check_bound
        self._vouched = 0
        # Where checks on shares are decided later, a mpc.protocols.range_check.Later.
        self.later: Any = None
        # No warnings from a plan whose program runs next, and warns itself.
        self.quiet = False
        self.places: set[tuple[str, int, str]] = set() if places is None else places

    def vouched(self) -> AbstractContextManager[None]:
        """Skip checks inside the ``with`` block: the caller has shown that all results are in range."""
        return _Vouched(self)

    @contextmanager
    def checked(self) -> Iterator[None]:
        """Check on shares inside the ``with`` block what would only be warned of.

        For results that the library computes and the user does not: a warning would be of no use to her.
        """
        mode = self.mode
        self.mode = "check" if mode == "warn" else mode
        try:
            yield
        finally:
            self.mode = mode

    def settle(self, operation: Operation) -> int:
        """Return a bound of at most LARGEST for the result, checked as the mode says.

        Raises RangeError if the check fails or the mode is "error"; may warn.
        """
        if operation.bound <= LARGEST:
            return operation.bound
        if self._vouched:
            return LARGEST
        if self.mode == "values":
            problem = None if self._values_of is None else beyond(operation, self._values_of)
            if problem:
                raise RangeError(problem)
        elif self.mode == "check":
            with self.vouched():
                if self.later is not None:
                    self.later.add(operation)
                    return LARGEST
                inside = self._check(operation)
            if not inside:
                raise RangeError(f"{operation.said}; share smaller values")
        else:
            self.doubt(operation.name, operation.bound, operation.frac_bits)
        return LARGEST

    def settle_bound(self, x: Encoded, bound: int, name: str) -> None:
        """Check |x| <= bound, an encoded bound, as the mode says; raise RangeError or warn."""
        if self._vouched:
            return
        if self.mode == "values":
            values = np.zeros((), np.int64) if self._values_of is None else self._values_of(x)
            outside = (values > bound) | (values < -bound)
            if np.any(outside):
                place = int(np.argmax(outside))
                raise RangeError(
                    f"{name}: the value{at_index(place, values.shape)} is"
                    f" {real(int(values.reshape(-1)[place]), x.frac_bits)}, which is larger in"
                    " magnitude"
                )
        elif self.mode == "warn":
            self.say(
                name,
                f"{name} is taken on trust: results are wrong if a value is larger; open the session"
                " with ranges='check' to have it checked",
            )
        else:
            with self.vouched():
                inside = self._check_bound(x, bound)
            if not inside:
                raise RangeError(f"{name}: a value is larger in magnitude")

    def settle_domain(
        self,
        operands: tuple[Any, ...],
        inside: Callable[..., NDArray[np.bool_]],
        name: str,
        domain: str,
    ) -> bool:
        """Check on values that a function is defined, and its result in the format; or warn.

        Parameters
        ----------
        operands : tuple of SecretValue
            They broadcast.
        inside : callable
            Takes the encoded values of the operands; says where the function is right.
        name, domain : str
            For messages.

        Returns
        -------
        bool
            Whether the caller is to check it on shares.

        Raises
        ------
        RangeError
            If a value is outside.
        """
        # Also where results are vouched for: whoever did so knows sizes, not domains.
        if self.mode == "values":
            if self._values_of is None:
                return False
            values = [self._values_of(x) for x in operands]
            wrong = ~inside(*values)
            if np.any(wrong):
                place = int(np.argmax(wrong))
                found = " and ".join(
                    real(int(np.broadcast_to(v, wrong.shape).reshape(-1)[place]), x.frac_bits)
                    for v, x in zip(values, operands, strict=True)
                )
                raise RangeError(
                    f"{name}: the value{at_index(place, wrong.shape)} is {found}, which is not in the"
                    f" domain, {domain}"
                )
            return False
        if self.mode == "warn":
            self.say(
                name,
                f"{name} is right for {domain}, and that is not checked: results are wrong if a value is"
                " outside; open the session with ranges='check' to have it checked",
            )
            return False
        return True

    def foresee(self, name: str, bound: int, frac_bits: int) -> None:
        """In mode "error", raise what `settle` would raise later, before rounds are spent."""
        if bound > LARGEST and not self._vouched and self.mode == "error":
            self.doubt(name, bound, frac_bits)

    def doubt(self, name: str, bound: int, frac_bits: int) -> None:
        """Warn or raise RangeError: by the operands' bounds, results of operation `name` may not fit."""
        text = (
            f"{name}: by the bounds of the operands a result may reach"
            f" {_power(bound, frac_bits)}, and it must stay below {_limit(frac_bits)} to be right;"
            " state a smaller bound= when you share, or .with_bound(...) for an operand, so that together"
            f" they are smaller by a factor of 2^{bound.bit_length() - LIMIT_BITS}; or open the session"
            " with ranges='check'"
        )
        self.say(name, text)

    def say(self, name: str, text: str) -> None:
        """Warn, once for each place of the user's program; in mode "error" raise RangeError."""
        if self.mode == "error":
            raise RangeError(text)
        file, line, level = _place()
        if self.quiet or (file, line, name) in self.places:
            return
        # Lines of an interactive session all have the same file and line.
        if not file.startswith("<"):
            self.places.add((file, line, name))
        warnings.warn(text, RangeWarning, stacklevel=level)


class _Vouched:
    # A class: contextlib's generators take thrice the time, and every layer enters one of these.
    __slots__ = ("_policy",)

    def __init__(self, policy: RangePolicy) -> None:
        self._policy = policy

    def __enter__(self) -> None:
        self._policy._vouched += 1

    def __exit__(self, *error: object) -> None:
        self._policy._vouched -= 1


def _place() -> tuple[str, int, int]:
    """Return file and line in the user's program of the call that led here, and its stack level."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OWN_FOLDERS):
        level, frame = level + 1, frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, level


def _power(bound: int, frac_bits: int) -> str:
    return f"2^{max(0, bound.bit_length() - frac_bits)}"


def _limit(frac_bits: int) -> str:
    """Return the limit of decoded values, as text."""
    behind = f" (with {frac_bits} bits behind the point)" if frac_bits else ""
    return f"2^{LIMIT_BITS - frac_bits}{behind}"


def real(value: int | float, frac_bits: int) -> str:
    """Return an encoded value decoded, as text."""
    if not frac_bits:
        exact = isinstance(value, int) or abs(value) < 2.0**53
        return str(int(value)) if exact else f"{value:g}"
    try:
        return f"{value / 2**frac_bits:g}"
    except OverflowError:
        return f"about 2^{int(value).bit_length() - frac_bits}"


def at_index(flat: int, shape: tuple[int, ...]) -> str:
    """Return " at index ..." for the element of a flat index, as text; nothing for a scalar."""
    if not shape:
        return ""
    index = tuple(int(i) for i in np.unravel_index(flat, shape))
    return f" at index {index if len(index) > 1 else index[0]}"


def beyond(operation: Operation, values_of: Callable[[Any], NDArray[np.int64]]) -> str | None:
    """Carry an operation out on values; return text that names a result out of range, or None."""
    with np.errstate(all="ignore"):
        return _beyond(operation, values_of)


def _beyond(operation: Operation, values_of: Callable[[Any], NDArray[np.int64]]) -> str | None:
    operands = [
        np.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else values_of(x)
        for x in operation.operands
    ]
    doubles = [x.astype(np.float64) for x in operands]
    results = np.asarray(operation.exact(*doubles))
    magnitudes = np.asarray(operation.exact(*map(np.abs, doubles)))
    error = magnitudes * ((operation.addends + 8) * _DOUBLE_ERROR)
    # Written so that NaN would count as doubtful; no operand is NaN.
    doubtful = ~(np.abs(results) + error < LARGEST)
    if not np.any(doubtful):
        return None
    fractional = any(x.dtype.kind == "f" for x in operands)
    if not fractional and not np.any(np.abs(results) - error > LARGEST):
        # Results modulo 2^64 are exact; with an error below 2^61 the double says which multiple to add.
        if np.all(error < 2.0**61):
            words = np.asarray(operation.exact(*(x.view(np.uint64) for x in operands)))
            signed = np.ascontiguousarray(words).view(np.int64).reshape(results.shape)
            doubtful = (
                (np.abs(results - signed) > 2.0**62) | (signed > LARGEST) | (signed < -LARGEST)
            )
        else:
            exact = np.asarray(operation.exact(*(x.astype(object) for x in operands)))
            doubtful = np.asarray(np.abs(exact) > LARGEST, bool).reshape(results.shape)
            results = np.asarray(exact.astype(np.float64)).reshape(results.shape)
        if not np.any(doubtful):
            return None
    elif not fractional:
        doubtful = np.abs(results) - error > LARGEST
    place = int(np.argmax(doubtful))
    return (
        f"{operation.name}: the result{at_index(place, results.shape)} is"
        f" {real(float(results.reshape(-1)[place]), operation.frac_bits)}, which is not below"
        f" {_limit(operation.frac_bits)} in magnitude; share smaller values, or with fewer"
        " fractional bits"
    )
