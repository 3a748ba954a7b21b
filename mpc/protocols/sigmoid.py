"""Sigmoid and tanh of a secret, by pieces.

Twenty thresholds, the same for all formats, and cubic pieces between them; outside of them the functions
are constant, for the sigmoid beyond 11.75. Steps and cost: :mod:`mpc.protocols.piecewise`, 6 rounds.

Error: the pieces are within 8e-6 of the sigmoid and 1.6e-5 of tanh on the whole line. With f fractional
bits rounding adds less than 4 * 2^-f, by the sum of what each step can lose and the truncation to f
bits at the end; all of it is less than 7e-5 and 7.8e-5 at f = 16. Measured over the whole range at
f = 16: at most 3.7e-5 and 3.2e-5.

Source: the coefficients are minimax fits, by linear programming over 401 Chebyshev points a piece.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.secret_value import Secret
from mpc.protocols import piecewise
from mpc.protocols.piecewise import ONE, Pieces

__all__ = ["ERROR_BOUNDS", "by_pieces", "cost", "error_bound", "sigmoid", "tanh"]

# The sigmoid for y > 0: the thresholds in sixteenths, then a_0 to a_3 of the piece around zero and
# of the pieces between the thresholds. The rest follows from sigmoid(-y) = 1 - sigmoid(y).
SIXTEENTHS = (9, 18, 28, 43, 60, 78, 100, 132, 156, 188)
_PIECES = (
    (2147483648, 1073473946, 0, -86055170),
    (3003257197, 903221558, -178176830, -39406455),
    (3470604772, 666146175, -203776238, 7092351),
    (3873714984, 379982826, -152512016, 28982241),
    (4129789456, 158853981, -74264440, 20623928),
    (4238199781, 56026042, -27887738, 8747551),
    (4278559566, 16349540, -8427796, 2751372),
    (4291935605, 3032969, -1650206, 543760),
    (4294439114, 568000, -280710, 0),
    (4294876200, 104092, -51025, 0),
)
THRESHOLDS = 2 * len(SIXTEENTHS)

# Name: largest distance of the pieces to the function, and of the result to the pieces in 2^-f.
ERROR_BOUNDS = {"sigmoid": (8e-6, 4.0), "tanh": (1.6e-5, 4.0)}


@lru_cache(maxsize=1)
def sigmoid_pieces() -> Pieces:
    """Return the pieces of the sigmoid on the whole line."""
    ends = [ONE // 16 * sixteenths for sixteenths in SIXTEENTHS]
    right = []
    for low, high, piece in zip(ends, ends[1:], _PIECES[1:], strict=False):
        right.append(((low + high) // 2, *piece))
    right.append((0, ONE, 0, 0, 0))
    left = [(-m, ONE - a0, a1, -a2, a3) for m, a0, a1, a2, a3 in reversed(right)]
    thresholds = [-end for end in reversed(ends)] + ends
    rows = [(*row, 0) for row in (*left, (0, *_PIECES[0]), *right)]
    return Pieces("sigmoid", tuple(thresholds), tuple(rows), *ERROR_BOUNDS["sigmoid"])


@lru_cache(maxsize=1)
def tanh_pieces() -> Pieces:
    """Return the pieces of tanh(y) = 2 sigmoid(2 y) - 1."""
    half = sigmoid_pieces()
    rows = [
        (m // 2, 2 * a0 - ONE, 4 * a1, 8 * a2, 16 * a3, 0) for m, a0, a1, a2, a3, _ in half.rows
    ]
    thresholds = tuple(t // 2 for t in half.thresholds)
    return Pieces("tanh", thresholds, tuple(rows), *ERROR_BOUNDS["tanh"])


def _pieces(name: str) -> Pieces:
    return sigmoid_pieces() if name == "sigmoid" else tanh_pieces()


def error_bound(name: str, frac_bits: int) -> float:
    """Return how far a result may lie from ``name``, "sigmoid" or "tanh", at its exact input."""
    return _pieces(name).error_bound(frac_bits)


def by_pieces(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the pieces of ``name``, "sigmoid" or "tanh", give for numbers in the clear.

    Examples
    --------
    >>> import numpy as np
    >>> from mpc.protocols.sigmoid import by_pieces
    >>> by_pieces("tanh", np.array([-20.0, 0.0])).tolist()
    [-1.0, 0.0]
    """
    return _pieces(name)(x)


def cost(
    parties: int,
    size: int,
    shift: int,
    window: int,
    frac_bits: int = 16,
    thresholds: int = THRESHOLDS,
) -> Spent:
    """Declare the cost for `size` elements that lose `shift` bits and then have `frac_bits`."""
    return piecewise.cost(parties, size, shift, window, frac_bits, thresholds, False)


def sigmoid(x: Secret) -> Secret:
    """Return 1 / (1 + exp(-x)), with twice the session's fractional bits."""
    return piecewise.evaluate(x, sigmoid_pieces())


def tanh(x: Secret) -> Secret:
    """Return tanh(x), with twice the session's fractional bits."""
    return piecewise.evaluate(x, tanh_pieces())
