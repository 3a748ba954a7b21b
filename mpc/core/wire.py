"""A strict binary encoding of everything on the wire that is not an array of ring elements.

It has None, bools, whole numbers of at most 64 bits, strings, bytes, tuples, slices, small index
arrays, and instances of known dataclasses: correlations, parts, mask references and windows, by the
names of their classes. A tag byte begins each value; lengths and numbers are variable-length integers
of seven bits a byte. The reader checks every size against the bytes that are left before it allocates,
and the type of every field against its declaration. Nothing is ever executed.

A correlation's name, under which shares of its corrected parts are expanded (:mod:`mpc.core.keys`), holds
all that a request tells the provider of it: a digest of the encoded class, sizes and references, the
correlation's id, and the ids of the masks that it refers to. So a forged request makes the provider
subtract shares that no party computes with.
"""

from __future__ import annotations

import operator
import struct
import types
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256
from math import prod
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from mpc.core.correlation import Correlation, MaskRef, Part, correlation_classes
from mpc.core.errors import ArgumentError, DtypeError, ShapeError
from mpc.core.windows import Windows

__all__ = ["decode", "encode", "name_of"]

_DEPTH = 12
_ARRAYS = {0: np.dtype("<i8"), 1: np.dtype(np.bool_)}


def encode(value: object) -> bytes:
    """Encode a value.

    Raises
    ------
    DtypeError
        For a type that the encoding does not have.
    """
    out = bytearray()
    _encode(value, out)
    return bytes(out)


def _encode(value: Any, out: bytearray) -> None:
    kind = type(value)
    if isinstance(value, (str, bytes)):
        data = value.encode() if isinstance(value, str) else value
        out += b"s" if isinstance(value, str) else b"b"
        _put(len(data), out)
        out += data
    elif kind is tuple:
        # As Python integers, which decoding gives: both ends name a correlation by a digest of its
        # encoding.
        numbers = True
        for v in value:
            if type(v) is not int and not isinstance(v, np.integer):
                numbers = False
                break
        out += b"I" if numbers else b"t"
        _put(len(value), out)
        if numbers:
            for v in value:
                _put(_zigzag(int(v)), out)
        else:
            for v in value:
                _encode(v, out)
    elif isinstance(value, np.bool_):
        out += b"T" if value else b"F"
    elif value is None or value is True or value is False or value is Ellipsis:
        out += {None: b"N", True: b"T", False: b"F", Ellipsis: b"E"}[value]
    elif isinstance(value, (int, np.integer)):
        out += b"i"
        _put(_zigzag(operator.index(value)), out)
    elif isinstance(value, slice):
        out += b"S"
        for v in (value.start, value.stop, value.step):
            _encode(v, out)
    elif isinstance(value, np.ndarray) and value.dtype.kind in "iub":
        code = 1 if value.dtype.kind == "b" else 0
        out += b"A"
        out.append(code)
        _encode(value.shape, out)
        out += np.ascontiguousarray(value, dtype=_ARRAYS[code]).tobytes()
    elif _class(kind.__name__) is kind:
        out += b"O"
        _encode(kind.__name__, out)
        for name, _ in _fields(kind):
            _encode(getattr(value, name), out)
    else:
        raise DtypeError(f"the wire format has no {kind.__name__}")


def _zigzag(n: int) -> int:
    if not -(1 << 63) <= n < 1 << 63:
        raise DtypeError(f"a number on the wire must have at most 64 bits, got {n}")
    return n << 1 if n >= 0 else (-n << 1) - 1


def _put(n: int, out: bytearray) -> None:
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)


_OTHERS: dict[str, type[Any]] = {"MaskRef": MaskRef, "Part": Part, "Windows": Windows}


def _class(name: str) -> type[Any] | None:
    """Return the dataclass that has this name on the wire."""
    return _OTHERS.get(name) or correlation_classes().get(name)


_known_fields: dict[type[Any], tuple[tuple[str, Any], ...]] = {}


def _fields(cls: type[Any]) -> tuple[tuple[str, Any], ...]:
    """Return name and declared type of each field of a dataclass."""
    if cls not in _known_fields:
        hints = get_type_hints(cls)
        _known_fields[cls] = tuple((field.name, hints[field.name]) for field in fields(cls))
    return _known_fields[cls]


