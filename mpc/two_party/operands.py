"""What two parties remember of the operands of their products by ring-LWE.

**What is shown of an operand.** Each answer shows its keeper a little of the mixer's operand
(:mod:`mpc.two_party.rlwe_parameters`): all answers from one array together, with all its views, may show
2^-40 in statistical distance. So what an array has left is counted. A product can be made with each of the
parameters, and also by halves: the words of the mixer's operand as two numbers of 32 bits, answered for
apart, which show 2^32 times less, for twice the answers. The cheapest of these ways that shows at most a
2^-16th of all there is (of arrays that are no inputs, and new in most products, a quarter) is taken while
half of it is left, the next one while a quarter is left, and so on. So weights serve millions of products
in the cheapest way, and then as many more as anybody will ask for.
Both parties count alike. Only after a call that failed at one of them they may not: see
:meth:`Operands.forget`.

**What is encrypted once**: inputs, such as a model's weights, which serve every product with few rows.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import SessionError
from mpc.two_party.rlwe_layouts import Layout
from mpc.two_party.rlwe_parameters import DISTANCE_BITS, PARAMETERS
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import Kept
from mpc.two_party.rlwe_slots import SlotProduct

__all__ = ["Chosen", "Operands", "frozen", "join_halves", "shown_by_slots", "split_halves"]

Words = NDArray[np.uint64]

_HALF_BITS = 32
_HALF_BOUND = 1 << (_HALF_BITS - 1)

# Distances are counted in units of 2^-300, rounded up: far below what any product shows.
_UNIT_BITS = 300
WHOLE = 1 << (_UNIT_BITS - DISTANCE_BITS)
# What is assumed to be left of every operand once the parties may have counted differently.
_ASSUMED = WHOLE >> 12
_LASTING_PART, _PART = 16, 2


@dataclass(frozen=True)
class Chosen:
    """How a product is made.

    Attributes
    ----------
    product : Product
    halves : bool
        Whether the mixer's operand is split, see :func:`split_halves`.
    shown : int
        What it shows of the mixer's operand, in units of 2^-300; all of them, if several are made.
    """

    product: Product
    halves: bool
    shown: int


@lru_cache(1 << 8)
def _products(layout: Layout, bound: int) -> tuple[tuple[Product, int], ...]:
    """Return the product with all parameters that allow it, and what it shows with them."""
    total = bound * layout.used
    answered = layout.kept_groups * layout.mixed_groups * len(layout.places)
    return tuple(
        (Product(layout, p, bound, answered), ceil(p.distance(total, answered) * 2**_UNIT_BITS))
        for p in PARAMETERS
        if p.allows(total, answered)
    )


@lru_cache(1 << 8)
def shown_by_slots(size: int) -> int:
    """Return what an elementwise product shows of the mixer's operand, in units of 2^-300."""
    return ceil(SlotProduct(size).distance * 2**_UNIT_BITS)


def frozen(views: Any) -> Hashable:
    """Return views of an array as a key: two are equal only if they pick the same."""
    if isinstance(views, (tuple, list)):
        return tuple(map(frozen, views))
    if isinstance(views, slice):
        return "slice", views.start, views.stop, views.step
    if isinstance(views, np.ndarray):
        return views.dtype.str, views.shape, views.tobytes()
    assert isinstance(views, Hashable)
    return views


def _ways(layout: Layout, halves: Callable[[], Layout], bound: int) -> Iterator[Chosen]:
    for product, shown in _products(layout, bound):
        yield Chosen(product, False, shown)
    if bound > _HALF_BOUND:
        for product, shown in _products(halves(), _HALF_BOUND):
            yield Chosen(product, True, shown)


def split_halves(w: Words, axis: int) -> Words:
    """Return low and high halves of words, as numbers of at most 2^31 in magnitude, along an axis."""
    low = np.left_shift(w, np.uint64(_HALF_BITS)).view(np.int64) >> _HALF_BITS
    high = (w - low.view(np.uint64)).view(np.int64) >> _HALF_BITS
    return np.concatenate([low, high], axis=axis).view(np.uint64)


