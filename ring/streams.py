"""Pseudo-random words: AES-128 in counter mode, with random access by id.

The stream of a key for an id starts at the counter block ``id (64 bits) || 0 (64 bits)``, so a
stream can be read at any place, in any order, and by whoever else holds the key.
"""

from __future__ import annotations

import operator
import os
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from ring.errors import ArgumentError, DtypeError

__all__ = ["KEY_BYTES", "Stream", "fresh_key"]

KEY_BYTES = 16
_BLOCK_WORDS = 2
# Behind its last block a counter would run into the next id's stream.
_STREAM_WORDS = _BLOCK_WORDS << 64

# The cipher adds its keystream to zeros. One buffer of them stays in the cache of the core.
_ZEROS = memoryview(bytes(1 << 16))


def fresh_key() -> bytes:
    """Return a new 128-bit key from the operating system's generator.

    Examples
    --------
    >>> from ring import fresh_key
    >>> len(fresh_key())
    16
    """
    return os.urandom(KEY_BYTES)


class Stream:
    """The pseudo-random streams of one key.

    Parameters
    ----------
    key : bytes
        16 bytes. The object never shows it.

    Notes
    -----
    One object serves one thread at a time. Up to 2^64 blocks of 16 bytes an id.

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

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes) -> None:
        if not isinstance(key, bytes) or len(key) != KEY_BYTES:
            raise ArgumentError(f"key must be {KEY_BYTES} bytes")
        # Setting up a cipher takes as long as 70 kB of its output, moving its counter next to nothing.
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()

    def __repr__(self) -> str:
        return "Stream(<key>)"

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
        # A NumPy scalar has a dtype and flags too, but what is written to it is lost.
        if not isinstance(out, np.ndarray) or out.dtype != np.uint64 or not out.flags.c_contiguous:
            raise DtypeError("out must be a contiguous uint64 array")
        # NumPy's integers would wrap around below.
        id, start = operator.index(id), operator.index(start)
        if not 0 <= id < 1 << 64:
            raise ArgumentError(f"id must be in [0, 2^64), got {id}")
        if not 0 <= start <= _STREAM_WORDS - out.size:
            raise ArgumentError(
                f"start must be in [0, 2^65 - {out.size}] for {out.size} words, got {start}"
            )
        if out.size:
            self._write(out.data.cast("B"), id, start)

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
        # Checks both ends, and serves rows that follow one another at once.
        if high - low + 1 == len(rows) and bool(np.all(np.diff(rows) == 1)):
            self.fill(out, id, start + low * width)
            return
        self.fill(out[:1], id, start + high * width)
        lines = out.reshape(len(out), width).view(np.uint8)
        id, start = operator.index(id), operator.index(start)
        for k, row in enumerate(rows.tolist()):
            self._write(lines[k].data, id, start + row * width)

    def _write(self, target: memoryview, id: int, start: int) -> None:
        block, skip = divmod(start, _BLOCK_WORDS)
        update = self._encryptor.update_into
        self._encryptor.reset_nonce((id << 64 | block).to_bytes(16, "big"))
        if skip:
            update(_ZEROS[:8], bytearray(8))
        size = len(target)
        if size <= len(_ZEROS):
            update(_ZEROS[:size], target)
            return
        for begin in range(0, size, len(_ZEROS)):
            piece = target[begin : begin + len(_ZEROS)]
            update(_ZEROS[: len(piece)], piece)
