"""Pseudo-random words: AES-128 in counter mode, with random access by id or by name.

The stream of a key for an id starts at the counter block ``id (64 bits) || 0 (64 bits)``, so a
stream can be read at any offset, in any order, and by everybody who holds the key. The stream for a
name (any bytes) starts at the counter block that keyed BLAKE2b gives for the name, so that one
cipher serves all names. Without the BLAKE2b key nobody can search for names whose streams overlap;
for q names of b blocks in all, two overlap with probability q b / 2^128 at most: 2^-48 for 2^40
names and 2^40 blocks.

A root key gives keys by blocks of ids: AES-128 of a block's number is the block's key, and the root serves
for nothing else. Ids share the key of their block of 128, and from 2^48 on each id is a block of its own,
for words that are in use for long. Whoever is given a block's key reads the streams of its ids; what is
expanded from the other keys looks random to them.
"""

from __future__ import annotations

import operator
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from ring import processes
from ring.errors import ArgumentError, DtypeError, ProcessError

__all__ = [
    "BLOCK_IDS",
    "KEY_BYTES",
    "NAME_KEY_BYTES",
    "OWN_IDS",
    "NamedStream",
    "NamedStreamBlocks",
    "Stream",
    "StreamBlocks",
    "block_of",
    "fresh_key",
]

KEY_BYTES = 16
NAME_KEY_BYTES = 32
BLOCK_IDS = 128
"""How many ids share a key that follows from a root key."""
OWN_IDS = 1 << 48
"""The first of the ids that have such a key of their own."""
_BLOCK_SHIFT = BLOCK_IDS.bit_length() - 1
# Streams of blocks that are kept: making one takes as long as 200 kB of its output if it is not in cache.
_KEPT_BLOCKS = 64
_COUNTER = (1 << 128) - 1
_WORD = np.dtype(np.uint64)
# Words of one id's stream: after its last block the counter would run into the next id's.
_STREAM_WORDS = 2 << 64

# The cipher adds its keystream to zeros. One buffer of them stays in the cache of the core.
_ZEROS_BYTES = 1 << 16
_ZEROS = memoryview(bytes(_ZEROS_BYTES))


def fresh_key() -> bytes:
    """Return a new 128-bit key from the operating system's generator.

    Examples
    --------
    >>> from ring import fresh_key
    >>> len(fresh_key())
    16
    """
    return os.urandom(KEY_BYTES)


class _Keystream:
    """The keystream of one key, two words a block; it serves only the process that made it."""

    __slots__ = ("_encryptor", "_generation", "_next", "_turn")

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise ArgumentError(f"key must be {KEY_BYTES} bytes")
        # Setting up a cipher takes as long as 70 kB of its output, moving its counter next to nothing.
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._generation = processes.generation
        self._turn = threading.Lock()
        # The word that the cipher is at, from counter block 0 on; -1 if that is not known.
        self._next = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<key>)"

    def _fill(self, out: NDArray[np.uint64], first: int, start: int) -> None:
        """Fill `out` with the keystream from `start` words after the counter block `first` on."""
        # A NumPy scalar has a dtype and flags too, but what is written to it is lost.
        if not isinstance(out, np.ndarray) or out.dtype != _WORD or not out.flags.c_contiguous:
            raise DtypeError("out must be a contiguous uint64 array")
        if self._generation != processes.generation:
            raise ProcessError(
                "a stream belongs to the process that has made it: this process was forked from that"
                " one, and would use the same words again"
            )
        size = out.nbytes
        if not 0 <= start <= _STREAM_WORDS - (size >> 3):
            raise ArgumentError(
                f"start must be in [0, 2^65 - {out.size}] for {out.size} words, got {start}"
            )
        if size:
            self._write(out.data.cast("B"), 2 * first + start, size)

    def _write(self, target: memoryview, place: int, size: int) -> None:
        """Write `size` bytes of the keystream from a word on, counted from block 0."""
        encryptor = self._encryptor
        with self._turn:
            # Who reads on and on needs no new counter.
            if place != self._next:
                encryptor.reset_nonce((place >> 1 & _COUNTER).to_bytes(16, "big"))
                if place & 1:
                    encryptor.update_into(_ZEROS[:8], bytearray(8))
            self._next = -1
            if size <= _ZEROS_BYTES:
                encryptor.update_into(_ZEROS[:size], target)
            else:
                for begin in range(0, size, _ZEROS_BYTES):
                    piece = target[begin : begin + _ZEROS_BYTES]
                    encryptor.update_into(_ZEROS[: len(piece)], piece)
            self._next = place + (size >> 3)


