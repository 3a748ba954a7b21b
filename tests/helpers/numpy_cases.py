"""NumPy's functions on secrets: a use of each, its domain and its error. The docs have it as a table."""

import inspect
from dataclasses import dataclass

import numpy as np

UNIT = 2.0**-16
SHAPE = (4, 6)
WEIGHTS = np.linspace(0.5, 2, 24).reshape(SHAPE)
EDGES = [-6, -1.5, 0, 0.5, 4]


@dataclass(frozen=True)
class Case:
    """A use of a function.

    `call` takes arrays of `shape`, secret or public, with values from `low` to `high`. A result may be off
    by `units` units of 2^-16, and by the fraction `relative` of itself.
    """

    function: object
    call: object
    units: float = 0
    relative: float = 0
    low: float = -8
    high: float = 8
    shape: tuple = SHAPE
    domain: str = "all"
    error: str = ""
    make: object = None

    @property
    def name(self):
        module = self.function.__module__ if hasattr(self.function, "__module__") else "numpy"
        return f"{module or 'numpy'}.{self.function.__name__}".removeprefix("numpy.")

    @property
    def count(self):
        named = inspect.signature(self.call).parameters.values()
        return sum(one.default is one.empty for one in named)

    def arrays(self, random):
        """Return arrays of values that the format holds exactly."""
        if self.make is not None:
            return self.make(random)
        low, high = round(self.low / UNIT), round(self.high / UNIT)
        return [random.integers(low, high + 1, self.shape) * UNIT for _ in range(self.count)]

    @property
    def stated(self):
        """The error, as text."""
        if self.error:
            return self.error
        parts = []
        if self.relative:
            parts.append(f"2^{np.log2(self.relative):g} of the result")
        if self.units:
            parts.append(f"{self.units:g} unit{'s' * (self.units != 1)}")
        return " and ".join(parts) or "exact"

    def allowed(self, want):
        return self.units * UNIT + self.relative * np.abs(want) + 1e-12


def positive_definite(random):
    rows = random.normal(size=(40, 3)) + [1, 0, 0]
    a = np.rint(rows.T @ rows / 40 / UNIT) * UNIT
    a = (a + a.T) / 2
    a = np.rint(a / UNIT) * UNIT
    return [a, np.rint(random.uniform(-4, 4, 3) / UNIT) * UNIT]


def spread(random):
    """Rows whose deviations are at least 1."""
    base = np.linspace(-4, 4, 6)
    noise = random.uniform(-1, 1, SHAPE)
    return [np.rint((base + noise) / UNIT) * UNIT]


def spread_two(random):
    return [spread(random)[0], np.rint((1.5 + random.uniform(-1, 1, SHAPE)) / UNIT) * UNIT]


F, G = lambda f: lambda x: f(x), lambda f: lambda x, y: f(x, y)
IN_RANGE = "results below 2^30"
SORTED = "values by their bound below 2^(62 - 2 - log2 n)"
DEVIATION = "1024 squared deviations add up to less than 2^30"

