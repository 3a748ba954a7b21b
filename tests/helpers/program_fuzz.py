"""Random programs on shares, and what their results must be.

A program is a format, some inputs and a list of steps, all plain numbers, so that a failure can be
repeated from what is printed. Beside each shared array goes its value in fractions, and a bound on how
far the shared one may be from it, by the errors that the operations state.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st

import mpc
from mpc.protocols.sigmoid import error_bound, sigmoid, tanh

FORMATS = ((16, 15), (16, 15), (8, 20), (24, 13), (4, 4), (12, 10), (20, 21))
BITS = 62
# Of a public factor's rounding, see mpc.protocols.scaling.
PLACE = 1 + Fraction(1, 1 << 12)


@dataclass
class Value:
    """A shared array, its value in fractions, and how far they may be apart."""

    shared: mpc.SharedArray
    exact: np.ndarray
    error: Fraction

    @property
    def largest(self) -> Fraction:
        return max((abs(v) for v in self.exact.reshape(-1)), default=Fraction(0))


def exactly(values: Any) -> np.ndarray:
    """Return numbers as an array of fractions."""
    values = np.asarray(values)
    out = np.empty(values.shape, object)
    out.reshape(-1)[:] = [Fraction(v) for v in values.reshape(-1).tolist()]
    return out


SHAPES = ((3,), (2, 3), (2, 2))


@st.composite
def programs(draw, modes=("values",), formats=FORMATS):
    """Return (format, mode, inputs, steps)."""
    frac_bits, int_bits = form = draw(st.sampled_from(formats))
    limit = 2.0**int_bits - 2.0**-frac_bits
    whole_limit = 2 ** (frac_bits + int_bits) - 1
    inputs = []
    for _ in range(draw(st.integers(2, 3))):
        shape = draw(st.sampled_from(SHAPES))
        count = int(np.prod(shape))
        if draw(st.booleans()):
            number = st.one_of(
                st.sampled_from([0, 1, -1, 7, 30000, whole_limit, -whole_limit, whole_limit // 3]),
                st.integers(-min(1000, whole_limit), min(1000, whole_limit)),
            ).map(lambda v: max(-whole_limit, min(whole_limit, v)))
        else:
            number = st.one_of(
                st.sampled_from([0.0, 1.0, -1.0, 0.5, limit, -limit, 200.0, 30000.0, limit / 3]),
                st.floats(-min(8.0, limit), min(8.0, limit)),
            ).map(lambda v: max(-limit, min(limit, v)))
        values = draw(st.lists(number, min_size=count, max_size=count))
        inputs.append((shape, values, draw(st.booleans())))
    step = st.tuples(
        st.sampled_from(sorted(STEPS)), st.integers(0, 1 << 16), st.integers(0, 1 << 16),
        st.integers(0, 1 << 16),
    )  # fmt: skip
    steps = draw(st.lists(step, min_size=1, max_size=6))
    return form, draw(st.sampled_from(modes)), inputs, steps


class Machine:
    """Runs a program in a session."""

    def __init__(self, session: mpc.Session, inputs: Any) -> None:
        self.session = session
        self.unit = Fraction(1, 1 << session.format.frac_bits)
        self.values: list[Value] = []
        for number, (shape, values, bounded) in enumerate(inputs):
            owner = session.parties[number % len(session.parties)]
            array = np.array(values).reshape(shape)
            if array.dtype.kind == "f":
                scale = 2.0**session.format.frac_bits
                array = np.rint(array * scale) / scale
            bound = float(max(np.abs(array).max(), 1)) if bounded else None
            mine = session.me in (None, owner)
            shared = session.share(
                array if mine else None, owner, shape=shape, dtype=array.dtype, bound=bound
            )
            self.values.append(Value(shared, exactly(array), Fraction(0)))

    def pick(self, number: int) -> Value:
        return self.values[number % len(self.values)]

    def rounding(self, *values: Value) -> Fraction:
        """What truncation to the format may add, if something needs it."""
        places = self.session.format.frac_bits
        return self.unit if any(v.shared.frac_bits > places for v in values) else Fraction(0)

    def keep(self, shared: Any, exact: np.ndarray, error: Any) -> None:
        self.values.append(Value(shared, np.asarray(exact, object), Fraction(error)))

    def reveal(self, value: Value) -> np.ndarray:
        found = exactly(np.asarray(value.shared.reveal()))
        error = value.error + self.rounding(value)
        assert found.shape == value.exact.shape
        for got, want in zip(found.reshape(-1), value.exact.reshape(-1), strict=True):
            # Decoding to a double rounds what has more than 53 bits.
            assert abs(got - want) <= error + abs(want) / 2**52, (
                float(got),
                float(want),
                float(error),
            )
        return found


def public(machine: Machine, number: int, like: Value, floats: bool) -> Any:
    """Return a public operand."""
    small = [1, -1, 3, 7, -10, 1000]
    reals = [0.5, -0.1, 1 / 3, 2.5, 1e-4, 1e4, -3.0, 2.0**20]
    choice = number // 2
    if floats and number % 2:
        return reals[choice % len(reals)]
    if choice % 5 == 0:
        return np.full(like.exact.shape[-1:], small[choice // 5 % len(small)])
    return small[choice % len(small)]


def _broadcasts(x: Value, y: Value) -> bool:
    try:
        np.broadcast_shapes(x.exact.shape, y.exact.shape)
    except ValueError:
        return False
    return True


def add(m: Machine, a: int, b: int, c: int) -> None:
    x, y = m.pick(a), m.pick(b)
    sign = 1 if c % 2 else -1
    if c % 3 == 0:
        other = public(m, b, x, True)
        shared = x.shared + other if sign > 0 else other - x.shared
        rounded = m.unit  # of the public operand, and of the other one
        exact = exactly(other) + x.exact if sign > 0 else exactly(other) - x.exact
        m.keep(shared, exact, x.error + rounded + m.rounding(x))
    elif _broadcasts(x, y):
        shared = x.shared + y.shared if sign > 0 else x.shared - y.shared
        exact = x.exact + sign * y.exact
        m.keep(shared, exact, x.error + y.error + 2 * m.rounding(x, y))


def _of_product(m: Machine, x: Value, y: Value) -> Fraction:
    ex, ey = x.error + m.rounding(x), y.error + m.rounding(y)
    return x.largest * ey + y.largest * ex + ex * ey


def multiply(m: Machine, a: int, b: int, c: int) -> None:
    x, y = m.pick(a), m.pick(b)
    if c % 2:
        other = public(m, c // 2, x, True)
        factor = max(abs(v) for v in exactly(other).reshape(-1))
        m.keep(x.shared * other, x.exact * exactly(other), factor * x.error + PLACE * m.unit)
    elif _broadcasts(x, y):
        m.keep(x.shared * y.shared, x.exact * y.exact, _of_product(m, x, y))


def divide(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    other = public(m, b, x, True)
    divisor = exactly(other)
    least = min(abs(v) for v in divisor.reshape(-1))
    m.keep(x.shared / other, x.exact / divisor, x.error / least + PLACE * m.unit)


def matmul(m: Machine, a: int, b: int, c: int) -> None:
    x, y = m.pick(a), m.pick(b)
    if x.exact.ndim == 0 or y.exact.ndim == 0:
        return
    if c % 2:
        size = x.exact.shape[-1]
        other = np.resize(np.array([1.0, -0.3, 2.5, 1e3]), (size, 2))
        if c % 4 == 1:
            other = np.rint(other).astype(np.int64)
        weight = max(sum(abs(exactly(other)[:, k])) for k in range(2))
        m.keep(x.shared @ other, x.exact @ exactly(other), weight * x.error + PLACE * m.unit)
    elif x.exact.shape[-1] == y.exact.shape[-2 if y.exact.ndim > 1 else -1]:
        error = x.exact.shape[-1] * _of_product(m, x, y)
        m.keep(x.shared @ y.shared, np.asarray(x.exact @ y.exact, object), error)


def power(m: Machine, a: int, b: int, c: int) -> None:
    x, exponent = m.pick(a), 2 + b % 3
    total, error = x, x.error
    for _ in range(exponent - 1):
        error = _of_product(m, Value(x.shared, total.exact, error + m.unit), x) + m.unit
        total = Value(x.shared, np.asarray(total.exact * x.exact, object), error)
    # By squaring: each factor is as far off as the power it stands for.
    m.keep(x.shared**exponent, total.exact, 2 * error)


def _axis(x: Value, number: int) -> int | None:
    return None if number % 3 == 0 or not x.exact.ndim else number % x.exact.ndim


def total(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    axis = _axis(x, b)
    exact = np.asarray(x.exact.sum(axis=axis), object)
    count = x.exact.size // max(1, exact.size)
    if c % 2:
        m.keep(x.shared.sum(axis), exact, count * x.error)
    else:
        m.keep(
            x.shared.mean(axis),
            np.asarray(exact / Fraction(count), object),
            x.error + PLACE * m.unit,
        )


def extreme(m: Machine, a: int, b: int, c: int) -> None:
    x, y = m.pick(a), m.pick(b)
    if c % 2 and _broadcasts(x, y):
        function = np.maximum if c % 4 == 1 else np.minimum
        error = max(x.error, y.error) + 2 * m.rounding(x, y)
        m.keep(function(x.shared, y.shared), function(x.exact, y.exact), error)
    elif x.exact.ndim:
        axis = _axis(x, b)
        exact = x.exact.max(axis=axis) if c % 4 == 0 else x.exact.min(axis=axis)
        shared = x.shared.max(axis) if c % 4 == 0 else x.shared.min(axis)
        m.keep(shared, np.asarray(exact, object), x.error + m.rounding(x))


def absolute(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    m.keep(abs(x.shared), np.asarray(abs(x.exact), object), x.error)


def relu(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    m.keep(x.shared.relu(), np.maximum(x.exact, Fraction(0)), x.error + m.rounding(x))


COMPARISONS = (np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal)


def compare(m: Machine, a: int, b: int, c: int) -> None:
    x, y = m.pick(a), m.pick(b)
    function = COMPARISONS[c % len(COMPARISONS)]
    if c % 7 == 0:
        other = public(m, b, x, False)
        y = Value(x.shared, exactly(other), Fraction(0))
        bit = function(x.shared, other)
    elif _broadcasts(x, y):
        bit = function(x.shared, y.shared)
    else:
        return
    doubt = x.error + y.error + 2 * m.rounding(x, y)
    found = exactly(np.asarray(bit.reveal()))
    difference = np.asarray(x.exact - y.exact, object)
    want = np.asarray(function(difference, 0), object)
    assert found.shape == want.shape
    for got, right, d in zip(
        found.reshape(-1), want.reshape(-1), difference.reshape(-1), strict=True
    ):
        assert got in (0, 1)
        if abs(d) > doubt or doubt == 0:
            assert got == int(right), (function, float(d), float(doubt))
    m.keep(bit, found, 0)


def choose(m: Machine, a: int, b: int, c: int) -> None:
    bits = [v for v in m.values if v.shared.binary]
    x, y = m.pick(a), m.pick(b)
    if not bits:
        return
    bit = bits[c % len(bits)]
    try:
        np.broadcast_shapes(bit.exact.shape, x.exact.shape, y.exact.shape)
    except ValueError:
        return
    exact = np.where(bit.exact == 1, x.exact, y.exact)
    error = max(x.error, y.error) + 4 * m.rounding(x, y)
    if x.shared.frac_bits == 0 and y.shared.frac_bits:
        error += m.unit
    m.keep(np.where(bit.shared, x.shared, y.shared), exact, 3 * error)


def argmax(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    if not x.exact.ndim:
        return
    axis = b % x.exact.ndim
    found = np.asarray(x.shared.argmax(axis=axis).reveal())
    assert np.all((found >= 0) & (found < x.exact.shape[axis]))
    chosen = np.take_along_axis(x.exact, np.expand_dims(found, axis), axis)
    best = x.exact.max(axis=axis, keepdims=True)
    slack = 2 * (x.error + m.rounding(x))
    assert np.all(best - chosen <= slack)
    if not slack:
        first = np.argmax(np.asarray(x.exact == best, bool), axis=axis)
        np.testing.assert_array_equal(found, first)


def _doubles(x: Value) -> np.ndarray:
    return x.exact.astype(float)


def softmax(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    if x.exact.ndim != 2:
        return
    scores = _doubles(x)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    want = e / e.sum(axis=1, keepdims=True)
    # Errors of scores of up to ... move a probability by as much at most.
    error = 2e-4 + 4 * float(m.unit) + 2 * float(min(x.error + m.rounding(x), 1))
    m.keep(x.shared.softmax(), exactly(want), Fraction(error))


def curve(m: Machine, a: int, b: int, c: int) -> None:
    x = m.pick(a)
    places = m.session.format.frac_bits
    error = float(min(x.error + 2 * m.rounding(x), 1))
    values = np.clip(_doubles(x), -700, 700)
    if c % 2:
        want, bound = 1 / (1 + np.exp(-values)), error_bound("sigmoid", places)
        shared = sigmoid(x.shared)
    else:
        want, bound = np.tanh(values), error_bound("tanh", places)
        shared = tanh(x.shared)
    m.keep(shared, exactly(want), Fraction(error + bound))


def shape(m: Machine, a: int, b: int, c: int) -> None:
    x, y = m.pick(a), m.pick(b)
    kind = c % 5
    if kind == 0:
        m.keep(x.shared.reshape(-1), x.exact.reshape(-1), x.error)
    elif kind == 1:
        m.keep(x.shared.T, x.exact.T, x.error)
    elif kind == 2 and x.exact.ndim:
        m.keep(x.shared[::-1], x.exact[::-1], x.error)
    elif kind == 3 and x.exact.ndim:
        m.keep(x.shared[b % len(x.exact)], np.asarray(x.exact[b % len(x.exact)], object), x.error)
    elif kind == 4 and x.exact.ndim and x.exact.shape[1:] == y.exact.shape[1:] and y.exact.ndim:
        error = max(x.error, y.error) + m.rounding(x, y)
        m.keep(np.concatenate([x.shared, y.shared]), np.concatenate([x.exact, y.exact]), error)


STEPS = {
    "add": add, "multiply": multiply, "divide": divide, "matmul": matmul, "power": power,
    "total": total, "extreme": extreme, "absolute": absolute, "relu": relu, "compare": compare,
    "choose": choose, "argmax": argmax, "softmax": softmax, "curve": curve, "shape": shape,
}  # fmt: skip


def run(session: mpc.Session, inputs: Any, steps: Any) -> tuple[str, int]:
    """Run a program; return how it ended, "right" or the step that was refused, and steps done."""
    machine = Machine(session, inputs)
    done = 0
    session.range_policy.places.clear()
    for name, a, b, c in steps:
        before = len(machine.values)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                STEPS[name](machine, a, b, c)
                for value in machine.values[before:]:
                    machine.reveal(value)
            except mpc.RangeError as error:
                del machine.values[before:]
                check_refusal(machine, name, str(error))
                return name, done
            except AssertionError:
                if not any(w.category is mpc.RangeWarning for w in caught):
                    raise
        if any(w.category is mpc.RangeWarning for w in caught):
            return f"{name}, warned", done
        done += 1
    return "right", done


def check_refusal(machine: Machine, name: str, message: str) -> None:
    """A result was called out of range: it can only be so if the operands are large."""
    if ": the result" not in message:
        return
    places = 2 * machine.session.format.frac_bits
    reach = max(value.largest + value.error + 1 for value in machine.values)
    # Products of up to four operands, small sums of them, public factors of up to a million.
    most = (reach * 2**21) ** 4 * 64
    assert most >= 2 ** (BITS - places - 1), (name, message)
