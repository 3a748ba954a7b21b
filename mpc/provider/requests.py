"""Requests to the provider: blocks of correlations, with ids relative to a base.

A program that runs again needs the same correlations under other ids. In a block all ids count from
a base, so that its bytes are the same each time: the last party encodes them once, and the provider
decodes and checks them once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from mpc.core import wire
from mpc.core.correlation import Correlation
from mpc.core.errors import ShapeError
from mpc.protocols.intervals import WordTables

__all__ = ["Block", "Request", "RequestedPart", "Runs", "read", "read_runs"]

# What services ask for and no array does: the wire knows a class once its file is imported, so also at a
# provider's workers.
_OF_SERVICES: tuple[type[Correlation], ...] = (WordTables,)
# Requests in one frame, and words of their corrections (more only if one has more): a part, which an
# auditor checks or not.
_PER_FRAME = 128
_WORDS_PER_FRAME = 1 << 21
# Of a program that runs again and again: how many requests and words there are at a time, ahead of need;
# and the most words that one run may take, if nothing is to be asked for ahead. Larger frames cost the
# auditor less, but what another program needs waits until the provider has dealt them.
_PER_REPEATED = 512
_WORDS_AHEAD = 3 << 19
_MOST_WORDS_AHEAD = 1 << 22
# Decoded requests and frames of at most so many bytes are cached.
_LARGEST_KEPT = 1 << 12


@dataclass(frozen=True)
class Block:
    """Correlations that are requested together.

    Attributes
    ----------
    correlations : tuple of (int, Correlation)
        Those with corrections; ids are relative to the base.
    ids : int
        How many ids the program uses, those of masks and of correlations without corrections included.
    words : int
        How many words the corrections have.
    """

    correlations: tuple[tuple[int, Correlation], ...]
    ids: int
    words: int
    _pieces: tuple[tuple[bytes, int, int], ...]

    @classmethod
    def of(cls, correlations: Iterable[tuple[int, Correlation]], base: int, last: int) -> Block:
        """Make a block of the correlations of a program that uses the ids from base + 1 to `last`."""
        counted = [(id - base, c.counted_from(base)) for id, c in correlations if c.corrected_words]
        pieces = []
        for some in _cut(counted):
            encoded = wire.encode(tuple((id, wire.encode(c)) for id, c in some))
            pieces.append((encoded, len(some), some[-1][0]))
        words = sum(correlation.corrected_words for _, correlation in counted)
        return cls(tuple(counted), last - base, words, tuple(pieces))

    def at(self, base: int) -> Iterator[tuple[int, Correlation]]:
        """Yield ids and correlations of the block for a base."""
        for id, correlation in self.correlations:
            yield base + id, correlation.placed_at(base)

    @property
    def repeats(self) -> int:
        """How often to ask for the block at a time, ahead of need; 0 if it is too large for that."""
        if not self.correlations or self.words > _MOST_WORDS_AHEAD:
            return 0
        return max(1, min(_PER_REPEATED // len(self.correlations), _WORDS_AHEAD // self.words))

    def repeated(
        self, base: int, times: int, ids: int, *, together: bool = True
    ) -> Iterator[RequestedPart]:
        """Yield what the frames ask for that request the block `times` over, with bases `ids` apart.

        In one frame, if that is possible and `together` is true.
        """
        if together and times > 1 and len(self._pieces) == 1:
            ((piece, count, last),) = self._pieces
            frame = wire.encode((base, piece, times, ids))
            yield RequestedPart(frame, times * count, base + (times - 1) * ids + last, times)
            return
        for k in range(times):
            yield from self.parts(base + k * ids)

    def frames(self, base: int) -> Iterator[bytes]:
        """Yield the contents of the frames of requests for a base."""
        for part in self.parts(base):
            yield part.frame

    def parts(self, base: int) -> Iterator[RequestedPart]:
        """Yield what the frames of requests for a base ask for."""
        for piece, count, last in self._pieces:
            yield RequestedPart(wire.encode((base, piece)), count, base + last)


class RequestedPart(NamedTuple):
    """The requests of one frame.

    Attributes
    ----------
    frame : bytes
    requests : int
        How many there are.
    last : int
        The id of the last one.
    runs : int
        For how many runs of a program they are. An auditor checks each of them or not.
    """

    frame: bytes
    requests: int
    last: int
    runs: int = 1


def _cut(
    counted: Sequence[tuple[int, Correlation]],
) -> Iterator[Sequence[tuple[int, Correlation]]]:
    """Yield runs of correlations, each for a frame."""
    begin = words = 0
    for k, (_, correlation) in enumerate(counted):
        full = words + correlation.corrected_words > _WORDS_PER_FRAME
        if k > begin and (full or k - begin == _PER_FRAME):
            yield counted[begin:k]
            begin, words = k, 0
        words += correlation.corrected_words
    if len(counted) > begin:
        yield counted[begin:]


class Request(NamedTuple):
    """One request, as it comes over the wire.

    Attributes
    ----------
    base : int
    id : int
        Of the correlation, base included.
    encoded : bytes
        The correlation, its references relative to the base.
    """

    base: int
    id: int
    encoded: bytes

    def correlation(self, limit: int) -> Correlation:
        """Decode and check the correlation, which may have at most `limit` words.

        Raises
        ------
        ShapeError
            If the bytes hold no correlation, or its sizes do not fit together.
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


