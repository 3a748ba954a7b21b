"""Sigmoid and tanh of a secret, by cubic pieces that comparisons choose.

The line is cut at K = 20 public thresholds t_k. Between two of them the function is a cubic in
d = y - m, m being the middle of the piece; outside of them it is constant.
1. c = open(z + 2^62 + r). From it follow the truncated value [y] and the bits <y < t_k> for all k: the
   tables dealt with r can be read at the public u - t_k for any number of thresholds, see
   :mod:`mpc.protocols.sign`. 3 rounds.
2. B2A of these bits to [b_k]: 1 round (:mod:`mpc.protocols.b2a`).
3. The middle and the coefficients of the piece that y lies in are sums over k of public differences
   times [b_k]: local. [d] = [y] - [m].
4. [d], [a_3] and [a_1] are masked; [d^2], [a_3 d] and [a_1 d] follow: 1 round.
5. d^2 and e = a_3 d + a_2 are truncated: 1 round.
6. The result is d^2 e + a_1 d + a_0, with twice the format's fractional bits: 1 round.
On the outer pieces a_1, a_2 and a_3 are zero, and so are e and its truncation, exactly, whatever
d and d^2 have become modulo 2^64. The bits are exact, so a value is never taken for a neighbour's
piece. A whole number is compared as it is, and shifted to f bits modulo 2^64 in step 3.
Right for every value that an array can hold, in every format with at least one fractional bit.
Thresholds beyond the bound of y are left out, and so are the pieces beyond them.
Cost at L = 36, K = 20: 7 rounds, about 127 (n - 1) bytes an element; correction about 424 bytes.
Values that need no truncation save 10 bytes of correction.

Error: the pieces are within 8e-6 of the sigmoid and 1.6e-5 of tanh on the whole line (constant, for
the sigmoid, beyond 11.75). With f fractional bits rounding adds less than 4 * 2^-f, by the sum of
what each step can lose and the truncation to f bits at the end; all of it is less than 7e-5 and
7.8e-5 at f = 16. Measured over the whole range at f = 16: at most 3.7e-5 and 3.2e-5.

Source: piecewise polynomials chosen by comparisons, as in SecureML (Mohassel, Zhang 2017, section
5.3) with two thresholds and ABY3 (Mohassel, Rindal 2018, section 5.2) with any; the one opening
for all thresholds follows from :mod:`mpc.protocols.sign`. The coefficients are minimax fits, by linear
programming over 401 Chebyshev points a piece.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.secret_value import Secret
from mpc.protocols import b2a, linear, product, sign, truncation
from mpc.protocols.masking import mask_ahead
from mpc.protocols.thresholds import choose

__all__ = ["ERROR_BOUNDS", "by_pieces", "cost", "error_bound", "sigmoid", "tanh"]

Words = NDArray[np.uint64]

# All constants below are integers in units of 2^-32, so that every machine rounds alike.
_UNIT_BITS = 32
_ONE = 1 << _UNIT_BITS
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


@dataclass(frozen=True)
class Pieces:
    """A function by pieces, in units of 2^-32.

    Attributes
    ----------
    thresholds : tuple of int
        Ascending.
    rows : tuple of (m, a_0, a_1, a_2, a_3)
        One row more than thresholds.
    """

    thresholds: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]


@lru_cache(maxsize=1)
def sigmoid_pieces() -> Pieces:
    """Return the pieces of the sigmoid on the whole line."""
    ends = [_ONE // 16 * sixteenths for sixteenths in SIXTEENTHS]
    right = []
    for low, high, piece in zip(ends, ends[1:], _PIECES[1:], strict=False):
        right.append(((low + high) // 2, *piece))
    right.append((0, _ONE, 0, 0, 0))
    left = [(-m, _ONE - a0, a1, -a2, a3) for m, a0, a1, a2, a3 in reversed(right)]
    thresholds = [-end for end in reversed(ends)] + ends
    return Pieces(tuple(thresholds), (*left, (0, *_PIECES[0]), *right))


@lru_cache(maxsize=1)
def tanh_pieces() -> Pieces:
    """Return the pieces of tanh(y) = 2 sigmoid(2 y) - 1."""
    half = sigmoid_pieces()
    rows = [(m // 2, 2 * a0 - _ONE, 4 * a1, 8 * a2, 16 * a3) for m, a0, a1, a2, a3 in half.rows]
    return Pieces(tuple(t // 2 for t in half.thresholds), tuple(rows))


def _scaled(value: int, frac_bits: int) -> int:
    """Return value / 2^32 with `frac_bits`, rounded half up."""
    shift = _UNIT_BITS - frac_bits
    return value << -shift if shift <= 0 else (value + (1 << shift - 1)) >> shift


@lru_cache(maxsize=64)
def _encoded(
    pieces: Pieces, frac_bits: int, up: int, bound: int
) -> tuple[tuple[int, ...], NDArray[np.int64]]:
    """Return thresholds and rows, of shape (5, pieces), for y up to `bound`.

    m, a_1 and a_3 have `frac_bits`; a_0 and a_2 are added to products and have twice as many. y and
    the thresholds have `up` bits fewer.
    """
    places = (frac_bits, 2 * frac_bits, frac_bits, 2 * frac_bits, frac_bits)
    rows = [
        [_scaled(value, bits) for value, bits in zip(row, places, strict=True)]
        for row in pieces.rows
    ]
    # A whole number is below t if it is below the next whole number from t on.
    whole = [-(-_scaled(t, frac_bits) >> up) for t in pieces.thresholds]
    half = len(whole) // 2
    count = max(1, sum(t <= bound for t in whole[half:]))
    kept = slice(half - count, half + count)
    return tuple(whole[kept]), np.array(rows[kept.start : kept.stop + 1], np.int64).T


def error_bound(name: str, frac_bits: int) -> float:
    """Return how far a result may lie from ``name``, "sigmoid" or "tanh", at its exact input."""
    pieces, rounding = ERROR_BOUNDS[name]
    return pieces + rounding * 2.0**-frac_bits


def by_pieces(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the pieces of ``name``, "sigmoid" or "tanh", give for numbers in the clear.

    Examples
    --------
    >>> import numpy as np
    >>> from mpc.protocols.sigmoid import by_pieces
    >>> by_pieces("tanh", np.array([-20.0, 0.0])).tolist()
    [-1.0, 0.0]
    """
    pieces = sigmoid_pieces() if name == "sigmoid" else tanh_pieces()
    places = np.searchsorted(np.array(pieces.thresholds) / _ONE, x, side="right")
    m, a0, a1, a2, a3 = (np.array(pieces.rows) / _ONE).T[:, places]
    d = x - m
    # On the outer pieces all coefficients but a_0 are zero.
    return np.asarray(a0 + np.where(a1 == 0, 0.0, d) * (a1 + d * (a2 + d * a3)))


