"""The names under which shares of corrected parts are expanded, see :mod:`mpc.core.keys`.

A name holds all that a request tells the provider of a correlation: a digest of class, sizes and
references, the correlation's id, and the ids of the masks that it refers to. So a forged request makes
the provider subtract shares that no party computes with.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from hashlib import sha256

from mpc.core import wire
from mpc.core.correlation import Correlation
from mpc.core.errors import ArgumentError

__all__ = ["name_of"]


@lru_cache(maxsize=16)
def _numbers(count: int) -> struct.Struct:
    return struct.Struct(f"<{count}Q")


def name_of(id: int, correlation: Correlation) -> bytes:
    """Return the name under which shares of the corrected parts of `correlation` `id` are expanded.

    Raises
    ------
    ArgumentError
        If an id is not in [0, 2^64).
    """
    # Cached: in a local session all parties and the provider need the same name.
    known: tuple[int, bytes] | None = vars(correlation).get("_name")
    if known is not None and known[0] == id:
        return known[1]
    layout, ids = correlation.layout, correlation.ids
    if layout.digest is None:
        layout.digest = sha256(wire.encode(correlation.without_ids())).digest()
    try:
        name = layout.digest + _numbers(1 + len(ids)).pack(id, *ids)
    except struct.error:
        raise ArgumentError(f"ids must be in [0, 2^64), got {[id, *ids]}") from None
    vars(correlation)["_name"] = (id, name)
    return name
