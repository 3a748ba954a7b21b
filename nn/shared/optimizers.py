"""Optimizers on shares: all parameters of a network are one secret vector.

Weights and optimizer state have the format's fractional bits and its guard bits, 16 + 8 = 24 in the
usual format, since a step changes a weight by far less than the format's unit. Rates are fractions with
a power-of-two denominator, see :class:`mpc.protocols.combination.Fraction`: 16 significant bits, and
multiples of 2^-24 for a learning rate over the number of rows. The truncation that a step needs anyway
divides by the denominator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

from mpc import Session, SharedArray
from mpc.core.errors import ArgumentError, DtypeError, RangeError
from mpc.protocols import inverse_root, product, truncation
from mpc.protocols.combination import Fraction, combine
from nn.shared.range import LONG_BLOCK, RangeWatch
from nn.training.optimizers import EPSILON, SGD, Adam, Optimizer

__all__ = ["SharedOptimizer", "on_shares"]

# Fractional bits before the truncation of a step, at most.
_MOST_BITS = 56
# What is then left for the magnitude: a step changes a weight by less.
_ROOM = 2.0 ** (truncation.OFFSET_BITS - _MOST_BITS)
# Limit of h, Adam's scaled gradient, whose square has 36 fractional bits.
_LARGEST_H = 2.0**12

Terms = Sequence[tuple[SharedArray, Fraction]]


class SharedOptimizer(ABC):
    """Base class: ``step`` gives the parameters after one step.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    state : dict of str to SharedArray of shape (parameters,)
        Velocity or moments, by name, as checkpoints keep them. Empty before the first step.
    steps : int
        Number of steps so far.
    """

    def __init__(self, session: Session) -> None:
        self.frac_bits = session.format.frac_bits + session.format.guard_bits
        self.state: dict[str, SharedArray] = {}
        self.steps = 0

    @abstractmethod
    def step(
        self,
        weights: SharedArray,
        gradient: SharedArray,
        rows: int,
        scale: float,
        watch: RangeWatch | None = None,
    ) -> SharedArray:
        """Make one step.

        Parameters
        ----------
        weights : SharedArray of shape (parameters,)
        gradient : SharedArray of the same shape
            Gradient of the loss, summed over the rows.
        rows : int
            Number of rows.
        scale : float
            Factor on the learning rate for this step.
        watch : RangeWatch, optional
            Checks what must stay in range.

        Returns
        -------
        SharedArray of shape (parameters,)
            The parameters after the step.
        """

    def _check_rate(self, rate: float, frac_bits: int, rows: int) -> None:
        """Raise RangeError if the first step's rate / rows, the largest, rounds to no fraction."""
        least = max(0, _MOST_BITS - frac_bits)
        if rate / rows < 2.0**-least:
            over = f" times the {rows} rows of a batch" if rows > 1 else ""
            raise RangeError(
                f"learning_rate must be at least {f'2^-{least}' if least else '1'}{over} in this"
                f" fixed-point format, {rows * 2.0**-least:g}, got {rate:g}"
                f"{'; a smaller batch_size helps' if rows > 1 else ''}"
            )

    def _check_decay(
        self, watch: RangeWatch, weights: SharedArray, decay: float, room: float
    ) -> float:
        """Have the weight decay checked against half of `room`; return the other half."""
        if decay:
            most = 2.0 ** (truncation.OFFSET_BITS - weights.frac_bits - 1)
            watch.add_sums(weights, min(most, room / 2 / decay), LONG_BLOCK)
        return room / 2

    def combined(
        self, terms: Terms, frac_bits: int, watch: RangeWatch | None, what: str
    ) -> SharedArray:
        """Return the sum of arrays times fractions, with `frac_bits`; `watch` checks its range."""
        if watch is not None:
            bits = max(frac_bits, *(x.frac_bits + c.bits for x, c in terms if c.numerator), 0)
            watch.total_below(terms, 2.0 ** (truncation.OFFSET_BITS - bits), what)
        return combine(terms, frac_bits)

    def fraction(self, value: float, frac_bits: int) -> Fraction:
        """Return the fraction for a factor of an array with `frac_bits` fractional bits."""
        return Fraction.nearest(value, max(0, _MOST_BITS - frac_bits))


