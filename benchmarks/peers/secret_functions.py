"""Functions of secret numbers that are timed: what each library calls them, or why it has none.

One line each: inputs, the answer in NumPy, and the expression in Sotto, in JAX for SPU, and in CrypTen,
that its own user would write. Inputs are multiples of 2^-10, which every library's format holds exactly.
Workers import this module from its folder, so it needs nothing but NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEED = 20261128
STEP = 2.0**-10
EDGES = np.linspace(-8, 8, 9)
# The width of a row where a function goes along rows.
WIDTH = 100


class LacksError(Exception):
    """A library has no such function; says what is missing."""


@dataclass(frozen=True)
class Function:
    """A function, and how each library has it.

    Attributes
    ----------
    name, title : str
    numpy : callable
        The answer in float64.
    sotto, crypten : callable or str
        Takes the library's secret arrays; a sentence where it has nothing for it.
    jax : callable or str
        Takes jax.numpy, and arrays: for SPU.
    low, high : float
        Where the inputs are from.
    others : tuple of (float, float)
        The same of a second operand, where there is one.
    layout : {"vector", "rows", "square"}
        Of the inputs.
    different : bool
        Whether no two inputs are equal, so that an order has one answer; they may be out of the range.
    elements : int
        Of an operand, if no other number is asked for.
    """

    name: str
    title: str
    numpy: Callable[..., Any]
    sotto: Callable[..., Any] | str
    jax: Callable[..., Any] | str
    crypten: Callable[..., Any] | str
    low: float = -8.0
    high: float = 8.0
    others: tuple[tuple[float, float], ...] = ()
    layout: str = "vector"
    different: bool = False
    elements: int = 100_000

    def shape(self, elements: int) -> tuple[int, ...]:
        """Return the shape of an operand of about so many elements."""
        if self.layout == "rows":
            return max(1, elements // WIDTH), WIDTH
        if self.layout == "square":
            return isqrt(elements), isqrt(elements)
        return (elements,)

    def inputs(self, elements: int) -> tuple[Array, ...]:
        """Return the operands: the first is bob's, the second alice's."""
        rng = np.random.default_rng((SEED, elements))
        shape = self.shape(elements)
        if self.different:
            size = int(np.prod(shape))
            return ((rng.permutation(size) - size // 2).reshape(shape) * STEP,)
        ranges = ((self.low, self.high), *self.others)
        return tuple(
            rng.integers(round(low / STEP), round(high / STEP), shape, endpoint=True) * STEP
            for low, high in ranges
        )

    def bounds(self, elements: int) -> tuple[float, ...]:
        """Return the public bound of each operand, which Sotto is told: its costs depend on them."""
        if self.different:
            return (int(np.prod(self.shape(elements))) * STEP,)
        ranges = ((self.low, self.high), *self.others)
        return tuple(max(abs(low), abs(high)) for low, high in ranges)

    def of(self, library: str) -> Callable[..., Any]:
        """Return the expression of "sotto", "jax" or "crypten"; raise LacksError where there is none."""
        found: Callable[..., Any] | str = getattr(self, library)
        if isinstance(found, str):
            raise LacksError(found)
        return found


def _counts(x: Array) -> Array:
    return np.histogram(x, EDGES)[0].astype(np.float64)


def _jax_counts(jnp: Any, x: Any) -> Any:
    # jnp.histogram searches by secret indices; this compares alone.
    reached = (x[:, None] >= EDGES[:-1].astype(np.float32)).astype(np.int32).sum(0)
    above = (x > float(EDGES[-1])).astype(np.int32).sum()
    return reached - jnp.append(reached[1:], above)


def _crypten_counts(x: Any) -> Any:
    import crypten

    reached = [x.ge(float(edge)).sum() for edge in EDGES[:-1]] + [x.gt(float(EDGES[-1])).sum()]
    return crypten.stack([a - b for a, b in pairwise(reached)])


def _largest(jnp: Any, x: Any) -> Any:
    import jax

    return jax.lax.top_k(x, 10)[0]


NO_SORT = "it has no sorting"

FUNCTIONS = {
    function.name: function
    for function in (
        Function("divide", "x / y", np.divide, np.divide, lambda jnp, x, y: x / y,
                 lambda x, y: x / y, others=((0.25, 8.0),)),
        Function("reciprocal", "1 / x", np.reciprocal, np.reciprocal, lambda jnp, x: 1 / x,
                 lambda x: x.reciprocal(), low=0.25),
        Function("sqrt", "square root", np.sqrt, np.sqrt, lambda jnp, x: jnp.sqrt(x),
                 lambda x: x.sqrt(), low=0.0625, high=64),
        Function("exp", "exponential", np.exp, np.exp, lambda jnp, x: jnp.exp(x),
                 lambda x: x.exp(), high=4),
        Function("log", "logarithm", np.log, np.log, lambda jnp, x: jnp.log(x),
                 lambda x: x.log(), low=0.0625, high=64),
        Function("power", "x^0.3", lambda x: x**0.3, lambda x: x**0.3, lambda jnp, x: x**0.3,
                 lambda x: x.pos_pow(0.3), low=0.0625, high=64),
        Function("sigmoid", "sigmoid", lambda x: 1 / (1 + np.exp(-x)), lambda x: x.sigmoid(),
                 lambda jnp, x: 1 / (1 + jnp.exp(-x)), lambda x: x.sigmoid()),
        Function("tanh", "hyperbolic tangent", np.tanh, np.tanh, lambda jnp, x: jnp.tanh(x),
                 lambda x: x.tanh()),
        Function("erf", "error function", lambda x: _erf(x), lambda x: x.erf(),
                 lambda jnp, x: _jax_erf(x), lambda x: x.erf(), low=-1, high=1),
        Function("sin", "sine", np.sin, np.sin, lambda jnp, x: jnp.sin(x), lambda x: x.sin()),
        Function("cos", "cosine", np.cos, np.cos, lambda jnp, x: jnp.cos(x), lambda x: x.cos()),
        Function("less", "x < y", np.less, np.less, lambda jnp, x, y: x < y,
                 lambda x, y: x.lt(y), others=((-8.0, 8.0),)),
        Function("floor", "floor", np.floor, np.floor, lambda jnp, x: jnp.floor(x),
                 "it has no rounding of secrets"),
        Function("max", "largest of each 100", lambda x: x.max(1), lambda x: x.max(axis=1),
                 lambda jnp, x: x.max(1), lambda x: x.max(dim=1)[0], layout="rows"),
        Function("argmax", "place of the largest, one-hot", lambda x: np.eye(WIDTH)[x.argmax(1)],
                 lambda x: x.argmax(axis=1, one_hot=True),
                 lambda jnp, x: _jax_one_hot(jnp.argmax(x, 1)), lambda x: x.argmax(dim=1),
                 layout="rows", different=True),
        # CrypTen divides by n where it is told unbiased=True, and by n - 1 where it is not.
        Function("var", "variance of each 100", lambda x: x.var(1), lambda x: x.var(axis=1),
                 lambda jnp, x: x.var(1), lambda x: x.var(1, unbiased=True), layout="rows"),
        # CrypTen's root is right for squares that add up to less than 200 or so.
        Function("norm", "norm of each 100", lambda x: np.linalg.norm(x, axis=1),
                 lambda x: np.linalg.norm(x, axis=1), lambda jnp, x: jnp.linalg.norm(x, axis=1),
                 lambda x: x.norm(dim=1), layout="rows", low=-1, high=1),
        Function("cumsum", "cumulated sum of each 100", lambda x: x.cumsum(1),
                 lambda x: x.cumsum(axis=1), lambda jnp, x: x.cumsum(1), lambda x: x.cumsum(1),
                 layout="rows"),
        Function("matmul", "product of 256 x 256 matrices", np.matmul, np.matmul,
                 lambda jnp, x, y: x @ y, lambda x, y: x.matmul(y), low=-1, high=1,
                 others=((-1.0, 1.0),), layout="square", elements=256**2),
        Function("histogram", "histogram of 8 bins", _counts,
                 lambda x: np.histogram(x, EDGES)[0], _jax_counts, _crypten_counts),
        Function("sort", "sort", np.sort, np.sort, lambda jnp, x: jnp.sort(x), NO_SORT,
                 different=True, elements=10_000),
        Function("argsort", "argsort", np.argsort, np.argsort, lambda jnp, x: jnp.argsort(x), NO_SORT,
                 different=True, elements=10_000),
        Function("topk", "ten largest", lambda x: np.sort(x)[:-11:-1], lambda x: x.topk(10)[0],
                 _largest, NO_SORT, different=True, elements=10_000),
        Function("median", "median", np.median, np.median,
                 lambda jnp, x: _middle(jnp.sort(x)), NO_SORT, different=True, elements=10_000),
    )
}  # fmt: skip


def _middle(x: Any) -> Any:
    low, high = (len(x) - 1) // 2, len(x) // 2
    return (x[low] + x[high]) / 2


def _erf(x: Array) -> Array:
    from math import erf

    return np.vectorize(erf)(x)


def _jax_erf(x: Any) -> Any:
    import jax

    return jax.scipy.special.erf(x)


def _jax_one_hot(places: Any) -> Any:
    import jax

    return jax.nn.one_hot(places, WIDTH)