ELEMENTWISE = [
    *(Case(f, G(f)) for f in (np.add, np.subtract, np.maximum, np.minimum, np.fmax, np.fmin)),
    Case(np.multiply, G(np.multiply), 1, domain=IN_RANGE),
    Case(np.true_divide, G(np.divide), 1.1, 2**-18.5, 0.25, 8, domain="y not 0, |x / y| below 2^14"),
    Case(np.reciprocal, F(np.reciprocal), 1.3, 2**-18.5, 0.25, 8, domain="|x| above 2^-15"),
    Case(np.square, F(np.square), 1, domain=IN_RANGE),
    Case(np.power, lambda x: np.power(x, 0.25), 2.2, 2**-18, 0.01, 8,
         domain="public exponent, x > 0; a whole one above 0 by products"),
    Case(np.sqrt, F(np.sqrt), 2.1, 2**-19, 0, 64, domain="0 <= x < 2^30"),
    Case(np.exp, F(np.exp), 3.5, 2**-18.5, -12, 10, domain="x below 10.39"),
    Case(np.exp2, F(np.exp2), 4.5, 2**-15, -16, 14, domain="x below 14.9"),
    Case(np.expm1, F(np.expm1), 3.5, 2**-18.5, 1, 8, domain="x below 10.39",
         error="2^-18.5 of e^x and 3.5 units"),
    Case(np.log, F(np.log), 2, 2**-19, 0.01, 64, domain="x > 0"),
    Case(np.log1p, F(np.log1p), 2, 2**-19, -0.9, 64, domain="x > -1"),
    Case(np.log2, F(np.log2), 4, 2**-19, 0.01, 64, domain="x > 0"),
    Case(np.log10, F(np.log10), 2, 2**-19, 0.01, 64, domain="x > 0"),
    Case(np.hypot, G(np.hypot), 3, 2**-19, 1, 8, domain="x^2 + y^2 below 2^30",
         error="2^-19 of the result and 3 units, from 1 on"),
    Case(np.sin, F(np.sin), 4.2, low=-1000, high=1000, domain="|x| below 2^19", error="6.4e-5"),
    Case(np.cos, F(np.cos), 4.2, low=-1000, high=1000, domain="|x| below 2^19", error="6.4e-5"),
    Case(np.tanh, F(np.tanh), 5.2, error="7.8e-5"),
    *(Case(f, F(f)) for f in (
        np.negative, np.positive, np.absolute, np.fabs, np.conjugate, np.sign, np.floor, np.ceil, np.rint,
        np.trunc)),
    *(Case(f, lambda x, f=f: f(x, 1), 1.1, domain="x 10^d below 2^46",
           error="exact for decimals=0, else 1.1 units") for f in (np.round, np.around)),
    *(Case(f, F(f), 1.1) for f in (np.radians, np.deg2rad)),
    *(Case(f, F(f), 1.1) for f in (np.degrees, np.rad2deg)),
    *(Case(f, G(f)) for f in (
        np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal)),
    Case(np.isclose, lambda x, y: np.isclose(x, y, rtol=0, atol=2.0),
         error="rtol |y| + atol is rounded by a unit"),
    *(Case(f, lambda x, y, f=f: f(x > 0, y > 0), domain="secret bits") for f in (
        np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.logical_and, np.logical_or, np.logical_xor)),
    *(Case(f, lambda x, f=f: f(x > 0), domain="secret bits") for f in (np.invert, np.logical_not)),
    Case(np.where, lambda x, y: np.where(x > y, x, y)),
    Case(np.clip, lambda x: np.clip(x, -1, 2.5)),
]  # fmt: skip

