"""What two parties remember of the operands of their products by ring-LWE.

**What is shown of an operand.** Each answer shows its keeper a little of the mixer's operand
(:mod:`mpc.two_party.rlwe_parameters`): all answers from one array together may show 2^-40 in statistical
distance. So what an array has left is counted. Views of it, copies of its elements and what is computed of
it with public numbers alone share its count (:meth:`Operands.follow`); what several arrays are joined to
counts as each of them. Sums of two secret arrays count anew, and so does what a protocol returns.
A product can be made with each of the parameters, and also by halves: the words of the mixer's operand as
two numbers of 32 bits, answered for apart, which show 2^32 times less, for twice the answers. The cheapest
of these ways that shows at most a 2^-16th of all there is (of arrays that are no inputs, and new in most
products, a quarter) is taken while half of it is left, the next one while a quarter is left, and so on. So
weights serve millions of products in the cheapest way, and then as many more as anybody will ask for.
Both parties count alike. Only after a call that failed at one of them they may not: see
:meth:`Operands.forget`.

**What is encrypted once**: inputs, such as a model's weights, which serve every product with few rows.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import SessionError
from mpc.two_party.constants import whole
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_layouts import Layout
from mpc.two_party.rlwe_parameters import DISTANCE_BITS, PARAMETERS, Parameters
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import Kept, Keys
from mpc.two_party.rlwe_slots import SlotProduct

__all__ = [
    "HALF_BOUND", "LIMIT", "Chosen", "Operands", "frozen", "join_halves", "product_for", "shown_by_slots",
    "split_halves",
]  # fmt: skip

Words = NDArray[np.uint64]

# How many products from one operand the parameters are chosen for: of an input, and of any other array,
# which is new in most products.
INPUT_PRODUCTS = 1 << 16
MOST_LIFE = 1 << 48
# By how much all answers together may show an operand.
LIMIT = Fraction(1, 1 << DISTANCE_BITS)
# What is assumed to be left of every operand once the parties may have counted differently.
_ASSUMED = LIMIT / 2**12
# Which part of the limit a product may take: from an input, and from any other array.
_LASTING_PART, _PART = 2**16, 4

_HALF_BITS = 32
HALF_BOUND = 1 << (_HALF_BITS - 1)


def product_for(
    layout: Any, bound: int, products: int = 1, room: Fraction = LIMIT
) -> Product | None:
    """Return a product with the cheapest parameters, and the longest life of an operand they allow.

    Parameters
    ----------
    layout : Layout
    bound : int
        Of the mixer's numbers.
    products : int
        How many products the operand's life should have.
    room : Fraction
        By how much this product may show the operand. If no parameters show so little, None.
    """
    bound = min(bound, WORD_BOUND)
    total = bound * layout.used
    answered = layout.kept_groups * layout.mixed_groups * len(layout.places)
    parameters = _choose(total, answered, products, room)
    if parameters is None:
        return None
    life = answered
    while 2 * life <= MOST_LIFE and parameters.allows(total, 2 * life):
        life *= 2
    return Product(layout, parameters, bound, life)


def _choose(total: int, answered: int, products: int, room: Fraction) -> Parameters | None:
    for count in (products, 1):
        for parameters in PARAMETERS:
            if parameters.distance(total, answered) <= min(room, LIMIT / count):
                return parameters
    return None


@dataclass(frozen=True)
class Chosen:
    """How a product is made.

    Attributes
    ----------
    product : Product
    halves : bool
        Whether the mixer's operand is split, see :func:`split_halves`.
    shown : Fraction
        By how much it shows the mixer's operand; all of them, if several are made.
    """

    product: Product
    halves: bool
    shown: Fraction


@lru_cache(1 << 8)
def _products(layout: Layout, bound: int) -> tuple[tuple[Product, Fraction], ...]:
    """Return the product with all parameters that allow it, and what it shows with them."""
    total = bound * layout.used
    answered = layout.kept_groups * layout.mixed_groups * len(layout.places)
    return tuple(
        (Product(layout, p, bound, answered), p.distance(total, answered))
        for p in PARAMETERS
        if p.allows(total, answered)
    )


@lru_cache(1 << 8)
def shown_by_slots(size: int) -> Fraction:
    """Return by how much an elementwise product shows the mixer's operand."""
    return SlotProduct(size).distance


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
    if bound > HALF_BOUND:
        for product, shown in _products(halves(), HALF_BOUND):
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