def cost(
    parties: int,
    size: int,
    shift: int,
    nibbles: int,
    frac_bits: int = 16,
    thresholds: int = THRESHOLDS,
) -> Spent:
    """Declare the cost for `size` elements that lose `shift` bits and then have `frac_bits`."""
    return (
        sign.cost(parties, size, shift, nibbles, True, "truncation", thresholds)
        + b2a.cost(parties, thresholds, size)
        + product.cost(parties, 3 * size, 3 * size)
        + truncation.cost(parties, 2 * size, frac_bits)
        + product.cost(parties, 2 * size)
    )


def _by_pieces(x: Secret, name: str, pieces: Pieces) -> Secret:
    session = x.session
    frac_bits = session.format.frac_bits
    if not frac_bits:
        raise RangeError(f"{name} needs a format with fractional bits, got frac_bits = 0")
    shift, up = max(0, x.frac_bits - frac_bits), max(0, frac_bits - x.frac_bits)
    thresholds, rows = _encoded(pieces, frac_bits, up, -(-x.bound >> shift))

    bits, y = sign.signs_and_value(x, shift, thresholds)
    numbers = b2a.convert(session, bits, x.size)
    y = y << np.uint64(up)
    m, a0, a1, a2, a3 = choose(session, numbers, rows).transpose(1, 0, 2)

    def shared(shares: Words, bits: int, bound: int) -> Secret:
        return x.derive(shares, frac_bits=bits, bound=bound)

    # On all pieces but the outer ones, where d is anything and is multiplied by zero: |d| <= 1, and
    # no coefficient is larger; a little more for rounding m, y and the thresholds.
    one = 1 << frac_bits
    largest = one + 4
    factors = shared(np.stack([y - m, a3, a1], axis=1), frac_bits, largest)
    # The mask made by indexing a masked array is a view of it, so d is opened once.
    mask_ahead(factors)
    products = product.multiply(factors, factors[0])
    e = linear.add(products[1], shared(a2, 2 * frac_bits, one * one))
    pair = truncation.truncate(linear.stack([products[0], e]), frac_bits)
    pair = pair.with_integer_bound((largest * largest >> frac_bits) + 2)
    mask_ahead(pair)
    cubic = product.multiply(pair[0], pair[1])
    total = linear.add(linear.add(cubic, products[2]), shared(a0, 2 * frac_bits, one * one))
    result = total.view(("reshape", x.shape))
    return result.with_integer_bound(5 * one * one // 4 + 16 * one)


def sigmoid(x: Secret) -> Secret:
    """Return 1 / (1 + exp(-x)), with twice the session's fractional bits."""
    with x.session.protocol("sigmoid"):
        return _by_pieces(x, "sigmoid", sigmoid_pieces())


def tanh(x: Secret) -> Secret:
    """Return tanh(x), with twice the session's fractional bits."""
    with x.session.protocol("tanh"):
        return _by_pieces(x, "tanh", tanh_pieces())
