"""x^p, sqrt x, log x and exp x, by pieces that one opening chooses.

X is the encoded value. The line is cut at K thresholds, several between powers of two; on each piece the
function is a cubic in d = c X - m, c = 2^(Q - j) being the power of two that brings X to [2^Q, 2^(Q + 1)).
Pieces, coefficients and K depend on the format and on the bound of x: :mod:`mpc.protocols.fits`.
1. From one opening the bits <X < t_k> for all k, then numbers [b_k], as in
   :mod:`mpc.protocols.piecewise`: 3 rounds. c, m, a_0 to a_3 follow, with the factor that the scale of X
   gives the result in all coefficients.
2. [c] and [X] are masked, and multiplied: 1 round. Not for exp, of which no piece is wider than 2 and c is
   public. Where Q exceeds 30, d is truncated to at most 30 fractional bits: 1 round.
3. The cubic, with the bits of the format and those of d behind the point: 2 rounds, its truncations and
   the last product being one (:mod:`mpc.protocols.truncated_product`).
4. Whether a value is outside of the domain is known to the pieces. With ranges="check" and "error", the
   number of such values is compared with zero, and that bit is opened, in the rounds of steps 2 and 3. With
   "values" the values themselves are looked at, before.
5. exp of x within a bound up to 170 has no pieces: it follows from one opening, see
   :mod:`mpc.protocols.bounded`, beside which the domain is checked.
Domain: every x with a result in the format. For negative p, x > 2^(-i / |p|), i being the format's integer
bits; for positive p, 0 <= x < 2^(i / p); for log x > 0; for exp x < i log 2. 1 / x, of negative x, too:
:mod:`mpc.protocols.quotient`.
Many elements are evaluated one part after another, as the session's memory limit says.
Cost in the default format, for x up to its largest value: 6 rounds, 5 for exp. K is 73 for sqrt, 104
for log, 59 for exp; a smaller bound of x takes fewer. An element and threshold take less than 2 (n - 1)
bytes, and 14 bytes of correction.

Error: 2^-19 of the result and 2.1 units of the format in the default format; for exp 2^-18.5 and 3.5 units.
In every format :func:`error_bound`, tested over the domain. For x with more fractional bits than
the format's, which are truncated with X, what that changes comes on top.

Source: normalisation by the highest bit as in Catrina, Saxena 2010, section 3.4, and Aly, Smart 2019,
section 3, here by the thresholds of the pieces themselves. Interpolation: :mod:`mpc.protocols.fits`.
"""

from __future__ import annotations

from math import ceil, exp, log

import numpy as np
from numpy.typing import NDArray

from mpc.core.cost import Spent
from mpc.core.errors import RangeError
from mpc.core.runtime import Runtime, Steps
from mpc.core.secret_value import Secret, SecretValue
from mpc.protocols import (
    b2a,
    bounded,
    linear,
    piecewise,
    product,
    range_check,
    sign,
    truncated_product,
    truncation,
)
from mpc.protocols.fits import Curve, Plan, plan_of
from mpc.protocols.thresholds import choose

__all__ = ["EXP", "LOG", "cost", "error_bound", "evaluate", "power", "slices"]

Words = NDArray[np.uint64]

LOG, EXP = Curve("log", "log"), Curve("exp", "exp")
# Words that an element takes at once for each threshold and party: bits, masks, numbers, coefficients.
_WORDS_EACH = 6


def power(exponent: float) -> Curve:
    """Return x^p."""
    return Curve("sqrt" if exponent == 0.5 else "power", "power", float(exponent))


def _plan(x: SecretValue, curve: Curve) -> tuple[int, Plan]:
    """Return s, by how much x is truncated, and the plan for the rest."""
    form = x.session.format
    if not form.frac_bits:
        raise RangeError(f"{curve.name} needs a format with fractional bits, got frac_bits = 0")
    shift = max(0, x.frac_bits - form.frac_bits)
    place = min(x.frac_bits, form.frac_bits)
    return shift, plan_of(curve, place, form, -(-x.bound >> shift))


def error_bound(x: SecretValue, curve: Curve) -> tuple[float, float]:
    """Return the absolute error, and the error relative to the result, that results may have."""
    plan = _plan(x, curve)[1]
    return plan.absolute * 2.0**-x.session.format.frac_bits, plan.relative


def cost(parties: int, size: int, shift: int, window: int, plan: Plan, normalises: bool) -> Spent:
    """Declare the cost for `size` elements that lose `shift` bits, without the check of the domain."""
    count = len(plan.thresholds)
    total = sign.cost(parties, size, shift, window, True, "truncation", count)
    total += b2a.cost(parties, count, size)
    if normalises:
        cut = plan.v_bits - plan.d_bits
        total += product.cost(parties, 2 * size, 0 if cut else size)
        if cut:
            total += truncation.cost(parties, size, cut)
    total += product.cost(parties, 3 * size, 3 * size)
    return total + truncated_product.cost(parties, size)


