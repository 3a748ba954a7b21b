"""Secure computation on additive shares modulo 2^64, with a crypto provider."""

from mpc.cost import Cost
from mpc.errors import (
    ArgumentError,
    DataError,
    DtypeError,
    PartyError,
    RangeError,
    RevealError,
    SessionError,
    ShapeError,
    SottoError,
)
from mpc.session import Plan, Session
from mpc.shared_array import SharedArray
from mpc.split import join, split

__all__ = [
    "ArgumentError",
    "Cost",
    "DataError",
    "DtypeError",
    "PartyError",
    "Plan",
    "RangeError",
    "RevealError",
    "Session",
    "SessionError",
    "ShapeError",
    "SharedArray",
    "SottoError",
    "join",
    "split",
]