class Stream(_Keystream):
    """The pseudo-random streams of one key.

    Parameters
    ----------
    key : bytes
        16 bytes. The object never shows it.

    Notes
    -----
    Up to 2^64 blocks of 16 bytes an id. Several threads may use one object: they wait for each
    other. A forked child cannot use its parent's; see :class:`ring.errors.ProcessError`.

    Examples
    --------
    >>> import numpy as np
    >>> from ring import Stream
    >>> stream = Stream(bytes(16))
    >>> whole, tail = np.empty(8, np.uint64), np.empty(3, np.uint64)
    >>> stream.fill(whole, id=7)
    >>> stream.fill(tail, id=7, start=5)
    >>> bool((whole[5:] == tail).all())
    True
    """

    __slots__ = ()

    def fill(self, out: NDArray[np.uint64], id: int, start: int = 0) -> None:
        """Write the words `start`, `start` + 1, ... of stream `id` into `out`.

        Parameters
        ----------
        out : contiguous uint64 array of any shape
        id : int
            Which stream, in [0, 2^64).
        start : int
            The first word.

        Raises
        ------
        DtypeError, ArgumentError
            If `out` is no contiguous uint64 array, or `id` or `start` is out of range.
        """
        # NumPy's integers would wrap around below.
        id, start = operator.index(id), operator.index(start)
        if not 0 <= id < 1 << 64:
            raise ArgumentError(f"id must be in [0, 2^64), got {id}")
        self._fill(out, id << 64, start)

    @staticmethod
    def fill_each(
        streams: Sequence[Stream | None], out: NDArray[np.uint64], id: int, start: int = 0
    ) -> None:
        """Write the words `start`, `start` + 1, ... of stream `id` of each key into a row of `out`.

        As :meth:`fill` for each of `streams`, in less time where rows are short; zeros for None.

        Raises
        ------
        DtypeError, ArgumentError, ProcessError
            As for :meth:`fill`; or if `out` has another number of rows.
        """
        if out.ndim != 2 or len(out) != len(streams):
            raise ArgumentError(f"out must have {len(streams)} rows, got shape {out.shape}")
        if not out.flags.c_contiguous:
            raise DtypeError("out must be a contiguous uint64 array")
        size = out.nbytes // max(1, len(out))
        if size > _ZEROS_BYTES or not size:
            for stream, row in zip(streams, out, strict=True):
                if stream is None:
                    row[:] = 0
                else:
                    stream.fill(row, id, start)
            return
        first = next((k for k, stream in enumerate(streams) if stream is not None), None)
        if first is not None:
            # For what it refuses.
            streams[first].fill(out[first], id, start)  # type: ignore[union-attr]
        target, generation = out.reshape(-1).data.cast("B"), processes.generation
        place = (id << 65) + start
        for k, stream in enumerate(streams):
            if stream is None:
                out[k] = 0
            elif stream._generation != generation:
                stream.fill(out[k], id, start)
            elif k != first:
                stream._write(target[k * size : (k + 1) * size], place, size)

    def fill_rows(
        self, out: NDArray[np.uint64], id: int, rows: NDArray[np.integer[Any]], start: int = 0
    ) -> None:
        """Write rows of a matrix that stream `id` holds from word `start` on.

        Parameters
        ----------
        out : contiguous uint64 array of shape (len(rows), ...)
            Row k gets the words ``start + rows[k] * width`` and following, for rows of `width`
            words.
        id, start : int
            As for :meth:`fill`.
        rows : array of non-negative integers

        Raises
        ------
        DtypeError, ArgumentError
            As for :meth:`fill`; or if `out` has another number of rows, or a row is negative.
        """
        if out.ndim == 0 or len(out) != len(rows):
            raise ArgumentError(f"out must have {len(rows)} rows, got shape {out.shape}")
        if not out.size:
            return
        width = out.size // len(out)
        low, high = int(rows.min()), int(rows.max())
        if low < 0:
            raise ArgumentError(f"rows must not be negative, got {low}")
        # Consecutive rows are one read; otherwise reading the last row checks the range.
        if high - low + 1 == len(rows) and bool(np.all(np.diff(rows) == 1)):
            self.fill(out, id, start + low * width)
            return
        self.fill(out[:1], id, start + high * width)
        lines = out.reshape(len(out), width)
        id, start = operator.index(id), operator.index(start)
        for k, row in enumerate(rows.tolist()):
            self._fill(lines[k], id << 64, start + row * width)


