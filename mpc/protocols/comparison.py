"""Comparisons (<, <=, >, >=, ==, !=) of secret arrays; results are secret numbers 0 and 1.

1. d = x - y, with the same fractional bits: local.
2. <msb> of d, or <d = 0>: see :mod:`mpc.protocols.sign`, with s = 0. 2 rounds.
3. B2A, as in :mod:`mpc.protocols.b2a`: 1 round.
The four orders are the sign of x - y or of y - x, negated or not. Exact for every pair of values
below 2^62: their difference is below 2^63, a signed word, and step 2 takes up to all 64 bits.
Cost for fixed-point values with 31 bits and a sign: d has L = 33 bits: 3 rounds, about
9.4 (n - 1) bytes an element; correction about 50 bytes.

Source: see :mod:`mpc.protocols.sign`.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from mpc.core.cost import Spent
from mpc.core.known import MaskedBit, SecretBit, SharedBit
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import linear, sign
from mpc.protocols.b2a import to_number
from ring.bits import count_words

__all__ = [
    "add_words",
    "cost",
    "difference",
    "equal",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "negative_bit",
    "not_equal",
]


def cost(parties: int, size: int, window: int, signed: bool) -> Spent:
    """Declare the cost for `size` pairs."""
    delta = Spent(1, 8 * (parties - 1) * count_words(size), 0)
    return sign.cost(parties, size, 0, window, signed, "bit") + delta


def add_words(x: Secret, y: Secret | ArrayLike, bound: int) -> Secret:
    """x + y modulo 2^64, with a bound that the caller knows (for protocols).

    Operands may be any words, such as the difference of two values near 2^62.
    """
    half = LARGEST >> 1
    x = x.with_integer_bound(half)
    total = linear.add(x, y.with_integer_bound(half) if linear.is_shared(y) else y)
    words, cross_term = total.split_cross_term()
    return words.derive(words.shares, frac_bits=words.frac_bits, bound=bound, cross_term=cross_term)


def difference(x: Secret, y: Secret | ArrayLike, name: str = "-") -> Secret:
    """Return x - y to be compared with zero by :mod:`mpc.protocols.sign`, s = 0 (for protocols).

    Two values below 2^62 may differ by up to 2^63, more than other protocols take. Such a difference
    gets the bound LARGEST, for which the comparison takes all 64 bits.
    """
    minus = linear.minus(x, y)
    operands = [v for v in (x, minus) if linear.is_shared(v)]
    most = max(v.frac_bits for v in operands)
    if len(operands) == 1 and minus.dtype.kind == "f":
        most = max(most, x.session.format.frac_bits)
    reaches = [v.bound << most - v.frac_bits for v in operands]
    # A public operand is below 2^61. Operands that cannot be shifted to `most` bits are left to `add`.
    reach = sum(reaches) + (LARGEST >> 1) * (2 - len(operands))
    if reach <= LARGEST or max(reaches) > LARGEST + 1:
        return linear.add(x, minus, name)
    operands = [linear.at_bits(v, most, name) for v in operands]
    return add_words(operands[0], operands[1] if len(operands) == 2 else minus, LARGEST)


def _masked(d: SecretValue, order: bool) -> SecretBit:
    session = d.session
    with session.protocol("comparison"):
        if session.pair is not None:
            bits = sign.negative_bits(d) if order else sign.zero_bits(d)
            return SharedBit(bits, d.size, session.first_row)
        opened = sign.open_sign(d, 0, "bit") if order else sign.open_zero(d, "bit")
        assert opened.beta is not None and opened.ref is not None
        delta = session.open((opened.bit ^ opened.beta, "xor"))[0]
    return MaskedBit(opened.ref, opened.rings[:, 0], delta)


def negative_bit(d: SecretValue) -> SecretBit:
    """Return [d < 0] as a bit, without additive shares of it (for protocols)."""
    return _masked(d, True)


def _bit(d: Secret, order: bool, negate: bool) -> Secret:
    bit = _masked(d, order)
    return bit_array(d, bit.negate() if negate else bit)


def bit_array(like: Secret, bit: SecretBit) -> Secret:
    """Return a bit as an array of the shape of `like`."""
    with like.session.protocol("comparison"):
        shares = to_number(like.session, bit)
    return like.derive(shares.reshape(len(shares), *like.shape), frac_bits=0, bound=1, bit=bit)


def less(x: Secret, y: Secret | ArrayLike) -> Secret:
    """x < y."""
    return _bit(difference(x, y, "<"), True, False)


def greater(x: Secret, y: Secret | ArrayLike) -> Secret:
    """x > y."""
    return _bit(linear.negative(difference(x, y, ">")), True, False)


def less_equal(x: Secret, y: Secret | ArrayLike) -> Secret:
    """x <= y."""
    return _bit(linear.negative(difference(x, y, "<=")), True, True)


def greater_equal(x: Secret, y: Secret | ArrayLike) -> Secret:
    """x >= y."""
    return _bit(difference(x, y, ">="), True, True)


def equal(x: Secret, y: Secret | ArrayLike) -> Secret:
    """x == y."""
    return _bit(difference(x, y, "=="), False, False)


def not_equal(x: Secret, y: Secret | ArrayLike) -> Secret:
    """x != y."""
    return _bit(difference(x, y, "!="), False, True)
