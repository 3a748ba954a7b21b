"""The crypto provider's computation: masks and corrections, from keys and ids alone.

The provider holds one key for each computing party. It sees no data, no share of data and no
opened value. Requests name the correlations that a session needs, by ids and shapes; its answers are
the last party's shares of their corrected parts. Masks that are needed again, those of a model's weights,
are kept in a cache.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.correlation import (
    Algebra,
    Correlation,
    MaskRef,
    Part,
    apply_views,
    chosen_rows,
    combine,
)
from mpc.core.errors import ShapeError
from mpc.core.keys import provider_streams
from mpc.core.wire import name_of
from ring.streams import NamedStream, NamedStreamBlocks, Stream, StreamBlocks

__all__ = ["Provider"]

Words = NDArray[np.uint64]

# What determines a mask: id, start, shape, algebra, `owner` and `without` of its MaskRef.
_Place = tuple[int, int, tuple[int, ...], Algebra, int | None, int | None]

_CHUNK_WORDS = 1 << 13
# Up to this size a mask is expanded and cached whole.
_WHOLE_WORDS = 1 << 18


class Provider:
    """Corrections for one session.

    Parameters
    ----------
    keys : sequence of bytes
        The key agreed on with each computing party, in their order.
    cache_bytes : int
        Memory for recently used masks of arrays. The masks of a model's weights are needed again for
        every batch; a mask that is not in the cache is expanded again.
    """

    def __init__(self, keys: Sequence[bytes], cache_bytes: int = 1 << 26) -> None:
        self._begin([provider_streams(key) for key in keys], cache_bytes)

    @classmethod
    def of(
        cls,
        streams: Sequence[tuple[StreamBlocks, NamedStreamBlocks]],
        cache_bytes: int = 1 << 26,
    ) -> Provider:
        """Return one with each party's streams of masks and of corrections in place of keys."""
        made = cls.__new__(cls)
        made._begin(streams, cache_bytes)
        return made

    def _begin(
        self, streams: Sequence[tuple[StreamBlocks, NamedStreamBlocks]], cache_bytes: int
    ) -> None:
        self.mask_streams = [masks for masks, _ in streams]
        # All but the last party's, whose share of a corrected part is the correction.
        self.correction_streams = [corrections for _, corrections in streams[:-1]]
        self._cache = MaskCache(cache_bytes)
        self._scratch = np.empty(_CHUNK_WORDS, np.uint64)

    def __repr__(self) -> str:
        return f"Provider({len(self.mask_streams)} parties)"

    def correct(self, id: int, correlation: Correlation, out: Words) -> None:
        """Write the last party's share of the corrected parts to `out`.

        Parameters
        ----------
        id : int
            Where in the streams the correlation's masks are.
        correlation : Correlation
        out : contiguous uint64 array of `correlation.corrected_words` words
        """
        layout, masks = correlation.layout, []
        if layout.masks:
            words = np.empty(layout.mask_words, np.uint64)
            masks = self._sum_streams(
                [(stream.at(id), id) for stream in self.mask_streams], 0, words, layout.masks
            )
        name = name_of(id, correlation)
        streams = [blocks.at(id) for blocks in self.correction_streams]
        places = [(stream, stream.place(name)) for stream in streams]
        others = self._sum_streams(places, 0, out, layout.corrected)
        correlation.deal(self, masks, others)

    def plain(self, correlation: Correlation) -> Words:
        """Return the value of the corrected part of a correlation without masks of its own.

        For range checks in a local session, see :mod:`mpc.core.ranges`.
        """
        (part,) = correlation.corrected()
        out = np.zeros(part.shape, np.uint64)
        correlation.deal(self, [], [out])
        return out

    def mask(self, ref: MaskRef) -> Words:
        """Return the mask that `ref` refers to: the sum of all parties' shares of it."""
        # Of a large tensor, such as a data set, only the rows of a batch are expanded.
        rows = chosen_rows(ref) if ref.part.size > _WHOLE_WORDS else None
        part = ref.part
        place = (ref.id, ref.start, part.shape, part.algebra, ref.owner, ref.without)
        # The key of an empty selection of rows is b"", that of the whole array None.
        key = (place, None if rows is None else _row_key(rows))
        words = self._cache.get(key)
        if words is None:
            words = self.expand(ref, rows)
            self._cache.add(key, words)
        held = part.shape if rows is None else (len(rows), *part.shape[1:])
        if words.shape != held:
            raise ShapeError(f"a mask must have the shape {held}, got {words.shape}")
        return apply_views(words, ref.views if rows is None else ref.views[1:], 0)

    def expand(self, ref: MaskRef, rows: NDArray[np.int64] | None) -> Words:
        """Expand a mask before its views, or some rows of it."""
        parties = range(len(self.mask_streams))
        named = [party for party in (ref.owner, ref.without) if party is not None]
        holders = [
            self.mask_streams[party]
            for party in (parties if ref.owner is None else named[:1])
            if party in parties and party != ref.without
        ]
        if not holders or any(party not in parties for party in named):
            raise ShapeError(
                f"a mask must be of some of {len(parties)} parties, got owner={ref.owner} and"
                f" without={ref.without}"
            )
        if rows is None:
            words = np.empty(ref.part.shape, np.uint64)
            places = [(stream.at(ref.id), ref.id) for stream in holders]
            self._sum_streams(places, ref.start, words.reshape(-1), (ref.part,))
            return words
        words = np.empty((len(rows), *ref.part.shape[1:]), np.uint64)
        holders[0].fill_rows(words, ref.id, rows, ref.start)
        for stream in holders[1:]:
            more = np.empty_like(words)
            stream.fill_rows(more, ref.id, rows, ref.start)
            combine(ref.part.algebra, words, more)
        return words

    def _sum_streams(
        self,
        places: Sequence[tuple[Stream | NamedStream, int]],
        start: int,
        out: Words,
        parts: Sequence[Part],
    ) -> list[Words]:
        """Write to `out` the sums (XORs) over `places` of streams' words, from word `start` on.

        A place is a stream with an id or a counter block. Returns `out` cut into `parts`.
        """
        stream, place = places[0]
        stream.fill(out, place, start)
        found, first = [], 0
        for part in parts:
            found.append(out[first : first + part.size].reshape(part.shape))
            first += part.size
        for stream, place in places[1:]:
            # Piece by piece, so that the second stream's words never leave the cache of the core.
            for first in range(0, out.size, _CHUNK_WORDS):
                piece = self._scratch[: out.size - first]
                stream.fill(piece, place, start + first)
                self._combine(out, first, piece, parts)
        return found

    @staticmethod
    def _combine(out: Words, first: int, piece: Words, parts: Sequence[Part]) -> None:
        """Combine `piece` into `out` from word `first` on, by the algebra of each part."""
        begin, end = 0, first + piece.size
        for part in parts:
            low, high = max(begin, first), min(begin + part.size, end)
            if low < high:
                combine(part.algebra, out[low:high], piece[low - first : high - first])
            begin += part.size


