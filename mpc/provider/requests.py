"""What the provider is asked for: blocks of correlations, wherever in the streams they stand.

A program that runs again asks for the same correlations under other ids. In a block all ids count
from a base, so that its bytes are the same each time: they are encoded once by the last party, and
decoded and checked once by the provider.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from mpc.core import wire
from mpc.core.correlation import Correlation
from mpc.core.errors import ShapeError

__all__ = ["Block", "Request", "read"]

# Requests go out in frames of so many.
_PER_FRAME = 128
# What is decoded is kept if it is no longer than this.
_LARGEST_KEPT = 1 << 12


@dataclass(frozen=True)
class Block:
    """Correlations that are asked for together.

    Attributes
    ----------
    correlations : tuple of (int, Correlation)
        Those with corrections, ids counted from the base.
    ids : int
        How many ids follow the base, those of correlations without corrections and of masks too.
    """

    correlations: tuple[tuple[int, Correlation], ...]
    ids: int
    _pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, correlations: Iterable[tuple[int, Correlation]], base: int, last: int) -> Block:
        """Make a block of what a program asks for that begins behind id `base` and ends at `last`."""
        counted = [(id - base, c.counted_from(base)) for id, c in correlations if c.corrected_words]
        encoded = [(id, wire.encode(c)) for id, c in counted]
        pieces = range(0, len(encoded), _PER_FRAME)
        return cls(
            tuple(counted),
            last - base,
            tuple(wire.encode(tuple(encoded[k : k + _PER_FRAME])) for k in pieces),
        )

    def at(self, base: int) -> Iterator[tuple[int, Correlation]]:
        """Yield the correlations as they are asked for behind id `base`."""
        for id, correlation in self.correlations:
            yield base + id, correlation.placed_at(base)

    def frames(self, base: int) -> Iterator[bytes]:
        """Yield what the provider is sent."""
        for piece in self._pieces:
            yield wire.encode((base, piece))


class Request(NamedTuple):
    """A correlation as the provider is asked for it."""

    base: int
    id: int
    encoded: bytes

    def correlation(self, limit: int) -> Correlation:
        """Decode and check what is asked for; it may take `limit` words.

        Raises
        ------
        ShapeError
            If it is no correlation, or its sizes do not fit together.
        """
        kept = len(self.encoded) <= _LARGEST_KEPT
        return (_decode_kept if kept else _decode)(self.encoded, limit).placed_at(self.base)


def _decode(encoded: bytes, limit: int) -> Correlation:
    correlation = wire.decode(encoded)
    if not isinstance(correlation, Correlation):
        raise ShapeError(f"a request must be for a correlation, got {type(correlation).__name__}")
    correlation.check(limit)
    correlation.keep_layout()
    return correlation


_decode_kept = lru_cache(maxsize=1024)(_decode)


def read(data: bytes | bytearray | memoryview) -> Iterator[Request]:
    """Read a frame of requests.

    Raises
    ------
    ShapeError
        If it is not what :meth:`Block.frames` yields.
    """
    frame = wire.decode(data)
    if not _is_pair(frame) or frame[0] < 0:
        raise ShapeError("requests must come as a base and a block")
    base, piece = frame
    for id, encoded in (_read_kept if len(piece) <= _LARGEST_KEPT else _read)(piece):
        yield Request(base, base + id, encoded)


def _read(piece: bytes) -> tuple[tuple[int, bytes], ...]:
    pairs = wire.decode(piece)
    if not isinstance(pairs, tuple) or not all(_is_pair(pair) and pair[0] > 0 for pair in pairs):
        raise ShapeError("a block must have pairs of id and correlation")
    return pairs


_read_kept = lru_cache(maxsize=256)(_read)


def _is_pair(value: Any) -> bool:
    return (
        type(value) is tuple
        and len(value) == 2
        and type(value[0]) is int
        and type(value[1]) is bytes
    )
