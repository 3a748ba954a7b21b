"""Odd uses of NumPy's functions on secrets: empty arrays, no axes, several, other kinds, public halves.

A use is a function, its arrays and its options, drawn from a seed. NumPy's answer is the reference: shapes
are the same and values within the stated error, or the library refuses with an error of its own.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

import mpc
from tests.helpers.numpy_cases import CASES, UNIT, parts

SHAPES = [
    (),
    (0,),
    (1,),
    (3,),
    (5,),
    (1, 1),
    (2, 3),
    (1, 4),
    (3, 1),
    (0, 3),
    (3, 0),
    (2, 1, 3),
    (2, 0, 2),
    (1, 2, 2, 2),
]
ERRORS = {case.function: (case.units, case.relative) for case in CASES}


@dataclass
class Use:
    """A function, what it is called with, and which of its arrays are secret."""

    function: Callable
    arrays: list
    secret: list
    options: dict = field(default_factory=dict)
    before: tuple = ()
    units: float = 0.0
    relative: float = 0.0
    listed: bool = False

    def __call__(self, arrays):
        given = [list(arrays)] if self.listed else list(arrays)
        return self.function(*self.before, *given, **self.options)

    def __str__(self):
        name = getattr(self.function, "__name__", str(self.function))
        given = [
            f"{'secret' if secret else 'public'} {a.dtype} {a.shape} {a.tolist()}"
            for a, secret in zip(self.arrays, self.secret, strict=True)
        ]
        return f"{name}({self.before}, {', '.join(given)}, {self.options})"


def array(random, shape, kind="any", low=-8.0, high=8.0):
    """Return an array that every format here holds exactly."""
    if kind == "any":
        kind = random.choice(["float", "float", "float", "int", "bool"])
    if kind == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if kind == "int":
        return random.integers(int(np.ceil(low)), int(high) + 1, shape)
    values = random.integers(round(low / UNIT), round(high / UNIT) + 1, shape) * UNIT
    # Ties, zeros and edges are as likely as others.
    return np.where(random.random(shape) < 0.3, np.clip(np.rint(values), low, high), values)


def pick(random, *choices):
    return choices[random.integers(len(choices))]


def shape_of(random, least=0):
    return pick(random, *(shape for shape in SHAPES if len(shape) >= least))


def axis_of(random, shape):
    """Return an axis as users write them: none, from the end, several; sometimes one that is not there."""
    if random.random() < 0.05:
        return len(shape) + 1
    choices = [None]
    if shape:
        choices += [int(random.integers(-len(shape), len(shape))) for _ in range(3)]
        count = int(random.integers(1, len(shape) + 1))
        choices.append(tuple(int(k) for k in random.permutation(len(shape))[:count]))
        choices.append(tuple(int(k) - len(shape) for k in random.permutation(len(shape))[:count]))
    return pick(random, *choices)


def reductions(random):
    function = pick(
        random,
        np.sum,
        np.mean,
        np.var,
        np.std,
        np.prod,
        np.max,
        np.min,
        np.ptp,
        np.any,
        np.all,
        np.argmax,
        np.argmin,
        np.count_nonzero,
        np.median,
        np.quantile,
        np.percentile,
        np.cumsum,
        np.cumprod,
        np.average,
        np.linalg.norm,
    )
    shape = shape_of(random)
    small = function in (np.prod, np.cumprod)
    kind = "bool" if function in (np.any, np.all) else "any"
    low, high = (-1.0, 1.0) if small else (-8.0, 8.0)
    options = {"axis": axis_of(random, shape)}
    if isinstance(options["axis"], tuple) and function in (
        np.argmax,
        np.argmin,
        np.cumsum,
        np.cumprod,
    ):
        options["axis"] = options["axis"][0]
    if random.random() < 0.4 and function not in (np.cumsum, np.cumprod):
        options["keepdims"] = bool(random.integers(2))
    before = ()
    if function in (np.quantile, np.percentile):
        q = pick(random, 0.0, 0.25, 1.0, [0.1, 0.5], np.array([[0.5, 1.0]]), [])
        options["q"] = np.asarray(q) * (1 if function is np.quantile else 100)
    if function in (np.var, np.std) and random.random() < 0.3:
        options["ddof"] = int(random.integers(0, 3))
    if function is np.linalg.norm and random.random() < 0.5:
        options["ord"] = pick(random, 1, 2, np.inf, -np.inf, 0)
    units, relative = ERRORS[function]
    if function in (np.prod, np.cumprod):
        units = 24
    if function is np.std:
        units = 2**-8 / UNIT
    if function is np.linalg.norm:
        # A root near zero.
        units = 2**-8 / UNIT + 3
    arrays = [array(random, shape, kind, low, high)]
    return Use(function, arrays, [True], options, before, units, relative)


def elementwise(random):
    function = pick(
        random,
        np.add,
        np.subtract,
        np.multiply,
        np.divide,
        np.maximum,
        np.minimum,
        np.less,
        np.less_equal,
        np.greater,
        np.greater_equal,
        np.equal,
        np.not_equal,
        np.logical_and,
        np.logical_or,
        np.logical_xor,
        np.bitwise_and,
        np.hypot,
        np.isclose,
        np.where,
        np.array_equal,
        np.allclose,
    )
    bits = function in (np.logical_and, np.logical_or, np.logical_xor, np.bitwise_and)
    first = shape_of(random)
    second = pick(random, first, (), (1,), first[1:], shape_of(random))
    kind = "bool" if bits else "any"
    low = 1.0 if function is np.hypot else -8.0
    a, b = array(random, first, kind, low), array(random, second, kind, low)
    if function is np.divide:
        b = np.where(np.abs(b) < 0.25, b.dtype.type(1), b)
    # Secret bits are added as numbers.
    if function in (np.add, np.subtract) and a.dtype == bool and b.dtype == bool:
        a = a.astype(int)
    secret = pick(random, [True, True], [True, False], [False, True])
    units, relative = ERRORS[function]
    options = {}
    if function in (np.isclose, np.allclose):
        options, units = {"rtol": 0.0, "atol": 1.0 + UNIT / 2}, 0.0
    if function is np.where:
        c = array(random, pick(random, first, (), (1,)), "bool")
        return Use(function, [c, a, b], [bool(random.integers(2)), *secret], units=0.5)
    # What is public is rounded to the format, and here it is in it.
    return Use(function, [a, b], secret, options, (), units + (0.6 if units else 0), relative)


def of_one(random):
    function, low, high = pick(
        random,
        (np.reciprocal, 0.25, 8.0),
        (np.square, -8.0, 8.0),
        (np.sqrt, 0.0, 64.0),
        (np.exp, -12.0, 8.0),
        (np.log, 0.0625, 64.0),
        (np.log1p, -0.5, 8.0),
        (np.sin, -8.0, 8.0),
        (np.cos, -8.0, 8.0),
        (np.tanh, -8.0, 8.0),
        (np.negative, -8.0, 8.0),
        (np.absolute, -8.0, 8.0),
        (np.sign, -8.0, 8.0),
        (np.floor, -8.0, 8.0),
        (np.ceil, -8.0, 8.0),
        (np.rint, -8.0, 8.0),
        (np.trunc, -8.0, 8.0),
        (np.round, -8.0, 8.0),
        (np.clip, -8.0, 8.0),
        (np.power, 0.25, 4.0),
        (np.exp2, -8.0, 8.0),
        (np.degrees, -8.0, 8.0),
        (np.logical_not, 0.0, 1.0),
        (np.expm1, 1.0, 4.0),
        (np.log2, 0.0625, 64.0),
    )
    kind = "bool" if function is np.logical_not else pick(random, "float", "float", "int")
    if kind == "int" and function in (np.log, np.log2, np.sqrt):
        low = 1.0
    # NumPy's of integers is an integer.
    kind = "float" if function is np.reciprocal else kind
    shape = shape_of(random)
    a = array(random, shape, kind, low, high)
    options, units, relative = {}, *ERRORS[function]
    if function is np.clip:
        options = pick(
            random,
            {"a_min": -1, "a_max": 2},
            {"a_min": None, "a_max": 1.5},
            {"a_min": 0, "a_max": None},
            {"min": -0.5},
            {"a_min": np.float64(-1), "a_max": np.int8(3)},
        )
    if function is np.round:
        options = {"decimals": int(random.integers(-1, 3))}
    if function is np.power:
        exponent = pick(random, 0, 1, 2, 3, -1, 0.5, -0.5, 1.5, np.float32(0.25))
        # A power of integers with a negative exponent is refused by NumPy.
        a = a if exponent >= 0 else a.astype(float)
        return Use(lambda x: x**exponent, [a], [True], units=60, relative=2**-17)
    if function is np.exp2:
        relative = 2**-14.5
    if function is np.expm1:
        relative = 2**-17
    return Use(function, [a], [True], options, (), units, relative)


def products(random):
    function = pick(
        random, np.matmul, np.dot, np.inner, np.outer, np.vdot, np.tensordot, np.kron, np.einsum
    )
    a_shape, b_shape = shape_of(random), shape_of(random)
    options, before = {}, ()
    if function in (np.matmul, np.dot) and random.random() < 0.8:
        a_shape = pick(random, (3,), (2, 3), (1, 3), (0, 3), (2, 2, 3), (1, 0), (2, 1, 2, 3))
        n = a_shape[-1]
        b_shape = pick(random, (n,), (n, 2), (n, 0), (n, 1), (2, n, 4), (1, n, 2))
    if function is np.inner and random.random() < 0.7:
        b_shape = pick(random, a_shape, (2, *a_shape[-1:]))
    if function is np.vdot and random.random() < 0.7:
        b_shape = a_shape
    if function is np.tensordot:
        options = {"axes": pick(random, 0, 1, 2, ([0], [0]), ([-1], [0]), (0, -1))}
        b_shape = pick(random, a_shape, a_shape[::-1], b_shape)
    if function is np.einsum:
        words, a_shape, b_shape = pick(
            random,
            ("ij,jk", (2, 3), (3, 2)),
            ("ij,ij->i", (2, 3), (2, 3)),
            ("i,i", (3,), (3,)),
            ("i,j->ij", (2,), (0,)),
            ("...i,i", (2, 3), (3,)),
            ("ii,i->i", (3, 3), (3,)),
            ("ij,j->ji", (2, 3), (3,)),
            (",i->i", (), (3,)),
            ("ijk,k->", (2, 1, 3), (3,)),
            ("bij,bjk->bik", (2, 2, 3), (2, 3, 1)),
        )
        before = (words,)
    a, b = array(random, a_shape), array(random, b_shape)
    # Bits are multiplied as numbers.
    a = a.astype(int) if a.dtype == b.dtype == bool else a
    secret = pick(random, [True, True], [True, False], [False, True])
    return Use(function, [a, b], secret, options, before, 1.6)


def moves(random):
    shape = shape_of(random)
    n = len(shape)
    size = int(np.prod(shape))
    axis = axis_of(random, shape)
    one = axis[0] if isinstance(axis, tuple) else axis
    calls = [
        (np.reshape, {"shape": pick(random, -1, (1, -1), (size,), (size, 1), (2, -1))}),
        (np.ravel, {}),
        (np.transpose, {"axes": pick(random, None, tuple(range(n))[::-1])}),
        (np.squeeze, {"axis": axis}),
        (np.expand_dims, {"axis": pick(random, 0, -1, n, (0, n + 1))}),
        (np.flip, {"axis": axis}),
        (np.roll, {"shift": pick(random, 0, 1, -2, 7), "axis": one}),
        (np.repeat, {"repeats": pick(random, 0, 1, 2), "axis": one}),
        (np.tile, {"reps": pick(random, 0, 2, (1, 2), ())}),
        (np.diff, {"n": pick(random, 0, 1, 2), "axis": pick(random, -1, 0, one or 0)}),
        (np.diff, {"prepend": 0, "axis": pick(random, -1, 0)}),
        (np.swapaxes, {"axis1": 0, "axis2": -1}),
        (np.moveaxis, {"source": 0, "destination": -1}),
        (np.diagonal, {"offset": pick(random, -1, 0, 1)}),
        (np.trace, {"offset": pick(random, -1, 0, 1)}),
        (np.tril, {"k": pick(random, -1, 0, 1)}),
        (np.triu, {"k": pick(random, -1, 0, 5)}),
        (np.diag, {"k": pick(random, -1, 0, 2)}),
        (
            np.pad,
            {
                "pad_width": pick(random, 0, 1, (1, 2), ((1, 0),) * max(n, 1)),
                "mode": pick(random, "constant", "edge", "reflect", "wrap", "symmetric"),
            },
        ),
        (np.take, {"indices": pick(random, 0, -1, [0, 0], [[0]], []), "axis": one}),
        (np.split, {"indices_or_sections": pick(random, 1, 2, [1], []), "axis": one or 0}),
        (np.array_split, {"indices_or_sections": pick(random, 1, 3, [0, 2]), "axis": one or 0}),
        (np.broadcast_to, {"shape": pick(random, (2, *shape), shape, (3, 2, 3))}),
        (np.rot90, {"k": pick(random, 0, 1, -1)}),
        (np.atleast_1d, {}),
        (np.atleast_3d, {}),
        (np.delete, {"obj": pick(random, 0, -1, [0], []), "axis": one}),
        (np.copy, {}),
        (np.zeros_like, {}),
        (np.ones_like, {}),
        (np.full_like, {"fill_value": pick(random, 0, 1.5, -2)}),
        (np.cumsum, {"axis": one}),
        (np.ediff1d, {}),
        (np.resize, {"new_shape": pick(random, (2, 2), 5, 0)}),
        (np.size, {}),
        (np.ndim, {}),
        (np.shape, {}),
        (np.matrix_transpose, {}),
    ]
    function, options = calls[random.integers(len(calls))]
    # What is filled in keeps its kind, since bits and whole numbers of a secret are alike.
    kind = "float" if function is np.full_like else "any"
    return Use(function, [array(random, shape, kind)], [True], options)


def joins(random):
    function = pick(
        random, np.concatenate, np.stack, np.hstack, np.vstack, np.dstack, np.column_stack
    )
    shape = shape_of(random)
    count = int(random.integers(1, 4))
    shapes = [shape if random.random() < 0.85 else shape_of(random) for _ in range(count)]
    options = {}
    if function in (np.concatenate, np.stack):
        options["axis"] = pick(random, 0, -1, 1)
    secret = [True, *(bool(random.integers(2)) for _ in shapes[1:])]
    return Use(function, [array(random, s) for s in shapes], secret, options, units=0, listed=True)


def orders(random):
    function = pick(
        random,
        np.sort,
        np.argsort,
        np.histogram,
        np.digitize,
        np.cov,
        np.corrcoef,
        np.take_along_axis,
    )
    shape = shape_of(random)
    a = array(random, shape)
    axis = pick(random, -1, 0, None, len(shape) - 1)
    if function is np.histogram:
        bins, options = pick(
            random,
            ([-1, 0, 1], {}),
            (4, {"range": (-2, 2)}),
            ([0], {}),
            (np.array([0.5, 0.25]), {}),
            (1, {"range": (0, 8)}),
        )
        return Use(lambda x: np.histogram(x, bins, **options)[0], [a], [True])
    if function is np.digitize:
        bins = pick(random, [0.0], [-1, 0, 3], [3, 1, 0], [], [1, 1])
        return Use(
            np.digitize,
            [a],
            [True],
            {"bins": np.array(bins, float), "right": bool(random.integers(2))},
        )
    if function in (np.cov, np.corrcoef):
        options = (
            pick(random, {}, {"rowvar": False}, {"ddof": 0}, {"bias": True})
            if function is np.cov
            else {}
        )
        if function is np.corrcoef:
            a = np.linspace(-4, 4, a.size).reshape(shape) + array(random, shape, "float", -1, 1)
            a = np.rint(a / UNIT) * UNIT
        return Use(function, [a], [True], options, (), 8 if function is np.corrcoef else 1.6)
    if function is np.take_along_axis:
        if not shape or 0 in shape:
            shape = (3, 2)
            a = array(random, shape)
        at = int(random.integers(-len(shape), len(shape)))
        wanted = list(shape)
        wanted[at] = int(random.integers(0, 4))
        places = random.integers(0, shape[at], wanted)
        return Use(
            function,
            [a, places],
            pick(random, [True, True], [True, False], [False, True]),
            {"axis": at},
        )
    options = {"axis": axis} | ({"kind": "stable"} if function is np.argsort else {})
    return Use(function, [a], [True], options)


FAMILIES = (reductions, elementwise, of_one, products, moves, joins, orders)


def draw(seed):
    """Return the use of a seed."""
    random = np.random.default_rng(seed)
    return FAMILIES[random.integers(len(FAMILIES))](random)


def _wanted(use):
    """Return NumPy's answer, or its error; bits are numbers where it does not subtract bits."""
    try:
        return parts(use(use.arrays))
    except Exception as error:  # whatever NumPy raises
        if "boolean subtract" not in str(error):
            return error
    return parts(use([a.astype(int) if a.dtype == bool else a for a in use.arrays]))


