"""x / y for two secrets.

Y is the encoded value of y, v = c Y in [1, 2) with c as in :mod:`mpc.protocols.normalised`.
1. The bits <Y < t_k> from one opening, and numbers [b_k]: 3 rounds. c, m and a_0 to a_3 of the piece of
   1 / v follow: six pieces between two powers of two, negative Y having pieces of their own.
2. [c], [X] and [Y] are masked; n = c X and d = c Y - m follow: 1 round.
3. p = 1 / v by the cubic: 2 rounds, as in :mod:`mpc.protocols.normalised`.
4. The result is the product of n and p, truncated: 1 round (:mod:`mpc.protocols.truncated_product`).
The result has 22 fractional bits more than n; n has the format's and 4 more, or fewer in large formats.
Domain: y not 0, and |c X| within the format's limit and below 2^62, which holds if |x / y| is below half
of the limit, and implies that x / y is below the limit. Where f + i exceeds 31, 2^62 is the smaller limit.
With ranges="check" and "error" both are checked on shares: one bit is opened for all. |c X| is within a
limit if and only if |X| is within t, the limit divided by the power of two |c| and rounded down. t is
chosen by the [b_k] as well, and that no X - t is positive, and no X + t negative, is found as in
:mod:`mpc.protocols.range_check` while steps 2 to 4 are carried out, beside the number of zeros. Where
bounds do not show that c X is in range, "error" refuses it.
Formats with f + i above 38, which leave n fewer bits than the format's, are refused.
Cost for Y of L bits: 7 rounds, 8 with the check on shares; K = 12 L - 10 thresholds.

Error: 2^-18.5 of the result, and 1.1 units of the format, up to 2 where f + i exceeds 34. x and y with more
fractional bits than the format's are truncated first.

Source: as of :mod:`mpc.protocols.normalised`; the order of the products is Goldschmidt's, 1964.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from mpc.core.errors import RangeError
from mpc.core.ranges import LARGEST
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import (
    b2a,
    linear,
    piecewise,
    product,
    range_check,
    sign,
    truncated_product,
    truncation,
)
from mpc.protocols.fits import Curve, Plan, plan_of
from mpc.protocols.masking import mask_ahead
from mpc.protocols.normalised import cut_to, slices
from mpc.protocols.thresholds import choose
from ring.fixed_point import FixedPoint

__all__ = ["divide", "error_bound"]

Words = NDArray[np.uint64]

_INVERSE = Curve("/", "inverse", -1.0, both=True)
# Fractional bits of p.
_P_BITS = 22
_P_FORM = FixedPoint(_P_BITS, 1)
_GUARD_BITS = 4


def _n_bits(x: SecretValue, y: SecretValue, plan: Plan) -> tuple[int, int]:
    """Return the fractional bits of n before it is truncated, and after."""
    form = x.session.format
    before = plan.v_bits + x.frac_bits - y.frac_bits
    return before, min(before, form.frac_bits + _GUARD_BITS, 60 - _P_BITS - form.int_bits)


def error_bound(x: SecretValue, y: SecretValue) -> tuple[float, float]:
    """Return the absolute error, and the error relative to the result, that x / y may have."""
    plan = plan_of(_INVERSE, 0, _P_FORM, y.bound)
    before, after = _n_bits(x, y, plan)
    absolute = 2.0**-x.session.format.frac_bits + (2.0**-after if before > after else 0.0)
    return absolute, plan.relative + plan.absolute * 2.0 ** (1 - _P_BITS)


def divide(x: Secret, y: Secret) -> Secret:
    """Return x / y.

    Raises
    ------
    RangeError
        If a value is outside of the domain, see the session's `ranges`; or the bounds, or the format's
        bits, are too many.
    """
    session, form = x.session, x.session.format
    if not form.frac_bits:
        raise RangeError("/ needs a format with fractional bits, got frac_bits = 0")
    shape = linear.broadcast("/", x.shape, y.shape)
    with session.protocol("quotient"):
        x, y = truncation.to_format(x), truncation.to_format(y)
        plan = plan_of(_INVERSE, 0, _P_FORM, y.bound)
        before, after = _n_bits(x, y, plan)
        if before < 0:
            x = linear.at_bits(x, x.frac_bits - before, "/")
            before = after = 0
        if after < min(before, form.frac_bits):
            raise RangeError(
                f"/ needs a format with at most {60 - _P_BITS} bits in all, got frac_bits ="
                f" {form.frac_bits} and int_bits = {form.int_bits}"
            )
        session.range_policy.foresee("/", x.bound << plan.v_bits, before)
        limit = min((1 << form.int_bits + before) - 1, LARGEST)
        most = min(2.0**form.int_bits, limit * 2.0**-before) / 2
        domain = f"y not 0 and |x / y| below {most:g}"

        def inside(xs: NDArray[np.int64], ys: NDArray[np.int64]) -> NDArray[np.bool_]:
            octave = np.frexp(ys.astype(np.float64))[1] - 1
            scaled = np.ldexp(np.abs(xs).astype(np.float64), plan.v_bits - octave)
            return np.asarray((ys != 0) & (scaled <= limit))

        check = session.range_policy.settle_domain((x, y), inside, "/", domain)
        alike = x.shape == y.shape
        parts = slices(session, y.size, len(plan.thresholds)) if alike else []
        if len(parts) > 1:
            left, right = (z.view(("reshape", (y.size,))) for z in (x, y))
            pairs = [(left[part], right[part]) for part in parts]
        else:
            pairs = [(x, y)]
        zeros = np.zeros(len(session.here), np.uint64)
        claims: list[range_check.Claim] = []
        results: list[Secret] = []
        for a, b in pairs:
            chosen, words, numbers = _begun(b, plan)
            if check:
                zeros += choose(session, numbers, plan.outside).sum(axis=(1, 2), dtype=np.uint64)
                claims += _claims(a, b, choose(session, numbers, _limits(plan, limit))[:, 0])
            if check and len(results) == len(pairs) - 1:
                failed = y.derive(zeros, frac_bits=0, bound=y.size)
                steps = range_check.verdict_steps(*claims, failed=failed)
                with session.beside(steps) as inside_:
                    results.append(_ended(a, b, words, chosen, plan, before - after))
                if not inside_.value:
                    raise RangeError(f"/: a quotient is not in the domain, {domain}")
            else:
                results.append(_ended(a, b, words, chosen, plan, before - after))
        whole = results[0] if len(results) == 1 else linear.concatenate(results)
        whole = whole.view(("reshape", shape))
        return linear.placed(whole, after + _P_BITS, 1 << form.int_bits + after + _P_BITS)


def _begun(y: Secret, plan: Plan) -> tuple[Words, Words, Words]:
    """Step 1: c, m and a_0 to a_3, (6, p, size); shares of Y, (p, size); and the [b_k]."""
    session = y.session
    bits, words = sign.signs_and_value(y, 0, plan.thresholds)
    numbers = b2a.convert(session, bits, y.size)
    return choose(session, numbers, plan.rows).transpose(1, 0, 2), words, numbers


def _limits(plan: Plan, limit: int) -> NDArray[np.int64]:
    """Return the largest |X| of which c X is within `limit`, for the c of each piece."""
    return np.array([[limit // max(1, abs(int(c))) for c in plan.rows[0]]], np.int64)


def _claims(x: Secret, y: Secret, limits: Words) -> list[range_check.Claim]:
    """Claim that |X| is within limits t, of which shares are given, one for each element of y.

    With M = 2^62 - 1 the words t - X - M and t + X - M do not exceed M, and are -M at least if it holds.
    """
    shape = linear.broadcast("/", x.shape, y.shape)
    rows, size = len(limits), prod(shape)
    words = np.empty((rows, 2, *shape), np.uint64)
    t = linear.widen(limits.reshape(rows, *y.shape), len(shape))
    left = linear.widen(x.shares, len(shape))
    words[:, 0], words[:, 1] = t - left, t + left
    if x.session.first_row is not None:
        words[x.session.first_row] -= np.uint64(LARGEST)
    most = np.full(2 * size, LARGEST, np.uint64)
    return [range_check.Claim(x, words.reshape(rows, 2 * size), most)]


def _ended(x: Secret, y: Secret, words: Words, chosen: Words, plan: Plan, cut: int) -> Secret:
    """Steps 2 to 4."""
    session = x.session
    c_, m, *a = chosen
    # The bounds of the products are what counts.
    c = y.derive(c_.reshape(len(c_), *y.shape), frac_bits=0, bound=1 << plan.v_bits)
    left = y.derive(words.reshape(len(words), *y.shape), frac_bits=plan.v_bits, bound=1)
    mask_ahead(c, x, left)
    # The domain, which is settled even where others vouch for products, says that n is in range.
    with session.range_policy.vouched():
        n = product.multiply(x, c, whole=True)
    v = product.multiply(left, c, whole=True)
    d = cut_to(v, plan).shares.reshape(m.shape)
    a0, a1, a2, a3 = a
    p, _ = piecewise.cubic(y, d - m, (a0, a1, a2, a3), plan.d_bits, plan.sizes, at_once=True)
    p = p.view(("reshape", y.shape))
    if p.shape != n.shape:
        words = linear.widen(p.shares, len(n.shape))
        words = np.broadcast_to(words, (len(words), *n.shape)).copy()
        p = p.derive(words, frac_bits=p.frac_bits, bound=p.bound)
    # In range by the domain.
    wide = linear.rescale(n, 1 if cut else 2, max(cut, 1), LARGEST)
    return truncated_product.multiply(wide, max(cut, 1), p, plan.d_bits, LARGEST)