def slices(session: Runtime, size: int, thresholds: int) -> list[slice]:
    """Return the parts of an array that are evaluated one after another."""
    each = 8 * _WORDS_EACH * (session.size + 1) * thresholds
    some = max(64, session.memory_limit // each)
    return [slice(k, k + some) for k in range(0, size, some)]


def _begun(x: Secret, shift: int, plan: Plan) -> tuple[Words, Words, Words]:
    """Step 1: c, m and a_0 to a_3, (6, p, size); how many values are outside, (p,); and y."""
    session = x.session
    bits, y = sign.signs_and_value(x, shift, plan.thresholds)
    numbers = b2a.convert(session, bits, x.size)
    outside = choose(session, numbers, plan.outside).sum(axis=(1, 2), dtype=np.uint64)
    return choose(session, numbers, plan.rows).transpose(1, 0, 2), outside, y


def _ended(x: Secret, y: Words, chosen: Words, curve: Curve, shift: int, plan: Plan) -> Secret:
    """Steps 2 and 3."""
    session, place = x.session, x.frac_bits - shift
    c, m, *a = chosen
    if curve.normalises:
        # The bound of the product is what counts: below 2^(Q + 1).
        left = x.derive(y, frac_bits=plan.v_bits, bound=1)
        v = product.multiply(left, left.derive(c, frac_bits=0, bound=2 << plan.v_bits), whole=True)
        cut = plan.v_bits - plan.d_bits
        d = (truncation.truncate(v, cut) if cut else v).shares - m
    else:
        d = (y << np.uint64(plan.d_bits - place)) - m
    a0, a1, a2, a3 = a
    total, _ = piecewise.cubic(x, d, (a0, a1, a2, a3), plan.d_bits, plan.sizes, at_once=True)
    frac_bits = session.format.frac_bits + plan.d_bits
    return linear.placed(total, frac_bits, total.bound)


def _domain(curve: Curve, plan: Plan, place: int) -> str:
    low, high = (value * 2.0**-place for value in (plan.low, plan.high))
    if curve.kind == "exp":
        return f"x at most {high:g}"
    if curve.kind == "power" and curve.exponent > 0:
        return f"0 <= x <= {high:g}"
    return f"x at least {low:g}"


def _inside(curve: Curve, plan: Plan, values: NDArray[np.int64], shift: int) -> NDArray[np.bool_]:
    """Whether encoded values are in the domain, however they are truncated."""
    least, most = values >> shift, -(-values >> shift)
    if curve.kind == "exp":
        return np.asarray(most <= plan.high)
    zero = curve.kind == "power" and curve.exponent > 0
    return np.asarray((least >= (0 if zero else plan.low)) & (most <= plan.high))


def _at_once(x: SecretValue, curve: Curve) -> bounded.PowerForm | None:
    """Return the form of an exponential from one opening, if the bound of x is small enough for it."""
    if curve.kind != "exp" or x.session.pair is not None:
        return None
    return bounded.power_form(x.bound * 2.0**-x.frac_bits, x.session.format.int_bits * log(2.0))


def _exp_at_once(
    x: Secret, plan: Plan, form: bounded.PowerForm, check: bool, domain: str
) -> Secret:
    session = x.session
    most = min(x.bound * 2.0**-x.frac_bits, session.format.int_bits * log(2.0))
    bound = ceil(exp(most) * (1 + 2.0**-16) * 2.0 ** (form.power_bits + form.factor_bits))
    parts = slices(session, x.size, 2 + form.pieces // _WORDS_EACH)

    def whole() -> Secret:
        if len(parts) <= 1:
            return bounded.exp(x, form, bound)
        flat = x.view(("reshape", (x.size,)))
        found = linear.concatenate([bounded.exp(flat[part], form, bound) for part in parts])
        return found.view(("reshape", x.shape))

    if not check:
        return whole()
    with session.beside(_above_steps(x, plan.high)) as none:
        found = whole()
    if not none.value:
        raise RangeError(f"exp: a value is not in the domain, {domain}")
    return found


def _above_steps(x: Secret, most: int) -> Steps[bool]:
    """Open whether no value exceeds `most`."""
    session = x.session
    below = yield from sign.below_steps(x, most + 1)
    numbers = yield from b2a.steps(session, below, x.size)
    count = np.negative(numbers.sum(axis=(1, 2), dtype=np.uint64))
    if session.first_row is not None:
        count[session.first_row] += np.uint64(x.size)
    return (yield from range_check.none_steps(x.derive(count, frac_bits=0, bound=x.size)))


def evaluate(x: Secret, curve: Curve) -> Secret:
    """Return the function of x, with the format's fractional bits and those of d.

    Raises
    ------
    RangeError
        If a value is outside of the domain, see the session's `ranges`.
    """
    session = x.session
    with session.protocol(curve.name):
        x = truncation.kept(x)
        shift, plan = _plan(x, curve)
        domain = _domain(curve, plan, x.frac_bits - shift)
        check = bool(plan.outside.any()) and session.range_policy.settle_domain(
            (x,), lambda values: _inside(curve, plan, values, shift), curve.name, domain
        )
        form = _at_once(x, curve)
        if form is not None:
            return _exp_at_once(truncation.to_format(x), plan, form, check, domain)
        flat = x.view(("reshape", (x.size,)))
        parts = slices(session, x.size, len(plan.thresholds))
        parts_of_x = [flat[part] for part in parts] if len(parts) > 1 else [flat]
        outside = np.zeros(len(session.here), np.uint64)
        values, results = [], []
        for part in parts_of_x:
            chosen, more, y = _begun(part, shift, plan)
            outside += more
            values.append(y)
            if check and len(values) == len(parts_of_x):
                count, said = range_check.take(x.derive(outside, frac_bits=0, bound=x.size))
                with session.beside(range_check.none_steps(count)) as none:
                    results.append(_ended(part, y, chosen, curve, shift, plan))
                if not none.value:
                    raise RangeError(f"{curve.name}: a value is not in the domain, {domain}{said}")
            else:
                results.append(_ended(part, y, chosen, curve, shift, plan))
        truncation.keep(x, np.concatenate(values, axis=1), shift)
        whole = results[0] if len(results) == 1 else linear.concatenate(results)
        return whole.view(("reshape", x.shape))