def join_halves(z: Words, axis: int) -> Words:
    """Return the product from those with the halves, along an axis."""
    low, high = np.split(z, 2, axis=axis)
    return low + (high << np.uint64(_HALF_BITS))


class Operands:
    """What two parties remember of operands.

    Parameters
    ----------
    memory_limit : int
        Bytes that encrypted inputs may take; those used longest ago are forgotten.
    """

    def __init__(self, memory_limit: int = 1 << 28) -> None:
        self._left: dict[int, tuple[weakref.ref[NDArray[Any]], int]] = {}
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self._limit, self._assume = memory_limit, False

    @staticmethod
    def _whole(array: NDArray[Any]) -> NDArray[Any]:
        while isinstance(array.base, np.ndarray):
            array = array.base
        return array

    def left(self, array: NDArray[Any]) -> int:
        """Return how much may still be shown of an array, in units of 2^-300."""
        found = self._left.get(id(self._whole(array)))
        return WHOLE if found is None else found[1]

    def assumed(self, array: NDArray[Any]) -> int:
        """Return how much both parties take to be left."""
        return _ASSUMED if self._assume else self.left(array)

    def choose(
        self,
        array: NDArray[Any],
        layout: Layout,
        halves: Callable[[], Layout],
        bound: int,
        *,
        lasting: bool,
        count: int = 1,
    ) -> Chosen | None:
        """Return how a product is made, None if no way is left.

        Parameters
        ----------
        array : array
            Of which the mixer's operand is a view.
        layout : Layout
        halves : callable
            Returns the layout for twice as many of the mixer's numbers.
        bound : int
            Of the mixer's numbers.
        lasting : bool
            Whether the array is an input.
        count : int
            How many such products are made at once.
        """
        bound, left = min(bound, WORD_BOUND), self.assumed(array)
        most = WHOLE >> (_LASTING_PART if lasting else _PART)
        if self._assume:
            most = _ASSUMED >> _LASTING_PART
        ways: list[Chosen] = []
        for one in _ways(layout, halves, bound):
            way = replace(one, shown=count * one.shown)
            ways.append(way)
            stays = 0 if self._assume else WHOLE >> len(ways)
            if way.shown <= most and left - way.shown >= stays:
                return way
        return next((way for way in ways if way.shown <= left), None)

    def spend(self, array: NDArray[Any], shown: int) -> None:
        """Count what a product shows of an array, before it is made.

        Raises
        ------
        SessionError
            If that is more than is left. Nothing is counted then.
        """
        left = self.left(array)
        if shown > left:
            raise SessionError(
                "an array was multiplied so often that another product would show more than 2^-40 of it"
                " to the other party: share it anew"
            )
        whole = self._whole(array)
        key = id(whole)
        found = self._left.get(key)
        reference = weakref.ref(whole, self._forgetting(key)) if found is None else found[0]
        self._left[key] = (reference, left - shown)

    def _forgetting(self, key: int) -> Callable[[object], None]:
        counts = self._left

        def forget(_: object) -> None:
            counts.pop(key, None)

        return forget

    def kept(self, key: Hashable, size: int, make: Callable[[], Kept]) -> Kept:
        """Return an encrypted input, by its key; make it if it is not kept.

        `size` is how many bytes it takes. Both parties forget alike: the order is that of the program.
        """
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = (make(), size)
            total = sum(taken for _, taken in self._kept.values())
            while total > self._limit and len(self._kept) > 1:
                _, (_, taken) = self._kept.popitem(last=False)
                total -= taken
        self._kept.move_to_end(key)
        return found[0]

    def forget(self) -> None:
        """After a call that failed: forget encrypted inputs, whose keys are no longer the parties'.

        One of the parties may have counted a product that the other has not. From now on both choose as if
        a 2^-12th were left of every array, however much it is. What is counted still holds.
        """
        self._kept.clear()
        self._assume = True