class _Count:
    """By how much something was shown. Arrays that show the same have the same count."""

    __slots__ = ("shown",)

    def __init__(self) -> None:
        self.shown = Fraction(0)


class Operands:
    """What two parties remember of operands.

    Parameters
    ----------
    memory_limit : int
        Bytes that encrypted inputs may take; those used longest ago are forgotten.
    """

    def __init__(self, memory_limit: int = 1 << 28) -> None:
        # What counts by how much an array was shown, by its id as long as it lives.
        self._shown: dict[int, tuple[weakref.ref[NDArray[Any]], tuple[_Count, ...]]] = {}
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self._limit, self._assume = memory_limit, False

    def _known(self, array: NDArray[Any]) -> tuple[_Count, ...] | None:
        found = self._shown.get(id(array))
        # An id may be that of an array which is gone.
        return None if found is None or found[0]() is not array else found[1]

    def _counts(self, array: NDArray[Any]) -> tuple[_Count, ...]:
        """Return what counts an array, from now on if nothing did."""
        return self._known(array) or self._note(array, (_Count(),))

    def _note(self, array: NDArray[Any], counts: tuple[_Count, ...]) -> tuple[_Count, ...]:
        key, shown = id(array), self._shown

        def forget(gone: object) -> None:
            # By then another array may have the id.
            if key in shown and shown[key][0] is gone:
                del shown[key]

        shown[key] = weakref.ref(array, forget), counts
        return counts

    def follow(self, array: NDArray[Any], origins: Iterable[NDArray[Any]]) -> None:
        """Count a new array as those that its elements were copied or computed from."""
        array = whole(array)
        bases = [whole(origin) for origin in origins]
        if any(base is array for base in bases):
            return
        counts = [count for base in bases for count in self._counts(base)]
        self._note(array, tuple(dict.fromkeys(counts)))

    def room(self, array: NDArray[Any]) -> Fraction:
        """Return by how much more an array may be shown."""
        counts = self._known(whole(array)) or ()
        return LIMIT - max((count.shown for count in counts), default=Fraction(0))

    def assumed(self, array: NDArray[Any]) -> Fraction:
        """Return by how much more both parties take it that an array may be shown."""
        return _ASSUMED if self._assume else self.room(array)

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
        most = LIMIT / (_LASTING_PART if lasting else _PART)
        if self._assume:
            most = _ASSUMED / _LASTING_PART
        ways: list[Chosen] = []
        for one in _ways(layout, halves, bound):
            way = replace(one, shown=count * one.shown)
            ways.append(way)
            stays = 0 if self._assume else LIMIT / 2 ** len(ways)
            if way.shown <= most and left - way.shown >= stays:
                return way
        return next((way for way in ways if way.shown <= left), None)

    def spend(self, array: NDArray[Any], shown: Fraction) -> None:
        """Count what is shown of an array, before it is.

        Raises
        ------
        SessionError
            If with it the array would be shown by more than 2^-40. Nothing is counted then.
        """
        array, room = whole(array), self.room(array)
        if shown > room:
            raise SessionError(
                "an operand has been multiplied as often as it may be: what the other party sees of its"
                f" encryption would show it by more than 2^-{DISTANCE_BITS}; share or compute it anew"
            )
        for count in self._counts(array):
            count.shown += shown

    def life(self, array: NDArray[Any], product: Product | SlotProduct) -> Life:
        """Count the answers of one product from an array, before they are given; see :meth:`spend`."""
        self.spend(array, product.distance_of_one)
        return Life(product.answered)

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

    def count_like(self, other: Operands) -> None:
        """Keep the inputs that another keeps, without what it has: no party lives here (for plans)."""
        for key, (kept, size) in other._kept.items():
            keys = Keys(kept.keys.keeper, None, None)
            self._kept[key] = Kept(keys, None), size

    def forget(self) -> None:
        """After a call that failed: forget encrypted inputs, whose keys are no longer the parties'.

        One of the parties may have counted a product that the other has not. From now on both choose as if
        a 2^-12th were left of every array, however much it is. What is counted still holds.
        """
        self._kept.clear()
        self._assume = True