def run(session, use):
    """Compare a use with NumPy's; return "right", "wrong to both", or why Sotto alone refuses it."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = _wanted(use)
    owner = session.parties
    try:
        given = [
            session.share(a, owner=owner[k % len(owner)]) if secret else a
            for k, (a, secret) in enumerate(zip(use.arrays, use.secret, strict=True))
        ]
        got = parts(use(given))
    except mpc.SottoError as error:
        # No answer to compare with, or one that no format holds.
        unanswered = isinstance(want, Exception) or not all(np.isfinite(one).all() for one in want)
        return "wrong to both" if unanswered else f"{type(error).__name__}: {error}"
    if isinstance(want, ZeroDivisionError) or "cannot reshape array of size 0" in str(want):
        # np.average and np.median of no rows, which have averages of their own shape.
        return "right"
    if isinstance(want, Exception):
        raise AssertionError(f"{use}: NumPy raises {want!r}, got {got}")
    assert len(got) == len(want), f"{use}: {len(got)} results, NumPy has {len(want)}"
    for mine, theirs in zip(got, want, strict=True):
        theirs = np.asarray(theirs)
        assert np.shape(mine) == theirs.shape, f"{use}: {np.shape(mine)}, NumPy has {theirs.shape}"
        exact = theirs.astype(np.float64)
        allowed = use.units * UNIT + use.relative * np.abs(exact) + 1e-9
        wrong = ~(np.abs(np.asarray(mine, np.float64) - exact) <= allowed)
        assert not wrong.any(), f"{use}: {mine}, NumPy has {theirs}"
    return "right"