class SharedSGD(SharedOptimizer):
    """Gradient descent with momentum on shares.

    1 round a step; a party sends 8 bytes a parameter to each other party.
    """

    def __init__(self, session: Session, rule: SGD, rows: int) -> None:
        super().__init__(session)
        self.rule = rule
        self._check_rate(rule.learning_rate, 2 * session.format.frac_bits, rows)
        if self.fraction(rule.momentum, self.frac_bits).value >= 1:
            raise RangeError(f"momentum must be at most 1 - 2^-16 on shares, got {rule.momentum!r}")

    def step(
        self,
        weights: SharedArray,
        gradient: SharedArray,
        rows: int,
        scale: float,
        watch: RangeWatch | None = None,
    ) -> SharedArray:
        rate = self.rule.learning_rate * scale
        if watch is not None:
            # Half of the room is for the gradient, half for velocity and decay.
            room = _ROOM / 2
            most = 2.0 ** (truncation.OFFSET_BITS - gradient.frac_bits - 1)
            limit = min(most, room * rows / rate) if rate else most
            watch.add_sums(gradient, limit, LONG_BLOCK)
            if self.rule.weight_decay:
                room = self._check_decay(watch, weights, rate * self.rule.weight_decay, room)
            if self.state and self.rule.momentum:
                watch.add_sums(self.state["velocity"], room, LONG_BLOCK)
        terms = [(gradient, self.fraction(-rate / rows, gradient.frac_bits))]
        if self.rule.weight_decay:
            decay = self.fraction(-rate * self.rule.weight_decay, weights.frac_bits)
            terms.append((weights, decay))
        if self.state and self.rule.momentum:
            velocity = self.state["velocity"]
            terms.append((velocity, self.fraction(self.rule.momentum, velocity.frac_bits)))
        velocity = self.combined(terms, self.frac_bits, watch, "a step's change of the weights")
        self.state["velocity"] = velocity
        self.steps += 1
        return weights + velocity


