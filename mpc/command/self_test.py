"""Self-tests: every protocol on known values, for ``sotto doctor`` and for the docs' cost table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpc.array.shared_array import SharedArray
from mpc.core.cost import Spent
from mpc.core.errors import SottoError
from mpc.core.windows import Windows
from mpc.protocols import (
    clip,
    combination,
    convolution,
    exponential,
    intervals,
    inverse_root,
    largest_score,
    limits,
    linear,
    logarithm,
    masking,
    merge_network,
    normalised,
    pooling,
    product,
    quotient,
    range_check,
    reciprocal,
    relu,
    root_mean_square,
    rounding,
    shuffle,
    sigmoid,
    smooth,
    trees,
    trigonometry,
    truncated_product,
)

if TYPE_CHECKING:
    from mpc.session import Session

__all__ = ["CHECKS", "Check", "Outcome", "run_checks"]

ROWS, CLASSES = 100, 10
SIZE = ROWS * CLASSES
_UNIT = 2.0**-16
# Public values: a self-test has no secrets. Multiples of 2^-8, whose products are exact.
_X = np.round(np.linspace(-7, 9, SIZE) * 256) / 256
_Y = np.round(np.sin(np.arange(SIZE)) * 5 * 256) / 256
_POSITIVE = 1 + np.linspace(0, 9, SIZE)
_ENCODED = np.round(_POSITIVE / _UNIT) * _UNIT


@dataclass(frozen=True)
class Check:
    """One use of a protocol, with the expected result.

    Attributes
    ----------
    name : str
        The protocol's file.
    what : str
        The function that is computed.
    make : callable
        Takes a session and returns the arguments of `run`; its cost is not counted.
    run : callable
        Takes the arguments and returns the result, shared or revealed.
    expected : ndarray
    tolerance : float
        The largest absolute error that is right.
    parts : tuple of str
        Protocols in other files that this one uses.
    dealt : bool
        Whether it needs a provider.
    """

    name: str
    what: str
    make: Callable[[Session], tuple[Any, ...]]
    run: Callable[..., Any]
    expected: NDArray[Any]
    tolerance: float
    parts: tuple[str, ...] = ()
    dealt: bool = False

    def cost(self, session: Session) -> Spent:
        """Return the cost of `run`, from a plan."""
        spent: list[Spent] = []

        def program(planned: Session) -> None:
            arguments = self.make(planned)
            before = planned.cost()
            self.run(*arguments)
            spent.append((planned.cost() - before).total)

        session.plan(program)
        return spent[0]


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check.

    Attributes
    ----------
    check : Check
    error : float
        The largest absolute error.
    seconds : float
    problem : str
        Empty if the result is right.
    """

    check: Check
    error: float
    seconds: float
    problem: str


def _two(s: Session) -> tuple[Any, ...]:
    return s.share(_X, owner="alice"), s.share(_Y, owner="bob")


def _computed(s: Session) -> tuple[Any, ...]:
    x, y = _two(s)
    return x + 0 * y, y + 0 * x


def _positive(s: Session) -> tuple[Any, ...]:
    return (s.share(_ENCODED, owner="bob") + 0,)


def _dividends(s: Session) -> tuple[Any, ...]:
    return s.share(_X, owner="alice"), *_positive(s)


def _product(s: Session) -> tuple[Any, ...]:
    x, y = _two(s)
    return (x * y,)


def _computed_and_given(s: Session) -> tuple[Any, ...]:
    given = s.share(_Y, owner="alice")
    masking.mask_ahead(given)
    return _computed(s)[0], given


def _bit_and_number(s: Session) -> tuple[Any, ...]:
    x, y = _computed(s)
    return x > 0, y


def _bit_and_product(s: Session) -> tuple[Any, ...]:
    x, y = _computed(s)
    return x.relu_with_derivative()[1], x * y


def _scores(s: Session) -> tuple[Any, ...]:
    return (_computed(s)[0].reshape(ROWS, CLASSES), _computed(s)[1].reshape(ROWS, CLASSES))


def _layers(s: Session) -> tuple[Any, ...]:
    return (s.share(np.stack([_X, _Y, -_X, -_Y]), owner="alice"),)


def _images(s: Session) -> tuple[Any, ...]:
    return s.share(_IMAGES, owner="bob"), s.share(_KERNELS, owner="alice")


def _masked(x: SharedArray, y: SharedArray) -> SharedArray:
    masking.mask_ahead(x, y)
    return x


def _dealt(x: SharedArray, y: SharedArray) -> SharedArray:
    z = x * y
    assert z.shares is not None  # has the product's cross term dealt
    return z


def _fractions(x: SharedArray, y: SharedArray) -> SharedArray:
    terms = [(x, combination.Fraction(3, 3)), (y, combination.Fraction(-5, 4))]
    return combination.combine(terms, x.frac_bits)