def decode(data: bytes | bytearray | memoryview) -> Any:
    """Decode a value that fills `data` exactly.

    Raises
    ------
    ShapeError
        If the bytes are not what `encode` writes.
    """
    reader = _Reader(bytes(data))
    value = reader.value(0)
    if reader.at != len(reader.data):
        raise ShapeError(f"a value must fill its bytes, {len(reader.data) - reader.at} are left")
    return value


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise ShapeError(f"a value takes {count} bytes of {len(self.data) - self.at}")
        piece = self.data[self.at : self.at + count]
        self.at += count
        return piece

    def number(self) -> int:
        n = 0
        if self.at < len(self.data) and (byte := self.data[self.at]) < 128:
            self.at += 1
            return byte
        for shift in range(0, 70, 7):
            if self.at >= len(self.data):
                raise ShapeError("a number on the wire is cut off")
            byte = self.data[self.at]
            self.at += 1
            n |= (byte & 127) << shift
            if byte < 128:
                if n >= 1 << 64 or (shift and not byte):
                    break
                return n
        raise ShapeError(
            "a number on the wire must have at most 64 bits, in as few bytes as can be"
        )

    def signed(self) -> int:
        n = self.number()
        return n >> 1 if n & 1 == 0 else -(n + 1 >> 1)

    def count(self) -> int:
        """Read a count of items, each of which takes at least one of the bytes left."""
        n = self.number()
        if n > len(self.data) - self.at:
            raise ShapeError(f"{n} values do not fit in {len(self.data) - self.at} bytes")
        return n

    def value(self, depth: int) -> Any:
        if depth > _DEPTH:
            raise ShapeError(f"values must not nest deeper than {_DEPTH}")
        tag = self.take(1)
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        if tag == b"i":
            return self.signed()
        if tag == b"I":
            return tuple([self.signed() for _ in range(self.count())])
        if tag == b"t":
            return tuple([self.value(depth + 1) for _ in range(self.count())])
        if tag == b"b":
            return self.take(self.count())
        if tag == b"s":
            return self.text(self.count())
        if tag == b"S":
            ends = [self.value(depth + 1) for _ in range(3)]
            if any(end is not None and type(end) is not int for end in ends):
                raise ShapeError("a slice must have whole numbers")
            return slice(*ends)
        if tag == b"A":
            return self.array(depth)
        if tag == b"O":
            return self.object(depth)
        raise ShapeError(f"a value on the wire must not start with the byte {tag!r}")

    def text(self, count: int) -> str:
        try:
            return self.take(count).decode()
        except UnicodeDecodeError:
            raise ShapeError("a string on the wire must be UTF-8") from None

    def array(self, depth: int) -> Any:
        dtype = _ARRAYS.get(self.take(1)[0])
        shape = self.value(depth + 1)
        if dtype is None or not _matches(shape, tuple[int, ...]) or len(shape) > 8:
            raise ShapeError("an array on the wire must be int64 or bool, of at most 8 axes")
        if any(n < 0 for n in shape) or prod(n for n in shape if n) >= 1 << 48:
            raise ShapeError(f"an array on the wire cannot have the shape {shape}")
        raw = self.take(prod(shape) * dtype.itemsize)
        if dtype == np.bool_ and raw.strip(b"\0\1"):
            raise ShapeError("bools on the wire must be zeros and ones")
        array = np.frombuffer(raw, dtype).reshape(shape)
        return array if dtype == np.bool_ else array.astype(np.int64, copy=False)

    def object(self, depth: int) -> Any:
        name = self.value(depth + 1)
        cls = _class(name) if isinstance(name, str) else None
        if cls is None:
            raise ShapeError(f"nothing on the wire is called {str(name)[:40]!r}")
        values = []
        for field, hint in _fields(cls):
            values.append(self.value(depth + 1))
            if not _matches(values[-1], hint):
                raise ShapeError(f"{field} of {name} has the wrong type on the wire")
        return cls(*values)


_CONSTANTS = {b"N": None, b"T": True, b"F": False, b"E": Ellipsis}


def _matches(value: Any, hint: Any) -> bool:
    """Whether a decoded value has the declared type."""
    if hint is object or hint is Any:
        return True
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is tuple:
        if type(value) is not tuple:
            return False
        if arguments[-1] is Ellipsis:
            return all(_matches(v, arguments[0]) for v in value)
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    if origin is Literal:
        return type(value) is str and value in arguments
    if origin in (Union, types.UnionType):
        return any(_matches(value, each) for each in arguments)
    return type(value) is hint or (hint is Correlation and isinstance(value, Correlation))


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
        layout.digest = sha256(encode(correlation.without_ids())).digest()
    try:
        name = layout.digest + _numbers(1 + len(ids)).pack(id, *ids)
    except struct.error:
        raise ArgumentError(f"ids must be in [0, 2^64), got {[id, *ids]}") from None
    vars(correlation)["_name"] = (id, name)
    return name
