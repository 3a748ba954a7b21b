"""What two parties have made ahead, in a file of each: read once, in order, whatever happens.

A file is one party's, of mode 600, and useless without the other's: both have its random id. In it:
1. A head: the id, the number of the file on its disk (inode), where the index is, and its digest.
2. Two records, written in turns: how often something was taken (the serial), and how far, by kind.
   The one with the larger serial counts; one that is half written has no right digest.
3. Arrays, and the index: JSON with the kinds, their places, and the digest of all arrays.

Before anything of it is used the record is on the disk (fsync), so that what is read before a crash is
lost, never used again. At the start of a session both parties compare id and serial
(:mod:`mpc.two_party.stock`). A process holds a lock as long as it has the file open. A copy is refused,
since it lies at another place of the disk than the head says, and so is what a backup puts back, since its
serial is behind the other party's.

The file holds what hides this party's values. It says nothing of them by itself, but with all that was sent
it does: keep it like a key.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import StockError
from mpc.core.windows import Windows
from mpc.two_party.lookup import Lookups, LookupsMade
from mpc.two_party.mask_products import ConvolutionMasks, Factor, MaskProducts, Masks, MasksMade
from mpc.two_party.pads import (
    AndPairs,
    AndPairsMade,
    BitPairs,
    BitPairsMade,
    NumberPads,
    NumberPadsMade,
)
from mpc.two_party.prepared import Correlation, Made

__all__ = ["ID_BYTES", "StockFile", "StockWriter"]

ID_BYTES = 16
_MAGIC = b"sotto stock 1\n\0\0"
_HEAD = struct.Struct("<16s16sQQQ32s")
_PAGE = 4096
_FIRST = 3 * _PAGE
_MOST_KINDS = (_PAGE - 16 - 32) // 8
_MADE: dict[type[Correlation], type[Made]] = {
    AndPairs: AndPairsMade,
    BitPairs: BitPairsMade,
    ConvolutionMasks: MasksMade,
    Lookups: LookupsMade,
    MaskProducts: MasksMade,
    NumberPads: NumberPadsMade,
}
_KINDS = {kind.__name__: kind for kind in _MADE}


def _described(kind: Correlation, factors: Sequence[Factor]) -> dict[str, Any]:
    values = {f.name: getattr(kind, f.name) for f in fields(kind) if f.name != "words"}
    if isinstance(kind, Masks):
        values["factor"] = factors.index(kind.factor)
    if isinstance(kind, ConvolutionMasks):
        values["windows"] = astuple(kind.windows)
    return {"kind": type(kind).__name__, "fields": values}


def _kind(described: dict[str, Any], factors: Sequence[Factor]) -> Correlation:
    values = {name: _tuples(value) for name, value in described["fields"].items()}
    kind = _KINDS[described["kind"]]
    if issubclass(kind, Masks):
        values["factor"] = factors[values["factor"]]
    if kind is ConvolutionMasks:
        values["windows"] = Windows(*values["windows"])
    return kind(words=0, **values)


def _tuples(value: Any) -> Any:
    """Return a value of JSON with tuples for its lists."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