REDUCTIONS = [
    Case(np.sum, lambda x: np.sum(x, axis=1, keepdims=True)),
    Case(np.mean, lambda x: np.mean(x, axis=1), 1.1),
    Case(np.average, lambda x, y: np.average(x, axis=1, weights=y), 1.1, 2**-18.5, 1, 8,
         domain="result below 2^14; public weights: all",
         error="2^-18.5 of the result and 1.1 units; public weights: 1.1 units for 1024 values"),
    Case(np.var, lambda x: np.var(x, axis=1, ddof=1), 1.1, domain=DEVIATION,
         error="1.1 units, 2.1 for n > 1024"),
    Case(np.std, lambda x: np.std(x, axis=1), 3, 2**-19, domain=DEVIATION, make=spread,
         error="2^-19 of the result and 3 units, from 1 on; near 0 up to 2^-8"),
    Case(np.prod, lambda x: np.prod(x[:, :4], axis=1), 3, low=-1, high=1, domain=IN_RANGE,
         error="a unit a product, times the other factors"),
    Case(np.cumsum, lambda x: np.cumsum(x, axis=1)),
    Case(np.cumprod, lambda x: np.cumprod(x[:, :4], axis=1), 3, low=-1, high=1, domain=IN_RANGE,
         error="a unit a product, times the other factors"),
    Case(np.diff, lambda x: np.diff(x, 2, axis=0)),
    Case(np.ediff1d, F(np.ediff1d)),
    *(Case(f, lambda x, f=f: f(x, axis=1)) for f in (np.max, np.amax, np.min, np.amin)),
    Case(np.ptp, lambda x: np.ptp(x, axis=1)),
    Case(np.argmax, lambda x: np.argmax(x, axis=1)),
    Case(np.argmin, lambda x: np.argmin(x, axis=1)),
    Case(np.any, lambda x: np.any(x > 7, axis=1)),
    Case(np.all, lambda x: np.all(x > -7, axis=1)),
    Case(np.count_nonzero, lambda x: np.count_nonzero(x > 1)),
    Case(np.allclose, lambda x, y: np.allclose(x, y, rtol=0, atol=15.0), error="as isclose"),
    Case(np.array_equal, lambda x: np.array_equal(x, x)),
    Case(np.cov, lambda x: np.cov(x), 1.1, domain=DEVIATION, error="1.1 units, 2.1 for n > 1024"),
    Case(np.corrcoef, lambda x, y: np.corrcoef(x[0], y[0]), 8, low=-8, make=spread_two,
         domain="deviations from 0.4 on", error="8 units for deviations from 0.4 on"),
    Case(np.histogram, lambda x: np.histogram(x, EDGES), domain="public bins"),
    Case(np.digitize, lambda x: np.digitize(x, EDGES), domain="public bins"),
    Case(np.searchsorted, lambda x: np.searchsorted(EDGES, x), domain="public, ascending a"),
]  # fmt: skip

SORTING = [
    Case(np.sort, lambda x: np.sort(x, axis=1), domain="all"),
    Case(np.argsort, lambda x: np.argsort(x, axis=1, kind="stable"), domain=SORTED),
    Case(np.median, lambda x: np.median(x, axis=1), 1.1),
    Case(np.quantile, lambda x: np.quantile(x, [0.2, 0.9], axis=1), 1.1, domain="public q"),
    Case(np.percentile, lambda x: np.percentile(x, 30, axis=1), 1.1, domain="public q"),
    Case(np.take_along_axis, lambda x: np.take_along_axis(x, np.argsort(x, axis=1, kind="stable"), 1),
         domain="public or secret indices, or one-hot bits"),
]  # fmt: skip

PRODUCTS = [
    Case(np.matmul, lambda x, y: np.matmul(x, y.T), 1, domain=IN_RANGE),
    Case(np.dot, lambda x, y: np.dot(x, y.T), 1, domain=IN_RANGE),
    Case(np.vdot, G(np.vdot), 1, domain=IN_RANGE),
    Case(np.inner, G(np.inner), 1, domain=IN_RANGE),
    Case(np.outer, G(np.outer), 1, domain=IN_RANGE),
    Case(np.kron, lambda x, y: np.kron(x, y[:2]), 1, domain=IN_RANGE),
    Case(np.tensordot, lambda x, y: np.tensordot(x, y, ([0], [0])), 1, domain=IN_RANGE),
    Case(np.einsum, lambda x, y: np.einsum("ij,kj->ik", x, y), 1, domain=IN_RANGE,
         error="a unit a product"),
    Case(np.trace, F(np.trace)),
    Case(np.linalg.norm, lambda x: np.linalg.norm(x, axis=1), 3, 2**-19, 1, 8, domain="squares below 2^30",
         error="2^-19 of the result and 3 units, from 1 on"),
    Case(np.linalg.solve, lambda x, y: np.linalg.solve(x, y), 2, make=positive_definite, shape=(3, 3),
         domain="positive definite, up to 16 equations", error="2 units up to a condition of 1000"),
    Case(np.linalg.inv, lambda x: np.linalg.inv(x), 2, make=lambda r: positive_definite(r)[:1],
         shape=(3, 3), domain="as linalg.solve", error="2 units up to a condition of 1000"),
]  # fmt: skip

