"""Streams of blocks whose keys were opened, for whoever recomputes what was dealt in them.

As :class:`ring.streams.StreamBlocks` and :class:`ring.streams.NamedStreamBlocks`, without a root key: there
are the blocks whose keys were given, and no others.
"""

from __future__ import annotations

from typing import Any

from ring.errors import ArgumentError
from ring.streams import NamedStreamBlocks, StreamBlocks, fresh_key

__all__ = ["OpenedNamedStreams", "OpenedStreams"]


class _Opened:
    """What both kinds have: keys in place of a root."""

    __slots__ = ()

    _opened: dict[int, bytes]
    _made: dict[int, Any]

    def open(self, block: int, key: bytes) -> None:
        """Add the key of a block."""
        self._opened[block] = key

    def forget(self, block: int) -> None:
        """Drop a block's key and its streams."""
        self._opened.pop(block, None)
        self._made.pop(block, None)

    def _key(self, block: int) -> bytes:
        if block not in self._opened:
            raise ArgumentError(f"the key of block {block} was not opened")
        return self._opened[block]


class OpenedStreams(_Opened, StreamBlocks):
    """The streams by id of the blocks that were opened.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.opened_blocks import OpenedStreams
    >>> from ring.streams import StreamBlocks
    >>> blocks, opened = StreamBlocks(bytes(16)), OpenedStreams()
    >>> opened.open(1, blocks.key(1))
    >>> mine, other = np.empty(4, np.uint64), np.empty(4, np.uint64)
    >>> blocks.fill(mine, id=130)
    >>> opened.fill(other, id=130)
    >>> bool((mine == other).all())
    True
    """

    __slots__ = ("_opened",)

    def __init__(self) -> None:
        # Nothing follows from this root: `_key` looks up what was opened.
        super().__init__(fresh_key())
        self._opened = {}


class OpenedNamedStreams(_Opened, NamedStreamBlocks):
    """The streams by name of the blocks that were opened, see :class:`OpenedStreams`."""

    __slots__ = ("_opened",)

    def __init__(self) -> None:
        super().__init__(fresh_key())
        self._opened = {}