class Runs(NamedTuple):
    """The requests of one frame, for one run of a program or several; correlations are not decoded.

    Attributes
    ----------
    base : int
        Of the first run.
    pairs : tuple of (int, bytes)
        Of each run: ids, relative to its base, and encoded correlations.
    times : int
        How many runs there are.
    ids : int
        How far their bases are apart.
    """

    base: int
    pairs: tuple[tuple[int, bytes], ...]
    times: int
    ids: int

    def of(self, run: int) -> Iterator[Request]:
        """Yield the requests of one run."""
        base = self.base + run * self.ids
        for id, encoded in self.pairs:
            yield Request(base, base + id, encoded)

    def check_ids(self) -> tuple[int, int]:
        """Return the first and the last id, after checking that they ascend.

        Raises
        ------
        ShapeError
            If they do not, or there is no request.
        """
        if not self.pairs:
            raise ShapeError("a part must have a request")
        first, last = self.pairs[0][0], self.pairs[-1][0]
        if (self.times > 1 and last - first >= self.ids) or any(
            a >= b for (a, _), (b, _) in pairwise(self.pairs)
        ):
            raise ShapeError("ids must ascend, none serves twice")
        return self.base + first, self.base + (self.times - 1) * self.ids + last


def read(data: bytes | bytearray | memoryview) -> Iterator[Request]:
    """Read a frame of requests; raise as :func:`read_runs`."""
    runs = read_runs(data)
    for k in range(runs.times):
        yield from runs.of(k)


def read_runs(data: bytes | bytearray | memoryview) -> Runs:
    """Read a frame of requests.

    Raises
    ------
    ShapeError
        If the bytes are not what :meth:`Block.frames` yields or :meth:`Block.repeated` has.
    """
    frame = wire.decode(data)
    times = ids = 1
    if type(frame) is tuple and [type(value) for value in frame[2:]] == [int, int]:
        times, ids = frame[2:]
        frame = frame[:2]
    if not _is_pair(frame) or frame[0] < 0 or times < 1 or ids < 1:
        raise ShapeError(
            "requests must come as a base and a block, and how often if more than once"
        )
    base, piece = frame
    pairs = (_read_kept if len(piece) <= _LARGEST_KEPT else _read)(piece)
    if times > 1 and not 0 < times * len(pairs) <= _PER_REPEATED:
        raise ShapeError(
            f"1 to {_PER_REPEATED} requests may come from those that are repeated in a frame"
        )
    return Runs(base, pairs, times, ids)


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