class StockWriter:
    """Writes a new stock, under another name until it is whole.

    Parameters
    ----------
    path : Path
        There must be nothing.
    id : bytes
        Random, the same at both parties.
    about : dict
        What both parties must agree on: for JSON.
    factors : sequence of Factor
        The matrices that masks are for, in the program's order.
    digests : sequence of str
        Of each of them where its owner lives, else empty.

    Raises
    ------
    StockError
        If the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        id: bytes,
        about: dict[str, Any],
        factors: Sequence[Factor],
        digests: Sequence[str],
    ) -> None:
        self.path, self._id, self._about = path, id, about
        self._factors, self._digests = list(factors), list(digests)
        self._kinds: dict[Correlation, list[dict[str, Any]]] = {}
        self._at, self._digest = _FIRST, sha256()
        self._part = path.with_name(path.name + ".part")
        if path.exists():
            raise StockError(f"{path} exists already and is not overwritten: move it away first")
        try:
            self._part.unlink(missing_ok=True)
            self._fd = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise StockError(f"{self._part} cannot be written: {error.strerror}") from None

    def add(self, correlation: Correlation, made: Made) -> None:
        """Write what has been made of a correlation."""
        arrays = {}
        for name, array in made.arrays():
            data = np.ascontiguousarray(array).data.cast("B") if array.size else b""
            arrays[name] = [self._at, array.dtype.str, list(array.shape)]
            self._write(data)
        piece = {"words": made.words, "arrays": arrays}
        self._kinds.setdefault(replace(correlation, words=0), []).append(piece)

    def _write(self, data: Any) -> None:
        view = memoryview(data).cast("B")
        self._digest.update(view)
        while view:
            try:
                count = os.pwrite(self._fd, view, self._at)
            except OSError as error:
                raise StockError(f"{self._part} cannot be written: {error.strerror}") from None
            self._at += count
            view = view[count:]

    def finish(self) -> None:
        """Give the file its name, once all of it is on the disk."""
        if len(self._kinds) > _MOST_KINDS:
            raise StockError(
                f"a stock has at most {_MOST_KINDS} kinds of correlations, got {len(self._kinds)}: make"
                " one for each part of the program"
            )
        kinds = [
            _described(kind, self._factors) | {"pieces": pieces}
            for kind, pieces in self._kinds.items()
        ]
        factors = [
            {
                "owner": f.owner,
                "shape": [f.count, f.rows, f.columns],
                "bound": f.bound,
                "digest": digest,
            }
            for f, digest in zip(self._factors, self._digests, strict=True)
        ]
        index = {
            "about": self._about, "kinds": kinds, "factors": factors,
            "digest": self._digest.hexdigest(),
        }  # fmt: skip
        data = json.dumps(index).encode()
        end = self._at
        head = _HEAD.pack(
            _MAGIC, self._id, os.fstat(self._fd).st_ino, end, len(data), sha256(data).digest()
        )
        self._write(data)
        try:
            os.pwrite(self._fd, head + sha256(head).digest(), 0)
            os.pwrite(self._fd, _record(0, [0] * len(kinds)), _PAGE)
            os.fsync(self._fd)
            # A link fails where something has come in between.
            os.link(self._part, self.path)
        except OSError as error:
            raise StockError(f"{self.path} cannot be written: {error.strerror}") from None
        self.close()
        _sync_folder(self.path.parent)

    def close(self) -> None:
        """Remove what is not finished."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _record(serial: int, positions: Sequence[int]) -> bytes:
    data = struct.pack(f"<QQ{len(positions)}Q", serial, len(positions), *positions)
    return data + sha256(data).digest()


def _read_record(data: bytes, count: int) -> tuple[int, list[int]] | None:
    size = 16 + 8 * count
    body, digest = data[:size], data[size : size + 32]
    if len(body) < size or sha256(body).digest() != digest:
        return None
    serial, found, *positions = struct.unpack(f"<QQ{count}Q", body)
    return (serial, positions) if found == count else None


@dataclass
class _Place:
    """A kind's pieces, and how many words of them are taken."""

    pieces: list[dict[str, Any]]
    words: int
    used: int