class NamedStream(_Keystream):
    """The pseudo-random streams of one key, for names in place of ids.

    Parameters
    ----------
    key : bytes
        16 bytes, for the cipher.
    name_key : bytes
        32 bytes, for the BLAKE2b that maps a name to its counter block. Neither key is shown.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.streams import NamedStream
    >>> stream = NamedStream(bytes(16), bytes(32))
    >>> one, other = np.empty(4, np.uint64), np.empty(4, np.uint64)
    >>> stream.fill(one, stream.place(b"a name"))
    >>> stream.fill(other, stream.place(b"another name"))
    >>> bool((one == other).any())
    False
    """

    __slots__ = ("_hash",)

    def __init__(self, key: bytes, name_key: bytes) -> None:
        if not isinstance(name_key, bytes) or len(name_key) != NAME_KEY_BYTES:
            raise ArgumentError(f"name_key must be {NAME_KEY_BYTES} bytes")
        super().__init__(key)
        self._hash = blake2b(key=name_key, digest_size=16)

    def place(self, name: bytes) -> int:
        """Return the counter block at which the stream of a name starts."""
        place = self._hash.copy()
        place.update(name)
        return int.from_bytes(place.digest(), "big")

    def fill(self, out: NDArray[np.uint64], place: int, start: int = 0) -> None:
        """Write the words `start`, `start` + 1, ... of the stream at `place` into `out`.

        Raises
        ------
        DtypeError, ArgumentError
            If `out` is no contiguous uint64 array, or `start` is out of range.
        """
        self._fill(out, place, start)


def block_of(id: int) -> int:
    """Return the number of the block that an id is in.

    Examples
    --------
    >>> from ring.streams import OWN_IDS, block_of
    >>> block_of(127), block_of(128), block_of(OWN_IDS + 5) == OWN_IDS + 5
    (0, 1, True)
    """
    return id >> _BLOCK_SHIFT if id < OWN_IDS else id


_Kind = TypeVar("_Kind", Stream, NamedStream)