def _roots(s: Session) -> tuple[Any, ...]:
    return (
        SharedArray.from_public(s, np.full(SIZE, 0.5), 24, 1 << 29),
        SharedArray.from_public(s, _POSITIVE, 36, 1 << 46),
    )


def _wide(s: Session) -> tuple[Any, ...]:
    """Numbers whose product, 2^62 - 1, is in range."""
    numbers = (np.full(SIZE, 2**31 - 1), np.full(SIZE, 2**31 + 1))
    return tuple(SharedArray.from_public(s, n, 0, range_check.LIMIT) for n in numbers)


def _product_in_range(x: SharedArray, y: SharedArray) -> NDArray[np.bool_]:
    claim = range_check.bilinear(x, y, product.multiply, 1)
    return np.full(SIZE, range_check.verdict(claim))


def _sum_in_range(x: SharedArray, y: SharedArray) -> NDArray[np.bool_]:
    claim = range_check.linear([(x, 31), (y, 0)])
    return np.full(SIZE, range_check.verdict(claim))


def _rows_inside(x: SharedArray, y: SharedArray) -> NDArray[np.bool_]:
    ends = np.array([-7 << 16, 9 << 16])
    return np.repeat(intervals.groups_inside(x, ends[0], ends[1], (CLASSES,) * ROWS), CLASSES)


def _within_limits(z: SharedArray) -> NDArray[np.bool_]:
    excess = limits.Excess(z.session)
    y = limits.truncate_within(z, 64 << 16, excess)
    count = limits.failures(y, excess)
    with z.session.protocol("limits"):
        return np.full(SIZE, range_check.is_none(count))


def _shuffled(x: SharedArray) -> SharedArray:
    rows = shuffle.shuffled(x.session, x.shares[:, :, None])
    return x.derive(rows[:, :, 0], frac_bits=x.frac_bits, bound=x.bound)


def _softmax(scores: NDArray[Any]) -> NDArray[Any]:
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


_IMAGES = _Y[:250].reshape(10, 5, 5, 1)
_KERNELS = np.round(np.cos(np.arange(8)).reshape(2, 2, 1, 2) * 256) / 256
_WINDOWS = Windows((2, 2))
_CONVOLVED = np.tensordot(_WINDOWS.view(_IMAGES), _KERNELS, axes=3)
_TABLE = _X.reshape(ROWS, CLASSES)
# One tree whose nodes 0 to 8 lead to leaves 0 to 9, three deep and more.
_FOREST = trees.Forest((1, 3, 5, 7, ~0, ~1, ~2, ~3, ~4), (2, 4, 6, 8, ~5, ~6, ~7, ~8, ~9), (0,))
_RIGHT = _TABLE[:, :9] > _Y[:9]
_LEAVES = np.stack(
    [np.all([_RIGHT[:, n] if n >= 0 else ~_RIGHT[:, ~n] for n in path], axis=0)
     for path in _FOREST.paths], axis=1,
)  # fmt: skip
_ONE_HOT = np.eye(CLASSES, dtype=np.int64)[_TABLE.argmax(axis=1)]