class StockFile:
    """A party's stock, open and locked.

    Parameters
    ----------
    path : Path
    factors : sequence of Factor
        Of this session, for the matrices that the masks are for, in the program's order.
    digests : sequence of str
        Of those whose owner lives here; else empty.
    about : dict
        What the stock must be of.

    Attributes
    ----------
    id : bytes
    serial : int
        How often something was taken.

    Raises
    ------
    StockError
        If the file is missing, damaged, cut short, a copy, open elsewhere, or of something else.
    """

    def __init__(
        self, path: Path, factors: Sequence[Factor], digests: Sequence[str], about: dict[str, Any]
    ) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise StockError(f"stock {path} cannot be read: {error.strerror}") from None
        try:
            self._read(factors, digests, about)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"StockFile({str(self.path)!r})"

    def _read(
        self, factors: Sequence[Factor], digests: Sequence[str], about: dict[str, Any]
    ) -> None:
        path, fd = self.path, self._fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StockError(f"stock {path} is open in another process or session") from None
        status = os.fstat(fd)
        if status.st_mode & 0o077:
            raise StockError(
                f"stock {path} must be readable by its owner alone, got mode {status.st_mode & 0o777:o}"
            )
        data = os.pread(fd, _PAGE, 0)
        head, digest = data[: _HEAD.size], data[_HEAD.size : _HEAD.size + 32]
        if head[: len(_MAGIC)] != _MAGIC or sha256(head).digest() != digest:
            raise StockError(f"{path} is no stock, or one that is damaged")
        _, self.id, inode, at, size, digest = _HEAD.unpack(head)
        if status.st_size != at + size:
            raise StockError(
                f"stock {path} has {status.st_size} bytes in place of {at + size}: it was cut short"
            )
        text = os.pread(fd, size, at)
        if sha256(text).digest() != digest:
            raise StockError(f"stock {path} is damaged: its index is not what was written")
        if status.st_ino != inode:
            raise StockError(
                f"stock {path} is a copy, and what a copy holds may have been used: make a new one"
            )
        index = json.loads(text)
        if index["about"] != about:
            differ = [name for name in about if index["about"].get(name) != about[name]]
            raise StockError(
                f"stock {path} is of something else, by its {', '.join(differ)}: make a new one"
            )
        self._check_factors(index["factors"], factors, digests)
        self._map = np.memmap(path, np.uint8, "r")
        if sha256(self._map[_FIRST:at].data if at > _FIRST else b"").hexdigest() != index["digest"]:
            raise StockError(f"stock {path} is damaged: its arrays are not what was written")
        count = len(index["kinds"])
        records = [_read_record(os.pread(fd, _PAGE, _PAGE * slot), count) for slot in (1, 2)]
        found = [record for record in records if record is not None]
        if not found:
            raise StockError(f"stock {path} is damaged: it does not say what was taken")
        self.serial, positions = max(found)
        self._places = {
            _kind(described, factors): _Place(
                described["pieces"], sum(piece["words"] for piece in described["pieces"]), used
            )
            for described, used in zip(index["kinds"], positions, strict=True)
        }

    def _check_factors(
        self, found: list[dict[str, Any]], factors: Sequence[Factor], digests: Sequence[str]
    ) -> None:
        shapes = [(f["owner"], *f["shape"], f["bound"]) for f in found]
        if shapes != [(f.owner, f.count, f.rows, f.columns, f.bound) for f in factors]:
            raise StockError(
                f"stock {self.path} is of another model or program: its matrices have other shapes"
            )
        for old, new in zip(found, digests, strict=True):
            if old["digest"] != new:
                raise StockError(
                    f"stock {self.path} is of other weights: masks fit those that they were made for"
                )

    @property
    def positions(self) -> list[int]:
        """Up to where each kind is taken."""
        return [place.used for place in self._places.values()]

    def go_on(self, serial: int, positions: Sequence[int]) -> None:
        """Record a position that is not behind this one."""
        for place, position in zip(self._places.values(), positions, strict=True):
            if not place.used <= position <= place.words:
                raise StockError(f"stock {self.path} cannot go on at {position} of {place.words}")
        self._store(serial, positions)
        for place, position in zip(self._places.values(), positions, strict=True):
            place.used = position

    def _store(self, serial: int, positions: Sequence[int]) -> None:
        try:
            os.pwrite(self._fd, _record(serial, positions), _PAGE * (1 + serial % 2))
            os.fsync(self._fd)
        except OSError as error:
            raise StockError(f"stock {self.path} cannot be written: {error.strerror}") from None
        self.serial = serial

    def holds(self, kind: Correlation) -> int:
        """Return how many words there are of a kind."""
        place = self._places.get(kind)
        return 0 if place is None else place.words - place.used

    def __iter__(self) -> Iterator[Correlation]:
        return iter(self._places)

    def knows(self, kind: Correlation) -> bool:
        """Return whether there ever were any."""
        return kind in self._places

    def withdraw(self, wanted: Sequence[Correlation]) -> list[tuple[Correlation, Made]]:
        """Take correlations, one of a kind and no more than there are: recorded first, then read."""
        positions = {kind: place.used for kind, place in self._places.items()}
        for correlation in wanted:
            kind = replace(correlation, words=0)
            positions[kind] += correlation.words
        first = {kind: place.used for kind, place in self._places.items()}
        self.go_on(self.serial + 1, list(positions.values()))
        out = []
        for correlation in wanted:
            kind = replace(correlation, words=0)
            parts = self._parts(kind, first[kind], positions[kind])
            out.append((correlation, parts[0].joined(parts[1:])))
        return out

    def _parts(self, kind: Correlation, start: int, stop: int) -> list[Made]:
        parts, before = [], 0
        for piece in self._places[kind].pieces:
            low, high = max(start - before, 0), min(stop - before, piece["words"])
            if low < high:
                parts.append(self._part(type(kind), piece, low, high))
            before += piece["words"]
        return parts

    def _part(self, kind: type[Correlation], piece: dict[str, Any], low: int, high: int) -> Made:
        made = _MADE[kind]
        values: dict[str, NDArray[Any] | None] = {}
        for name in (f.name for f in fields(made) if f.name != "words"):
            place = piece["arrays"].get(name)
            if place is None:
                values[name] = None
                continue
            at, dtype, shape = place
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            array = self._map[at : at + size].view(dtype).reshape(shape)
            scale = shape[-1] // piece["words"]
            values[name] = np.array(array[..., low * scale : high * scale])
        return made(words=high - low, **values)

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