class _Blocks(ABC, Generic[_Kind]):
    """The streams of one root key, by block; they serve only the process that made them."""

    __slots__ = ("_generation", "_made", "_root", "_turn")

    def __init__(self, root: bytes) -> None:
        if not isinstance(root, bytes) or len(root) != KEY_BYTES:
            raise ArgumentError(f"root must be {KEY_BYTES} bytes")
        # Not a mode for data: it is given the numbers of blocks, and nothing else.
        self._root: Any = Cipher(algorithms.AES(root), modes.ECB()).encryptor()
        self._generation = processes.generation
        self._turn = threading.Lock()
        self._made: dict[int, _Kind] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(<key>)"

    def at(self, id: int) -> _Kind:
        """Return the stream of the block that `id` is in.

        Raises
        ------
        ArgumentError
            If `id` is not in [0, 2^64).
        ProcessError
            In a forked child of the process that made this.
        """
        return self._made.get(id >> _BLOCK_SHIFT if id < OWN_IDS else id) or self._make(id)

    def _make(self, id: int) -> _Kind:
        id = operator.index(id)
        if not 0 <= id < 1 << 64:
            raise ArgumentError(f"id must be in [0, 2^64), got {id}")
        if self._generation != processes.generation:
            raise ProcessError(
                "keys of blocks belong to the process that has made them: this process was forked from"
                " that one, and would use the same words again"
            )
        block = block_of(id)
        with self._turn:
            stream = self._stream(self._key(block))
            # The oldest goes; whoever needs it again makes it again.
            if len(self._made) >= _KEPT_BLOCKS:
                del self._made[next(iter(self._made))]
            self._made[block] = stream
        return stream

    def key(self, block: int) -> bytes:
        """Return the key of a block, which opens the streams of its ids and of no others."""
        with self._turn:
            return self._key(block)

    @abstractmethod
    def _key(self, block: int) -> bytes:
        """Return the key of a block; within a turn."""

    @staticmethod
    @abstractmethod
    def _stream(key: bytes) -> _Kind:
        """Make the stream of a block's key."""


class StreamBlocks(_Blocks[Stream]):
    """The streams by id of one root key, under a key for each block of ids.

    Parameters
    ----------
    root : bytes
        16 bytes. The object never shows it.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.streams import StreamBlocks
    >>> blocks = StreamBlocks(bytes(16))
    >>> mine, other = np.empty(4, np.uint64), np.empty(4, np.uint64)
    >>> blocks.fill(mine, id=130)
    >>> blocks.at(200).fill(other, id=130)  # the key of ids 128 to 255
    >>> bool((mine == other).all())
    True
    """

    __slots__ = ()

    def fill(self, out: NDArray[np.uint64], id: int, start: int = 0) -> None:
        """Write words of stream `id` into `out`, see :meth:`ring.streams.Stream.fill`."""
        # As `at`, which a call of a single row is long enough to notice.
        block = id >> _BLOCK_SHIFT if id < OWN_IDS else id
        (self._made.get(block) or self._make(id)).fill(out, id, start)

    def fill_rows(
        self, out: NDArray[np.uint64], id: int, rows: NDArray[np.integer[Any]], start: int = 0
    ) -> None:
        """Write rows of a matrix that stream `id` holds, see :meth:`ring.streams.Stream.fill_rows`."""
        self.at(id).fill_rows(out, id, rows, start)

    def _key(self, block: int) -> bytes:
        key: bytes = self._root.update(block.to_bytes(16, "big"))
        return key

    @staticmethod
    def _stream(key: bytes) -> Stream:
        return Stream(key)


class NamedStreamBlocks(_Blocks[NamedStream]):
    """The streams by name of one root key, under keys for each block of ids.

    A block's key is that of its cipher, followed by that for names, from the inputs 0 || block,
    1 || block and 2 || block of 64 bits each.

    Parameters
    ----------
    root : bytes
        16 bytes. The object never shows it.

    Examples
    --------
    >>> import numpy as np
    >>> from ring.streams import NamedStreamBlocks
    >>> stream = NamedStreamBlocks(bytes(16)).at(130)
    >>> words = np.empty(4, np.uint64)
    >>> stream.fill(words, stream.place(b"a name"))
    """

    __slots__ = ()

    def _key(self, block: int) -> bytes:
        inputs = [k << 64 | block for k in range(1 + NAME_KEY_BYTES // KEY_BYTES)]
        keys: bytes = self._root.update(b"".join(n.to_bytes(16, "big") for n in inputs))
        return keys

    @staticmethod
    def _stream(key: bytes) -> NamedStream:
        return NamedStream(key[:KEY_BYTES], key[KEY_BYTES:])
