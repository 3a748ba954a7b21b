"""Linear and logistic regression on shares.

Least squares:
1. Columns, A = D Z' W Z D / 2^k, the scaled penalty Q, and b = D Z' W y E / 2^k, E being the scale of y:
   :mod:`nn.shared.equations`.
2. M = the inverse of A + Q + 2^-18.
3. w = M b, then seven times w <- w + M (b - (A + Q) w), the residual with 34 bits behind the point.
4. Two bits are opened: whether the last step was at most 2^-13, and whether the answer D w / E fits the
   format. A step in a direction with the eigenvalue e is e / (e + 2^-18) of what is missing there. So if it
   is small, w is right in all directions but those in which the columns hardly vary, e < 2^-28, which
   count as linearly dependent: there w stays 0.
About 120 rounds.

Logistic regression, by Newton's method from u = 0:
1. p = the sigmoid of Z u, the softmax for three or more classes; g = D (Z' W (p - y) / 2^k + penalty u).
2. H = D Z' W V Z D / 2^k + Q with V the derivatives of p; s = (H + 2^-17)^-1 g.
3. One bit is opened: whether no entry of s is above `tol`. Then u - D s is the answer.
4. Otherwise u becomes u - D s; while that makes the squared norm of g more than twice as large, with half
   the step, four times at most. Two bits are opened for each try: whether it does, and whether u is in
   range, below 2^11.
Of several classes u has a column each. What all of them have in common is without influence: H has an
eigenvalue of 1 more there, and in the end the mean over the classes is subtracted, as in scikit-learn's
answer.
About 85 rounds a step.

Overflow: a sum of products is bounded by public sizes, as |z| <= 1; the inverse by 1 over its floor. u and
the answer are compared with their limits on all 64 bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpc import Session, SharedArray
from mpc.array.linear_algebra import A_BITS, M_BITS, inverse, product, shifted
from mpc.core.errors import ArgumentError, RangeError
from mpc.protocols import linear
from nn.shared.equations import SUM_BITS, Columns, Scale, are_none, outside, times, whole

__all__ = ["LARGEST_SYSTEM", "DependentColumnsError", "Logistic", "least_squares", "logistic"]

# Unknowns of one system of equations.
LARGEST_SYSTEM = 256
_FLOOR, _LOGISTIC_FLOOR = 2.0**-18, 2.0**-17
_STEPS = 8
_LAST_STEP = 2.0**-13
# Bits behind the point: of unknowns, and of a gradient that is multiplied with an inverse.
_U_BITS, _GRADIENT_BITS = 20, 26
_HALVINGS = 4
_LEAST_BITS = 8
# u is below 2^11, the answer of least squares below 2^20.
_LARGEST_U, _REACH = 11, 1 << 40
_NORM_BITS = 16
_PENALTY_BITS, _MOST_PENALTY_BITS = 26, 60
_PULL_BITS = 44
# Of derivatives of p times weights, at most.
_V_BITS = 30
# Rows are divided by 2^40 at most for the sake of the penalty.
_MOST_EXPONENT = 40
# Columns with coefficients below 2^2 alone are refused.
_LEAST_COEFFICIENT = 2
# No step is larger.
_LARGEST_TOL = 2.0**20
# Words of sums of products, and words that an element of weighted columns takes at once for each party.
_ROOM, _WORDS_EACH = 60, 4


class DependentColumnsError(ArgumentError):
    """The columns of a regression are so near to linearly dependent that it has no certain answer."""


@dataclass(frozen=True)
class _Weights:
    """Weights of the rows as whole numbers of shape (rows, 1), at most 1 with `bits`.

    They are 2^exponent times as large.
    """

    numbers: SharedArray | None
    bits: int = 0
    exponent: int = 0

    @classmethod
    def of(cls, weights: SharedArray | None) -> _Weights:
        if weights is None:
            return cls(None)
        frac_bits = weights.session.format.frac_bits
        w = linear.at_bits(weights.truncate(), frac_bits)
        bits = max(1, w.bound.bit_length())
        return cls(whole(w, w.bound).reshape(-1, 1), bits, bits - frac_bits)

    def of_rows(
        self, x: SharedArray, bits: int, most: int | None = None
    ) -> tuple[SharedArray, int]:
        """Return w x and its bits, for numbers x of shape (..., rows, columns) of at most 1 with `bits`.

        The result has up to `most` bits, so that small weights keep their places, else as many as x.
        """
        if self.numbers is None:
            return x, bits
        kept = min(self.bits + bits, bits if most is None else max(bits, most))
        return times(x, self.numbers, self.bits + bits - kept, 1 << self.bits + bits), kept


def _columns(
    X: SharedArray, alpha: NDArray[np.float64], intercept: bool, weights: _Weights
) -> tuple[Columns, NDArray[np.float64]]:
    """Return the columns, and the penalty of each of them, at most 1/2."""
    halvings = (len(X) - 1).bit_length() + weights.exponent
    # A larger one leaves no digit of a coefficient.
    alpha = np.minimum(alpha, np.ldexp(1.0, halvings + 2 * _MOST_EXPONENT - 1))
    largest = float(alpha.max(initial=0.0))
    least = math.ceil((math.log2(largest) - halvings + 1) / 2) if largest > 0 else 0
    columns = Columns.of(X, intercept, max(0, least))
    penalty = np.ldexp(alpha, -halvings - 2 * columns.exponent)
    return columns, np.append(penalty, 0.0) if intercept else penalty


def _check(session: Session, unknowns: int) -> None:
    if session.format.frac_bits < _LEAST_BITS:
        raise RangeError(
            f"a regression needs a format with at least {_LEAST_BITS} fractional bits, got"
            f" {session.format.frac_bits}"
        )
    if unknowns > LARGEST_SYSTEM:
        raise ArgumentError(
            f"X must have so few features that there are at most {LARGEST_SYSTEM} unknowns, which are"
            f" features and intercept, times classes if there are three or more, got {unknowns};"
            " nn.MLP((features, outputs)) takes more"
        )


def _diagonal(values: SharedArray) -> SharedArray:
    """Return a matrix with these numbers on its diagonal."""
    return linear.multiply_integers(values.reshape(-1, 1), np.eye(values.size, dtype=np.int64))


def _targets(y: SharedArray, columns: Columns) -> tuple[SharedArray, int, int]:
    """Return y / 2^c as whole numbers, the bits with which they are at most 1, and c."""
    frac_bits = y.session.format.frac_bits
    y = linear.at_bits(y.truncate(), frac_bits)
    bits = max(1, y.bound.bit_length())
    gain = bits - frac_bits
    lost = max(0, columns.rows_exponent + columns.bits + bits - _ROOM)
    y = whole(y, y.bound)
    return (shifted(y, lost) if lost else y), bits - lost, gain


def _too_large(session: Session) -> RangeError:
    return RangeError(
        f"a coefficient or an intercept does not fit the format, below {session.format.limit:g}, or a"
        " score not the ring; a larger penalty makes them smaller, or columns of the order of 1"
    )


def least_squares(
    X: SharedArray,
    y: SharedArray,
    alpha: NDArray[np.float64],
    intercept: bool,
    weights: SharedArray | None = None,
) -> tuple[SharedArray, SharedArray]:
    """Return coefficients of shape (features, outputs) and intercepts (outputs,).

    They minimise the sum of w (y - x c - i)^2 over the rows and outputs, and of alpha_j c_j^2.

    Parameters
    ----------
    X : SharedArray of shape (rows, features)
    y : SharedArray of shape (rows, outputs)
    alpha : array of shape (features,)
        Public.
    intercept : bool
    weights : SharedArray of shape (rows,), optional

    Raises
    ------
    ArgumentError
        If there are more than 256 unknowns.
    DependentColumnsError
        If the columns are nearly linearly dependent.
    RangeError
        If an answer does not fit the format.
    """
    session = X.session
    _check(session, X.shape[1] + intercept)
    with session.range_policy.vouched():
        w = _Weights.of(weights)
        columns, penalty = _columns(X, alpha, intercept, w)
        sums = columns.sums(*w.of_rows(columns.z, columns.bits, columns.room))
        scale = columns.scale(sums, penalty)
        a = scale.of_matrix(sums) + _diagonal(scale.of_penalty(penalty))
        targets, target_bits, gain = _targets(y, columns)
        spread = Scale(columns.sums_of_squares(targets, target_bits))
        both = times(scale.power, spread.power.T, 0, 1 << 2 * spread.inverse_bits)
        b = columns.sums(*w.of_rows(targets, target_bits, columns.room))
        b = times(b, both, SUM_BITS - A_BITS, 1 << SUM_BITS + 1)
        m = inverse(a, _FLOOR, 1.6 * columns.count)
        solution = step = product(m, b, M_BITS + A_BITS - _U_BITS, 1 << _ROOM)
        for _ in range(_STEPS - 1):
            solution = solution.with_integer_bound(_REACH)
            rest = b - product(a, solution, _U_BITS, 1 << A_BITS + _U_BITS + 2)
            step = product(m, rest, M_BITS + A_BITS - _U_BITS, 1 << _ROOM)
            solution = solution + step
        far = outside(step, round(math.ldexp(_LAST_STEP, _U_BITS)))
        both = times(scale.power, spread.inverse.T, 0, 1 << 2 * spread.inverse_bits)
        u = times(solution.with_integer_bound(_REACH), both, 0, 1 << _ROOM)
        bits = _U_BITS + spread.inverse_bits
        coefficients, intercepts, large = columns.coefficients(u, bits, gain)
        near, fit = are_none(far, large)
    if not near:
        raise DependentColumnsError(
            "the columns of X are nearly linearly dependent, so that their coefficients are not determined"
            " in this format: alpha above 0, without one of them, or with more fractional bits"
        )
    if not fit:
        raise _too_large(session)
    return coefficients, intercepts


@dataclass(frozen=True)
class Logistic:
    """The answer of :func:`logistic`.

    Attributes
    ----------
    coefficients : SharedArray of shape (features, outputs)
    intercepts : SharedArray of shape (outputs,)
    steps : int
        Of Newton's method.
    converged : bool
    """

    coefficients: SharedArray
    intercepts: SharedArray
    steps: int
    converged: bool


def logistic(
    X: SharedArray,
    y: SharedArray,
    alpha: NDArray[np.float64],
    intercept: bool,
    weights: SharedArray | None = None,
    *,
    max_iter: int,
    tol: float,
) -> Logistic:
    """Minimise the sum of w times the cross-entropy over the rows, and of alpha_j c_j^2 / 2.

    Parameters
    ----------
    X : SharedArray of shape (rows, features)
    y : SharedArray of shape (rows, 1) or (rows, classes)
        0 and 1, or one-hot rows of three or more classes.
    alpha : array of shape (features,)
        Public, above 0.
    intercept : bool
    weights : SharedArray of shape (rows,), optional
    max_iter : int
    tol : float
        A step that moves no coefficient of a column, scaled to a deviation of 1/2 to 1, by more ends the
        fit.

    Raises
    ------
    ArgumentError
        If there are more than 256 unknowns.
    RangeError
        If a value leaves the range.
    """
    session = X.session
    _check(session, (X.shape[1] + intercept) * y.shape[1])
    with session.range_policy.vouched():
        return _Newton(X, y, alpha, intercept, _Weights.of(weights)).run(max_iter, tol)


class _Newton:
    """Newton's method for one logistic regression."""

    def __init__(
        self,
        X: SharedArray,
        y: SharedArray,
        alpha: NDArray[np.float64],
        intercept: bool,
        weights: _Weights,
    ) -> None:
        self.session, self.weights = X.session, weights
        self.columns, self.penalty = _columns(X, alpha, intercept, weights)
        self.frac_bits = X.session.format.frac_bits
        self.y = whole(linear.at_bits(y.truncate(), self.frac_bits), 1 << self.frac_bits)
        self.outputs = y.shape[1]
        sums = self.columns.sums(
            *weights.of_rows(self.columns.z, self.columns.bits, self.columns.room)
        )
        self.scale = self.columns.scale(sums, self.penalty)
        self.pull = _diagonal(
            linear.concatenate([self.scale.of_penalty(self.penalty)] * self.outputs)
        )
        # The largest magnitude of u, so that scores fit the ring.
        room = _ROOM - self.columns.bits - _U_BITS - self.columns.count.bit_length()
        room = min(_LARGEST_U, room)
        if room < self.columns.exponent + _LEAST_COEFFICIENT:
            if self.columns.by_penalty:
                raise RangeError(
                    f"the penalty, {alpha.max():g}, is too large for {len(X)} rows with weights of at most"
                    f" {2.0**weights.exponent:g}: a larger C"
                )
            raise RangeError(
                f"X must have a public bound of at most {2.0 ** (room - 1 - _LEAST_COEFFICIENT):g}, so"
                f" that scores fit the ring, got {X.bound / 2**X.frac_bits:g}: share it with bound=, in"
                " columns of the order of 1"
            )
        self.limit = 1 << room + _U_BITS

    def probabilities(self, u: SharedArray) -> SharedArray:
        """Return p, of shape (rows, outputs), as whole numbers with the format's bits."""
        scores = self.columns.z @ u
        bits = self.columns.bits + _U_BITS
        scores = linear.placed(
            scores, bits, min(1 << _ROOM, self.columns.count * self.limit << self.columns.bits)
        )
        p = scores.sigmoid() if self.outputs == 1 else scores.softmax()
        # At most a unit beyond 0 and 1.
        return whole(p.truncate(), 2 << self.frac_bits)

    def gradient(self, p: SharedArray, u: SharedArray) -> SharedArray:
        """Return g, of shape (columns, outputs), with the bits of a gradient."""
        # At most 1 and a unit, and so are their products with weights.
        rest, bits = self.weights.of_rows(p - self.y, self.frac_bits, self.columns.room - 1)
        found = self.columns.sums(rest, bits, _PULL_BITS)
        largest = max(float(self.penalty.max()), 2.0**-_MOST_PENALTY_BITS)
        bits = min(_MOST_PENALTY_BITS, _PENALTY_BITS - math.ceil(math.log2(largest)))
        encoded = np.rint(np.ldexp(self.penalty, bits)).astype(np.int64).reshape(-1, 1)
        pull = linear.placed(linear.multiply_integers(u, encoded), 0, 1 << _ROOM)
        found = found + shifted(pull, bits + _U_BITS - _PULL_BITS)
        return times(found, self.scale.power, _PULL_BITS - _GRADIENT_BITS, 1 << _ROOM)

    def curvature(self, p: SharedArray) -> SharedArray:
        """Return H, of shape (outputs * columns, outputs * columns), with A_BITS."""
        first, second = np.triu_indices(self.outputs)
        bits, one = self.frac_bits, np.where(first == second, 1, 0)
        left = p[:, first]
        if self.outputs == 1:
            v = times(p, (1 << bits) - p, bits, 1 << 2 * bits)
        else:
            v = left * one - times(left, p[:, second], bits, 2 << 2 * bits)
        v, bits = self.weights.of_rows(v, bits, _V_BITS)
        v = v.T.reshape(len(first), -1, 1)
        each = 8 * self.columns.z.size * _WORDS_EACH * (self.session.size + 1)
        at_once = max(1, self.session.memory_limit // each)
        blocks = []
        for k in range(0, len(first), at_once):
            weighted = times(
                self.columns.z, v[k : k + at_once], bits, 2 << self.columns.bits + bits
            )
            blocks.append(self.scale.of_matrix(self.columns.sums(weighted, self.columns.bits)))
        place = np.zeros((self.outputs, self.outputs), np.int64)
        place[first, second] = place[second, first] = np.arange(len(first))
        size = self.outputs * self.columns.count
        found = linear.concatenate(blocks)[place].transpose(0, 2, 1, 3).reshape(size, size)
        if self.outputs > 1:
            common = np.kron(np.ones((self.outputs,) * 2), np.eye(self.columns.count))
            found = found + np.rint(np.ldexp(common / self.outputs, A_BITS)).astype(np.int64)
        return found + self.pull

    def step(self, p: SharedArray, g: SharedArray) -> SharedArray:
        """Return s, of shape (columns, outputs), with the bits of u."""
        share, more = (0.25, 1.0) if self.outputs == 1 else (0.5, 2.0)
        top = 1.1 * (share * self.columns.count + more)
        m = inverse(self.curvature(p), _LOGISTIC_FLOOR, top)
        flat = g.T.reshape(-1, 1)
        s = product(m, flat, M_BITS + _GRADIENT_BITS - _U_BITS, 1 << _ROOM)
        return s.reshape(self.outputs, -1).T

    def norm(self, g: SharedArray) -> SharedArray:
        """Return the squared norm of g."""
        small = shifted(g, _GRADIENT_BITS - _NORM_BITS)
        return times(small, small, 0, 1 << _ROOM).sum()

    def run(self, max_iter: int, tol: float) -> Logistic:
        shape = (self.columns.count, self.outputs)
        u = SharedArray.from_public(self.session, np.zeros(shape, np.int64), 0, self.limit)
        p = self.probabilities(u)
        g = self.gradient(p, u)
        norm = self.norm(g)
        converged, steps = False, 0
        while steps < max_iter and not converged:
            steps += 1
            s = self.step(p, g)
            far = outside(s, int(math.ldexp(min(tol, _LARGEST_TOL), _U_BITS)))
            # A plan goes on, as if it had to.
            converged = are_none(far)[0] and bool(self.session.here)
            for halvings in range(_HALVINGS + 1):
                part = times(s, self.scale.power, 0, 1 << _ROOM)
                moved = u - (shifted(part, halvings) if halvings else part)
                large = outside(moved, self.limit)
                moved = moved.with_integer_bound(self.limit)
                if converged:
                    if not are_none(large)[0]:
                        raise _too_large(self.session)
                    u = moved
                    break
                p_then = self.probabilities(moved)
                g_then = self.gradient(p_then, moved)
                norm_then = self.norm(g_then)
                grown = (norm_then - 2 * norm) > 0
                fits, better = are_none(large, grown)
                if fits and (better or halvings == _HALVINGS):
                    break
            if not converged:
                if not fits:
                    raise _too_large(self.session)
                u, p, g, norm = moved, p_then, g_then, norm_then
        if self.outputs > 1:
            real = linear.placed(u, _U_BITS, self.limit)
            mean = real.mean(axis=1).truncate().reshape(-1, 1)
            u = whole(real - mean, 2 * self.limit)
        coefficients, intercepts, large = self.columns.coefficients(u, _U_BITS, 0)
        if not are_none(large)[0]:
            raise _too_large(self.session)
        return Logistic(coefficients, intercepts, steps, converged)
