"""Frames: what processes send to one another.

A frame is a header, the shapes of the arrays it carries, and their raw words:

    length    4 bytes  elements behind the shapes: words, or bytes for a message
    sequence  4 bytes  counts the frames of one direction of a connection
    step      4 bytes  of OPEN, REVEAL and CHECK a checksum of the program's steps so far; of CORRECTION an
                       id; else 0
    kind      1 byte
    dtype     1 byte   0 bytes, 1 words of 64 bits
    arrays    1 byte   how many arrays
    axes      1 byte   of all of them together
    shapes             for each array the number of its axes in a byte, then all sizes, 4 bytes each

All numbers are little-endian. A message of bytes is one array of one axis.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from math import prod
from typing import NamedTuple

from mpc.core.errors import ArgumentError, ShapeError

__all__ = [
    "HEADER_BYTES",
    "LARGEST_HEADER",
    "RECORD_BYTES",
    "Header",
    "Kind",
    "foresee",
    "framing",
    "pack",
    "parse",
    "shape_bytes",
]

Shapes = tuple[tuple[int, ...], ...]

_HEADER = struct.Struct("<IIIBBBB")
_NUMBERED = struct.Struct("<III")
HEADER_BYTES = _HEADER.size
LARGEST_HEADER = HEADER_BYTES + 255 + 4 * 255
BYTES, WORDS = 0, 1

# The most bytes that a TLS record carries, and its overhead: header, type, authentication tag (RFC 8446).
RECORD_BYTES = 1 << 14
_RECORD_OVERHEAD = 5 + 1 + 16


class Kind(IntEnum):
    """The kind of a frame; the numbers are part of the wire format."""

    OPEN = 1
    REVEAL = 2
    REQUEST = 3
    CORRECTION = 4
    HELLO = 5
    READY = 6
    ABORT = 7
    BYE = 8
    CALL = 9
    ANSWER = 10
    SHARE = 11
    NOTICE = 12
    PROBE = 13
    AUDIT = 14
    SIGNED = 15
    CHECK = 16
    KEYS = 17


_KINDS = frozenset(Kind)


class Header(NamedTuple):
    """A frame's header.

    Attributes
    ----------
    kind : Kind
    sequence, step : int
    words : bool
        Whether the frame carries 64-bit words, else bytes.
    shapes : tuple of tuple of int
    nbytes : int
        How many bytes follow the header.
    """

    kind: Kind
    sequence: int
    step: int
    words: bool
    shapes: Shapes
    nbytes: int


def foresee(kind: Kind, sequence: int, step: int, shapes: Shapes) -> tuple[bytes, Header]:
    """Return the header that a frame of arrays must have, as bytes and as a Header."""
    sequence, step = sequence & 0xFFFFFFFF, step & 0xFFFFFFFF
    length, rest = _unnumbered(kind, True, shapes)
    head = _NUMBERED.pack(length, sequence, step) + rest
    return head, Header(kind, sequence, step, True, shapes, 8 * length)


def pack(
    kind: Kind, sequence: int, step: int, words: bool, shapes: Sequence[tuple[int, ...]]
) -> bytes:
    """Return the header of a frame, with its shapes.

    Raises
    ------
    ArgumentError
        If it does not fit: 2^32 elements, 255 arrays, 255 axes.
    """
    length, rest = _unnumbered(kind, words, tuple(shapes))
    return _NUMBERED.pack(length, sequence & 0xFFFFFFFF, step & 0xFFFFFFFF) + rest


@lru_cache(maxsize=1024)
def _unnumbered(kind: Kind, words: bool, shapes: Shapes) -> tuple[int, bytes]:
    """Return the header's fields before the sequence number, and its bytes after the step."""
    length = sum(map(prod, shapes))
    axes = [len(shape) for shape in shapes]
    if length >= 1 << 32 or len(shapes) > 255 or sum(axes) > 255:
        raise ArgumentError(
            "a frame must have fewer than 2^32 elements in at most 255 arrays of 255 axes,"
            f" got {length} elements in {len(shapes)} arrays; compute on fewer rows at once"
        )
    sizes = [n for shape in shapes for n in shape]
    fixed = bytes([kind, WORDS if words else BYTES, len(shapes), sum(axes)])
    return length, fixed + bytes(axes) + struct.pack(f"<{len(sizes)}I", *sizes)


def shape_bytes(head: bytes | bytearray | memoryview) -> int:
    """Return how many bytes of shapes follow the fixed part of a header."""
    return int(head[14]) + 4 * int(head[15])


def parse(data: bytes | bytearray | memoryview) -> Header:
    """Read a header with its shapes.

    Raises
    ------
    ShapeError
        If the fields contradict one another or have no meaning.
    """
    if len(data) < HEADER_BYTES or len(data) != HEADER_BYTES + shape_bytes(data):
        raise ShapeError(f"a header of {len(data)} bytes is not whole")
    length, sequence, step, kind, dtype, arrays, axes = _HEADER.unpack_from(data)
    if kind not in _KINDS:
        raise ShapeError(f"no frame is of kind {kind}")
    if dtype not in (BYTES, WORDS):
        raise ShapeError(f"no frame has elements of dtype {dtype}")
    ndims = data[HEADER_BYTES : HEADER_BYTES + arrays]
    if sum(ndims) != axes or (dtype == BYTES and (arrays != 1 or axes != 1)):
        raise ShapeError(f"{arrays} arrays do not have {axes} axes")
    sizes = struct.unpack_from(f"<{axes}I", data, HEADER_BYTES + arrays)
    shapes, first = [], 0
    for ndim in ndims:
        shapes.append(sizes[first : first + ndim])
        first += ndim
    if sum(map(prod, shapes)) != length:
        raise ShapeError(f"{length} elements do not have the shapes {shapes}"[:300])
    words = dtype == WORDS
    return Header(Kind(kind), sequence, step, words, tuple(shapes), length * (8 if words else 1))


def framing(arrays: Sequence[tuple[int, int]]) -> int:
    """Return the bytes that a frame takes on the wire beside its contents: header, shapes and TLS.

    Parameters
    ----------
    arrays : sequence of (axes, bytes)
        Of each array: how many axes, and how many bytes. The first TLS record holds the header and
        as much of the arrays as fits; the rest of each array begins a record of its own.
    """
    head = HEADER_BYTES + sum(1 + 4 * axes for axes, _ in arrays)
    room, records = RECORD_BYTES - head, 1
    for _, size in arrays:
        beside = min(room, size)
        room -= beside
        records += -(-(size - beside) // RECORD_BYTES)
    return head + _RECORD_OVERHEAD * records
