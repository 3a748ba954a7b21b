"""Secure computation on additive shares modulo 2^64, with a crypto provider."""

from mpc import errors
from mpc.cost import Cost
from mpc.errors import *  # noqa: F403
from mpc.launch import launch
from mpc.session import Plan, Session
from mpc.shared_array import SharedArray
from mpc.split import join, split

__all__ = sorted(
    [
        *("Cost", "Plan", "Session", "SharedArray", "join", "launch", "split"),
        *errors.__all__,
    ]
)