def _row_key(rows: NDArray[np.int64]) -> bytes:
    """Return a cache key for a selection of rows: short for consecutive rows, else all row numbers."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and bool(np.all(np.diff(rows) == 1)):
        return np.array([-1, rows[0], rows[-1]]).tobytes()
    return rows.tobytes()


class _Recent:
    """A least-recently-used cache of arrays, of at most `room` bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._held: OrderedDict[Any, Words] = OrderedDict()

    def get(self, key: Any) -> Words | None:
        words = self._held.get(key)
        if words is not None:
            self._held.move_to_end(key)
        return words

    def take(self, key: Any) -> Words | None:
        words = self._held.pop(key, None)
        if words is not None:
            self.room += words.nbytes
        return words

    def add(self, key: Any, words: Words) -> None:
        self._held[key] = words
        self.room -= words.nbytes
        while self.room < 0:
            self.room += self._held.popitem(last=False)[1].nbytes


class MaskCache:
    """Two caches: for masks used once so far, and for masks used more than once.

    Most masks are used once. They get an eighth of the memory, so that they do not push out the masks
    of a model's weights, and the provider's memory soon stops growing.

    Parameters
    ----------
    most : int
        Bytes of both caches together.
    """

    def __init__(self, most: int) -> None:
        self._once = _Recent(most // 8)
        self._again = _Recent(most - most // 8)

    @property
    def room(self) -> int:
        """The number of bytes left."""
        return self._once.room + self._again.room

    def get(self, key: Any) -> Words | None:
        """Return the mask added under a key, if it is still kept."""
        words = self._again.get(key)
        if words is None:
            words = self._once.take(key)
            if words is not None:
                self._again.add(key, words)
        return words

    def add(self, key: Any, words: Words) -> None:
        """Keep a mask that is used for the first time."""
        self._once.add(key, words)
