"""Exceptions of the protocols; those on values, shapes and dtypes come from the ring."""

from ring.errors import ArgumentError, DataError, DtypeError, RangeError, ShapeError, SottoError

__all__ = [
    "ArgumentError",
    "DataError",
    "DtypeError",
    "PartyError",
    "RangeError",
    "RevealError",
    "SessionError",
    "ShapeError",
    "SottoError",
]


class PartyError(ArgumentError):
    """A party that is unknown, repeated or missing."""


class SessionError(SottoError, RuntimeError):
    """A session that is closed, or an array of another session."""


class RevealError(SottoError, TypeError):
    """An operation that would reveal a secret without saying so."""