SHAPES = [
    Case(np.reshape, lambda x: np.reshape(x, (3, 8))),
    Case(np.ravel, F(np.ravel)),
    Case(np.transpose, F(np.transpose)),
    Case(np.matrix_transpose, F(np.matrix_transpose)),
    Case(np.swapaxes, lambda x: np.swapaxes(x, 0, 1)),
    Case(np.moveaxis, lambda x: np.moveaxis(x[None], [0, 2], [1, 0])),
    Case(np.squeeze, lambda x: np.squeeze(x[:1], axis=0)),
    Case(np.expand_dims, lambda x: np.expand_dims(x, (0, 2))),
    *(Case(f, lambda x, f=f: f(x[0])) for f in (np.atleast_1d, np.atleast_2d, np.atleast_3d)),
    Case(np.concatenate, lambda x: np.concatenate([x, WEIGHTS], axis=1), 0.5,
         error="exact; public values are rounded to the format"),
    *(Case(f, lambda x, y, f=f: f([x, y])) for f in (np.stack, np.hstack, np.vstack, np.dstack)),
    Case(np.column_stack, lambda x, y: np.column_stack([x[0], y[0]])),
    Case(np.append, lambda x, y: np.append(x, y)),
    Case(np.split, lambda x: np.split(x, 2)),
    Case(np.array_split, lambda x: np.array_split(x, 3, axis=1)),
    Case(np.hsplit, lambda x: np.hsplit(x, [1, 4])),
    Case(np.vsplit, lambda x: np.vsplit(x, 2)),
    Case(np.dsplit, lambda x: np.dsplit(x[None], 2)),
    Case(np.broadcast_to, lambda x: np.broadcast_to(x[:, None], (4, 3, 6))),
    Case(np.broadcast_arrays, lambda x, y: np.broadcast_arrays(x, y[0])),
    Case(np.repeat, lambda x: np.repeat(x, [2, 0, 1, 3], axis=0)),
    Case(np.tile, lambda x: np.tile(x, (2, 1, 3))),
    Case(np.roll, lambda x: np.roll(x, (1, -2), axis=(0, 1))),
    *(Case(f, F(f)) for f in (np.flip, np.fliplr, np.flipud, np.rot90)),
    Case(np.delete, lambda x: np.delete(x, [0, 2], axis=1)),
    Case(np.resize, lambda x: np.resize(x, (5, 7))),
    Case(np.pad, lambda x: np.pad(x, ((1, 2), (0, 1)), constant_values=2.5)),
    Case(np.take, lambda x: np.take(x, [[3, -1], [0, 0]], axis=1), domain="public indices"),
    Case(np.diagonal, lambda x: np.diagonal(x, 1)),
    Case(np.diag, lambda x: np.diag(x[0], -1)),
    Case(np.diagflat, lambda x: np.diagflat(x[:2, :2])),
    Case(np.tril, lambda x: np.tril(x, 1)),
    Case(np.triu, F(np.triu)),
    Case(np.copy, F(np.copy)),
    *(Case(f, F(f)) for f in (np.zeros_like, np.ones_like)),
    Case(np.full_like, lambda x: np.full_like(x, 1.5)),
    *(Case(f, F(f)) for f in (np.shape, np.ndim, np.size)),
]  # fmt: skip

SECTIONS = {
    "Single elements": ELEMENTWISE,
    "Reductions, statistics and counts": REDUCTIONS,
    "Order": SORTING,
    "Products and linear algebra": PRODUCTS,
    "Shapes": SHAPES,
}
CASES = [case for cases in SECTIONS.values() for case in cases]


def parts(result):
    """Return results as a list of arrays, revealed."""
    several = list(result) if isinstance(result, (tuple, list)) else [result]
    return [part.reveal() if hasattr(part, "reveal") else part for part in several]