class SharedAdam(SharedOptimizer):
    """Adam and AdamW on shares: 46 rounds, about 350 bytes a parameter.

    Moments are those of h, 16 times the gradient's mean over the rows. h has 18 fractional bits, the
    first moment m 24, the second moment v 36. The step is m / sqrt(max(v, 2^-36)), where 2^-36 takes
    the place of epsilon, with an error of at most 1e-3, see :mod:`mpc.protocols.inverse_root`. v must
    stay below 2^10, so mean gradients must stay below 2 in the long run: inputs in [0, 255] lead to
    larger ones, and have to be scaled down. The range watch checks it. 1 - beta_1 and 1 - beta_2 are
    rounded to multiples of 2^-16.
    """

    _GRADIENT_SCALE = 16.0
    _GRADIENT_BITS = 18
    _RATIO_BITS = 28

    def __init__(self, session: Session, rule: Adam, rows: int) -> None:
        super().__init__(session)
        self.rule = rule
        if rule.epsilon != EPSILON:
            raise ArgumentError(
                f"epsilon must be left at {EPSILON:g} on shares, where the root of the second moment"
                f" counts as at least 2^-22 in its place, got {rule.epsilon!r}"
            )
        for name, beta in (("beta_1", rule.beta_1), ("beta_2", rule.beta_2)):
            if beta > 1 - 2.0**-16:
                raise RangeError(f"{name} must be at most 1 - 2^-16 on shares, got {beta!r}")
        self._check_rate(rule.learning_rate, self._RATIO_BITS, 1)
        least = max(0, _MOST_BITS - 2 * session.format.frac_bits)
        if self._GRADIENT_SCALE / rows < 2.0**-least:
            raise RangeError(
                f"batch_size must be at most {self._GRADIENT_SCALE * 2**least:g} for Adam in this"
                f" fixed-point format, got {rows}"
            )

    def step(
        self,
        weights: SharedArray,
        gradient: SharedArray,
        rows: int,
        scale: float,
        watch: RangeWatch | None = None,
    ) -> SharedArray:
        rule = self.rule
        mean = self.fraction(self._GRADIENT_SCALE / rows, gradient.frac_bits)
        if watch is not None:
            # With h below `largest`, v stays below four times its limit. Its words begin to repeat
            # there, so the comparison below finds every v beyond the limit.
            new = _weight_of_new(rule.beta_2).value
            largest = min(_LARGEST_H, math.sqrt(3 * inverse_root.X_LIMIT / new))
            # The sums take h for outside from largest / 12 on, where v must still be in range.
            narrow = new > 2.0**-8
            limit = _LARGEST_H if narrow else largest
            watch.add_sums(gradient, limit * rows / self._GRADIENT_SCALE)
        h = self.combined([(gradient, mean)], self._GRADIENT_BITS, watch, "the mean gradient")
        if watch is not None:
            if narrow:
                watch.compare(h, largest)
            watch.below(h, _LARGEST_H, "16 times the mean gradient")
        square = product.multiply(h, h, whole=True)
        first = self._moment("first", h, rule.beta_1, inverse_root.M_BITS, watch)
        second = self._moment("second", square, rule.beta_2, inverse_root.X_BITS, watch)
        if watch is not None:
            watch.below(second, inverse_root.X_LIMIT, "Adam's second moment")
            # Negative if its truncation has wrapped around.
            watch.compare(second, inverse_root.X_LIMIT, least=0)
            watch.ratio_below(first, second, 2.0**-inverse_root.X_BITS, 2.0**9)
        # The range watch checks these bounds.
        ratio = inverse_root.times_inverse_root(
            first.with_integer_bound(inverse_root.M_BOUND),
            second.with_integer_bound(int(inverse_root.X_LIMIT) << inverse_root.X_BITS),
        )
        ratio = truncation.truncate(ratio, ratio.frac_bits - self._RATIO_BITS)
        self.steps += 1
        # Both moments start at zero; these factors undo that bias.
        rate = rule.learning_rate * scale
        unbias = [
            1 - (1 - _weight_of_new(beta).value) ** self.steps
            for beta in (rule.beta_1, rule.beta_2)
        ]
        size = rate * math.sqrt(unbias[1]) / unbias[0]
        terms = [(ratio, self.fraction(-size, ratio.frac_bits))]
        if rule.weight_decay:
            if watch is not None:
                self._check_decay(watch, weights, rate * rule.weight_decay, _ROOM)
            terms.append((weights, self.fraction(-rate * rule.weight_decay, weights.frac_bits)))
        return weights + self.combined(
            terms, self.frac_bits, watch, "a step's change of the weights"
        )

    def _moment(
        self, name: str, value: SharedArray, beta: float, frac_bits: int, watch: RangeWatch | None
    ) -> SharedArray:
        """Update the running mean `name` by a new value, and return it."""
        new = _weight_of_new(beta)
        terms = [(value, new)]
        if name in self.state:
            terms.append((self.state[name], Fraction((1 << 16) - new.numerator, 16)))
        self.state[name] = self.combined(terms, frac_bits, watch, f"Adam's {name} moment")
        return self.state[name]


def _weight_of_new(beta: float) -> Fraction:
    """Return 1 - beta, the weight of a new value in a running mean."""
    return Fraction(round((1 - beta) * (1 << 16)), 16)


def on_shares(optimizer: Optimizer, session: Session, rows: int = 1) -> SharedOptimizer:
    """Return a new optimizer on shares with the settings of a plain one.

    Parameters
    ----------
    optimizer : SGD or Adam
    session : Session
    rows : int, default=1
        The largest batch.

    Raises
    ------
    ArgumentError, RangeError
        If a setting is not possible on shares.
    DtypeError
        If there is no such optimizer on shares.
    """
    if isinstance(optimizer, SGD):
        return SharedSGD(session, optimizer, rows)
    if isinstance(optimizer, Adam):
        return SharedAdam(session, optimizer, rows)
    raise DtypeError(f"optimizer must be one that works on shares, SGD or Adam, got {optimizer!r}")
