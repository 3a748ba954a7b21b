"""Arrays of a session that many products are of, such as a model's weights: named alike at both parties.

An input has the id under which it was shared, a positive number. Any other array has a negative one, in the
order in which plans ask for them. Nothing here keeps an array alive.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpc.core.known import OwnerInput
from mpc.core.secret_value import SecretValue

__all__ = ["Constants", "whole"]

Words = NDArray[np.uint64]


def whole(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array that this one is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Constants:
    """The arrays that plans were given."""

    def __init__(self) -> None:
        self._inputs: weakref.WeakValueDictionary[int, OwnerInput] = weakref.WeakValueDictionary()
        # By id of the array, as long as it lives; a plan's arrays, too.
        self._numbers: dict[int, tuple[weakref.ref[Words], int]] = {}
        self._arrays: dict[int, weakref.ref[Words]] = {}
        self._last = 0

    def add(self, x: SecretValue, twin: SecretValue) -> None:
        """Note an array of the session, and its twin in a plan."""
        if x.plaintext is not None:
            self._inputs[x.plaintext.base.id] = x.plaintext.base
            return
        array = whole(x.shares)
        if x.shares.size != array.size or not x.shares.flags.c_contiguous:
            return
        number = self.number(array)
        if number is None:
            self._last = number = self._last - 1
            known = self._arrays
            self._arrays[number] = weakref.ref(array, lambda _: known.pop(number, None))
            self._note(array, number)
        self._note(whole(twin.shares), number)

    def _note(self, array: Words, number: int) -> None:
        key, numbers = id(array), self._numbers
        numbers[key] = weakref.ref(array, lambda _: numbers.pop(key, None)), number

    def number(self, array: Words) -> int | None:
        """Return the number of the array of shares that this one is, or has the elements of."""
        found = self._numbers.get(id(whole(array)))
        if found is None or array.size != whole(array).size or not array.flags.c_contiguous:
            return None
        return found[1]

    def input(self, id: int) -> OwnerInput | None:
        """Return an input."""
        return self._inputs.get(id)

    def array(self, number: int) -> Words | None:
        """Return an array of shares."""
        found = self._arrays.get(number)
        return None if found is None else found()
