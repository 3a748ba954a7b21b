"""The provider's cache of masks: which ones it keeps, so as not to expand them again."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MaskCache"]

Words = NDArray[np.uint64]


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
