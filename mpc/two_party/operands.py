"""What two parties remember of the operands of their products by ring-LWE.

- How often a mixer's operand was answered from: what its keeper sees of it adds up
  (:class:`mpc.two_party.rlwe_answers.Life`). An array counts as one operand with all its views.
- Encrypted inputs, such as a model's weights, which serve every product with few rows.
"""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.two_party.rlwe_answers import Life
from mpc.two_party.rlwe_parameters import PARAMETERS, Parameters
from mpc.two_party.rlwe_products import WORD_BOUND, Product
from mpc.two_party.rlwe_protocol import Kept

__all__ = ["Operands", "product_for"]

# How many products from one operand the parameters are chosen for: of an input, and of any other array,
# which is new in most products.
INPUT_PRODUCTS = 1 << 16
MOST_LIFE = 1 << 48


def product_for(layout: Any, bound: int, products: int = 1) -> Product:
    """Return a product with the cheapest parameters, and the longest life of an operand they allow.

    Parameters
    ----------
    layout : Layout
    bound : int
        Of the mixer's numbers.
    products : int
        How many products the operand's life should have.
    """
    bound = min(bound, WORD_BOUND)
    total = bound * layout.used
    answered = layout.kept_groups * layout.mixed_groups * len(layout.places)
    parameters = _choose(total, answered, products)
    life = answered
    while 2 * life <= MOST_LIFE and parameters.allows(total, 2 * life):
        life *= 2
    return Product(layout, parameters, bound, life)


def _choose(total: int, answered: int, products: int) -> Parameters:
    for count in (products, 1):
        for parameters in PARAMETERS:
            if parameters.allows(total, count * answered):
                return parameters
    return PARAMETERS[-1]  # which Product refuses, with its reason


class Operands:
    """What two parties remember of operands.

    Parameters
    ----------
    memory_limit : int
        Bytes that encrypted inputs may take; those used longest ago are forgotten.
    """

    def __init__(self, memory_limit: int = 1 << 28) -> None:
        self._lives: dict[Hashable, tuple[weakref.ref[NDArray[Any]], Life]] = {}
        self._kept: OrderedDict[Hashable, tuple[Kept, int]] = OrderedDict()
        self._limit = memory_limit

    def life(self, array: NDArray[Any], product: Any) -> Life:
        """Return the count of answers from an array, in products like this one."""
        while isinstance(array.base, np.ndarray):
            array = array.base
        key = (id(array), product)
        found = self._lives.get(key)
        if found is None:
            reference = weakref.ref(array, lambda _: self._lives.pop(key, None))
            found = self._lives[key] = (reference, product.fresh_life())
        return found[1]

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
        """Forget encrypted inputs, whose keys are no longer the parties'."""
        self._kept.clear()
