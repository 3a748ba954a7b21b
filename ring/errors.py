"""Exceptions that every layer of Sotto raises.

Each message names the argument or party, the rule and the value. All of them derive from
:class:`SottoError`, and from the built-in exception a NumPy user would expect.
"""

from __future__ import annotations

__all__ = [
    "ArgumentError",
    "DataError",
    "DtypeError",
    "ProcessError",
    "RangeError",
    "ShapeError",
    "SottoError",
]


class SottoError(Exception):
    """Base class of all exceptions raised on purpose by Sotto."""


class ArgumentError(SottoError, ValueError):
    """An argument's value breaks a rule."""


class ShapeError(ArgumentError):
    """Shapes that do not fit together."""


class RangeError(ArgumentError):
    """A value that the ring or the fixed-point format cannot hold."""


class DtypeError(SottoError, TypeError):
    """An argument of the wrong type or dtype."""


class DataError(SottoError):
    """A data set or file that is missing, incomplete or damaged."""


class ProcessError(SottoError, RuntimeError):
    """A stream, or what two parties make for each other, used by a forked child of its process."""
