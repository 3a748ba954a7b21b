"""What two parties remember of the operands of their products by ring-LWE.

- How much a mixer's operand was answered from: what its keeper sees of it adds up, over products of all
  sizes and parameters, and must stay below 2^-40 in all (:mod:`mpc.two_party.rlwe_parameters`). An array
  counts as one operand with all its views. Where the cheapest parameters would show too much, larger ones
  serve.
- Encrypted inputs, such as a model's weights, which serve every product with few rows.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import SessionError
from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_parameters import DISTANCE_BITS, PARAMETERS, Parameters
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import Kept, Keys
from mpc.two_party.rlwe_slots import SlotProduct

__all__ = ["Operands", "product_for"]

# How many products from one operand the parameters are chosen for: of an input, and of any other array,
# which is new in most products.
INPUT_PRODUCTS = 1 << 16
MOST_LIFE = 1 << 48
# By how much all answers together may show an operand.
LIMIT = Fraction(1, 1 << DISTANCE_BITS)


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


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array that this one is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Operands:
    """What two parties remember of operands.

    Parameters
    ----------
    memory_limit : int
        Bytes that encrypted inputs may take; those used longest ago are forgotten.
    """

    def __init__(self, memory_limit: int = 1 << 28) -> None:
        # By how much an array was shown, by its id as long as it lives.
        self._shown: dict[int, tuple[weakref.ref[NDArray[Any]], Fraction]] = {}
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self._limit = memory_limit

    def room(self, array: NDArray[Any]) -> Fraction:
        """Return by how much more an array may be shown."""
        found = self._shown.get(id(_whole(array)))
        return LIMIT if found is None else LIMIT - found[1]

    def life(self, array: NDArray[Any], product: Product | SlotProduct) -> Life:
        """Count the answers of one product from an array, before they are given.

        Raises
        ------
        SessionError
            If with them the array would be shown by more than 2^-40.
        """
        array, more = _whole(array), product.distance_of_one
        room = self.room(array)
        if more > room:
            raise SessionError(
                "an operand has been multiplied as often as it may be: what the other party sees of its"
                f" encryption would show it by more than 2^-{DISTANCE_BITS}; share or compute it anew"
            )
        key = id(array)
        reference = weakref.ref(array, lambda _: self._shown.pop(key, None))
        self._shown[key] = (reference, LIMIT - room + more)
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
        """Forget encrypted inputs, whose keys are no longer the parties'."""
        self._kept.clear()