CHECKS = (
    Check("sharing", "share and reveal", _two, lambda x, y: x.reveal(), _X, 0),
    Check("linear", "x + y, 3 x", _two, lambda x, y: x + y * 3, _X + 3 * _Y, 0),
    Check("masking", "open under a mask", _computed, _masked, _X, 0),
    Check("product", "x y", _computed, lambda x, y: x * y, _X * _Y, _UNIT,
          ("own_products", "own_operands")),
    Check("product", "x y, each known to an owner", _two, lambda x, y: x * y, _X * _Y, _UNIT),
    Check("product", "X @ Y.T", _scores, lambda x, y: x.reshape(SIZE, 1) @ y.reshape(1, SIZE)[:, :1],
          (_X * _Y[0]).reshape(SIZE, 1), _UNIT),
    Check("product", "x y, y given by a party, which alone sees x masked", _computed_and_given,
          lambda x, y: x * y, _X * _Y, _UNIT),
    Check("product", "x y, used untruncated", _computed, _dealt, _X * _Y, _UNIT),
    Check("convolution", "images with kernels of 2x2", _images,
          lambda x, w: convolution.convolve(x, w, _WINDOWS), _CONVOLVED, _UNIT,
          ("own_convolution",)),
    Check("scaling", "x / 3", _two, lambda x, y: x / 3, _X / 3, _UNIT, ("truncation",)),
    Check("scaling", "0.1 x", _two, lambda x, y: x * 0.1, 0.1 * _X, _UNIT, ("truncation",)),
    Check("truncation", "x / 2^16", _product, lambda z: z.truncate(), _X * _Y, _UNIT),
    Check("truncated_product", "(x / 2^8) (y / 2^8)", _computed,
          lambda x, y: truncated_product.multiply(x, 8, y, 8, 1 << 50), _X * _Y, 2.0**-3),
    Check("combination", "3/8 x - 5/16 y", _computed, _fractions, 3 / 8 * _X - 5 / 16 * _Y, _UNIT),
    Check("relu", "max(x y, 0), truncated", _product, lambda z: z.relu(), np.maximum(_X * _Y, 0),
          _UNIT, ("sign", "bits")),
    Check("relu", "max(x y, 0), truncated, in four rounds", _product,
          lambda z: relu.relu_in_four_rounds(z)[0], np.maximum(_X * _Y, 0), _UNIT, ("sign", "bits"),
          dealt=True),
    Check("sign_products", "max(x y, 0), truncated, in two rounds", _product,
          relu.relu_in_two_rounds, np.maximum(_X * _Y, 0), _UNIT, ("relu", "sign"), dealt=True),
    Check("clip", "min(max(x y, -1), 2), truncated", _product,
          lambda z: clip.clip_with_derivative(z, -1 << 16, 2 << 16)[0], np.clip(_X * _Y, -1, 2), _UNIT,
          ("relu", "sign", "bits", "b2a")),
    Check("limits", "whether |x y| stayed below 64", _product, _within_limits, np.ones(SIZE), 0,
          ("truncation", "sign", "b2a", "range_check")),
    Check("intervals", f"whether {ROWS} rows of {CLASSES} lie in [-7, 9]", _computed, _rows_inside,
          np.ones(SIZE), 0, ("sign", "bits", "b2a", "limits")),
    Check("comparison", "x < y", _computed, lambda x, y: x < y, _X < _Y, 0,
          ("sign", "bits", "b2a")),
    Check("comparison", "x == y", _computed, lambda x, y: x == y, _X == _Y, 0,
          ("sign", "bits", "b2a")),
    Check("select", "y where a bit is 1", _bit_and_number, lambda b, y: b * y, (_X > 0) * _Y, 0),
    Check("bit_injection", "x y where a bit is 1, truncated", _bit_and_product, lambda b, z: z.gate(b),
          (_X > 0) * _X * _Y, _UNIT),
    Check("maximum", "max(x, y)", _computed, np.maximum, np.maximum(_X, _Y), 0, ("relu",)),
    Check("pooling", "maximum of 4 arrays", _layers, pooling.maximum_of_first,
          np.maximum(abs(_X), abs(_Y)), 0, ("relu",)),
    Check("pooling", "mean of 4 arrays", _layers, pooling.mean_of_first, 0 * _X, _UNIT,
          ("truncation",)),
    Check("argmax", f"of rows of {CLASSES}, one-hot bits", _scores,
          lambda x, y: x.argmax(axis=1, one_hot=True), _ONE_HOT, 0, ("sign", "bits", "b2a")),
    Check("trees", f"the leaf of a tree of {CLASSES}, one-hot", _scores,
          lambda x, y: trees.leaves_of(x[:, :9], y[0, :9], _FOREST), _LEAVES, 0,
          ("sign", "bits", "b2a")),
    Check("sigmoid", "1 / (1 + exp(-x))", _computed, lambda x, y: sigmoid.sigmoid(x),
          1 / (1 + np.exp(-_X)), sigmoid.error_bound("sigmoid", 16), ("piecewise", "thresholds")),
    Check("sigmoid", "tanh(x)", _computed, lambda x, y: sigmoid.tanh(x), np.tanh(_X),
          sigmoid.error_bound("tanh", 16)),
    Check("smooth", "silu(x)", _computed, lambda x, y: smooth.evaluate(x, "silu"),
          _X / (1 + np.exp(-_X)), smooth.error_bound("silu", 16), ("piecewise", "smooth_tables")),
    Check("smooth", "elu(x)", _computed, lambda x, y: smooth.evaluate(x, "elu"),
          np.where(_X > 0, _X, np.expm1(_X)), smooth.error_bound("elu", 16)),
    Check("normalised", "sqrt(x)", _positive, lambda x: normalised.evaluate(x, normalised.power(0.5)),
          np.sqrt(_ENCODED), 3 * _UNIT, ("fits", "piecewise", "thresholds", "truncated_product")),
    Check("normalised", "log(x)", _positive, lambda x: normalised.evaluate(x, normalised.LOG),
          np.log(_ENCODED), 3 * _UNIT),
    Check("normalised", "exp(x)", _positive, lambda x: normalised.evaluate(x, normalised.EXP),
          np.exp(_ENCODED), 2.0**-19 * np.exp(10) + 4 * _UNIT),
    Check("bounded", "exp(x), x within 16", lambda s: (s.share(_ENCODED, owner="bob", bound=16),),
          lambda x: normalised.evaluate(x, normalised.EXP), np.exp(_ENCODED),
          2.0**-19 * np.exp(10) + 4 * _UNIT, dealt=True),
    Check("quotient", "x / y", _dividends, quotient.divide, _X / _ENCODED, 3 * _UNIT,
          ("bounded", "thresholds", "truncated_product", "truncation")),
    Check("quotient", "1 / x", _positive, quotient.inverse, 1 / _ENCODED, 3 * _UNIT),
    Check("rounding", "floor(x)", _computed, lambda x, y: rounding.floor(x), np.floor(_X), 0,
          ("thresholds", "truncation")),
    Check("trigonometry", "sin(x)", _computed, lambda x, y: trigonometry.evaluate(x, "sin"),
          np.sin(_X), trigonometry.error_bound("sin", 16), ("piecewise", "thresholds", "truncation")),
    Check("ranks", f"sort rows of {CLASSES}", _scores, lambda x, y: np.sort(x, axis=1),
          np.sort(_TABLE, axis=1), 0, ("sign", "bits", "b2a", "thresholds", "product")),
    Check("merge_network", f"sort rows of {CLASSES}", _scores, lambda x, y: merge_network.sort(x),
          np.sort(_TABLE, axis=1), 0, ("relu", "sign", "bits")),
    Check("shuffle", "an order that nobody knows", lambda s: (s.share(np.ones(SIZE), owner="bob"),),
          _shuffled, np.ones(SIZE), 0, dealt=True),
    Check("shuffled_sort", f"sort {SIZE}", _computed, lambda x, y: np.sort(y), np.sort(_Y), 0,
          ("shuffle", "sign", "bits"), dealt=True),
    Check("exponential", "exp(x), x <= 0", lambda s: (s.share(-abs(_X), owner="alice"),),
          exponential.exp, np.exp(-abs(_X)), 2 * _UNIT, ("sign", "bits", "truncation")),
    Check("reciprocal", "1 / x in [1, 10]", lambda s: _at_24_bits(s),
          lambda x: reciprocal.reciprocal(x, 10), 1 / _POSITIVE, 3 * _UNIT, ("bounded", "truncation")),
    Check("logarithm", "log(x) in [1, 10]", lambda s: _at_24_bits(s),
          lambda x: logarithm.log(x, 10), np.log(_POSITIVE), 3 * _UNIT, ("bounded", "truncation")),
    Check("inverse_root", "m / sqrt(x)", _roots, inverse_root.times_inverse_root,
          0.5 / np.sqrt(_POSITIVE), 1e-3, ("comparison", "select", "product", "truncation")),
    Check("root_mean_square", f"rows of {CLASSES} divided by it", _scores,
          lambda x, y: root_mean_square.over_root_mean_square(x, 0.1),
          _TABLE / np.sqrt((_TABLE**2).mean(axis=1, keepdims=True) + 0.1), 4 * _UNIT,
          ("inverse_power", "thresholds", "product", "truncation")),
    Check("range_check", "whether |x y| < 2^62", _wide, _product_in_range, np.ones(SIZE), 0,
          ("sign", "bits", "b2a")),
    Check("range_check", "whether |2^31 x + y| < 2^62", _wide, _sum_in_range, np.zeros(SIZE), 0,
          ("sign", "bits", "b2a")),
    Check("softmax", f"of rows of {CLASSES}", _scores, lambda x, y: x.softmax(), _softmax(_TABLE),
          1.8e-4, ("argmax", "exponential", "reciprocal")),
    Check("largest_score", "the largest of 10, or one less than 2^-4 below", _scores,
          lambda x, y: largest_score.near_largest(x), _TABLE.max(axis=1), 2.0**-4,
          ("sign", "sign_products"), dealt=True),
)  # fmt: skip


def _at_24_bits(s: Session) -> tuple[Any, ...]:
    return (linear.at_bits(s.share(_POSITIVE, owner="bob"), 24),)


def run_checks(session: Session) -> Iterator[Outcome]:
    """Run each check in a local session, and compare with the result in floating point."""
    for check in CHECKS:
        if check.dealt and session.pair is not None:
            continue
        start = time.perf_counter()
        error, problem = float("nan"), ""
        try:
            found = check.run(*check.make(session))
            if isinstance(found, SharedArray):
                found = found.reveal()
            error = float(np.abs(np.asarray(found, float) - check.expected).max())
            if not error <= check.tolerance:
                problem = f"differs by {error:.3g}, at most {check.tolerance:.3g} is right"
        except SottoError as caught:
            problem = str(caught)
        yield Outcome(check, error, time.perf_counter() - start, problem)
