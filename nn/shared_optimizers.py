"""Optimizers on shares: all parameters of a network as one secret vector.

Weights and what an optimizer remembers have the format's fractional bits and its guard bits, 24 for
the usual format: a step's changes are far smaller than a weight. Rates are fractions with a
power-of-two denominator, see :class:`mpc.protocols.combination.Fraction`: 16 significant bits, and
steps of 2^-24 for a learning rate over the number of rows. They are part of the truncation that a
step needs anyway.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from mpc import Session, SharedArray
from mpc.errors import DtypeError, RangeError
from mpc.protocols.combination import Fraction, combine
from nn.optimizers import SGD, Optimizer

__all__ = ["SharedOptimizer", "on_shares"]

# Fractional bits before the truncation at most: a change of a weight stays below 2^6 then.
_MOST_BITS = 56


class SharedOptimizer(ABC):
    """Base class: ``step`` gives the parameters after one step.

    Parameters
    ----------
    session : Session

    Attributes
    ----------
    state : dict of str to SharedArray
        What is remembered of earlier steps, for checkpoints. Empty before the first.
    steps : int
        How many steps there were.
    """

    def __init__(self, session: Session) -> None:
        self.frac_bits = session.format.frac_bits + session.format.guard_bits
        self.state: dict[str, SharedArray] = {}
        self.steps = 0

    @abstractmethod
    def step(
        self, weights: SharedArray, gradient: SharedArray, rows: int, scale: float
    ) -> SharedArray:
        """Make one step.

        Parameters
        ----------
        weights : SharedArray of shape (parameters,)
        gradient : SharedArray of the same shape
            Of the loss summed over the rows.
        rows : int
            How many rows.
        scale : float
            Factor on the learning rate for this step.
        """

    def fraction(self, value: float, frac_bits: int) -> Fraction:
        """Return the fraction for a factor of an array with `frac_bits` fractional bits."""
        return Fraction.nearest(value, max(0, _MOST_BITS - frac_bits))


class SharedSGD(SharedOptimizer):
    """Gradient descent with momentum on shares: 1 round, 8 bytes a parameter and other party."""

    def __init__(self, session: Session, rule: SGD) -> None:
        super().__init__(session)
        self.rule = rule
        form = session.format
        if not self.fraction(rule.learning_rate, 2 * form.frac_bits).numerator:
            raise RangeError(
                f"learning_rate must be at least 2^-{_MOST_BITS - 2 * form.frac_bits} in this"
                f" fixed-point format, got {rule.learning_rate:g}"
            )

    def step(
        self, weights: SharedArray, gradient: SharedArray, rows: int, scale: float
    ) -> SharedArray:
        rate = self.rule.learning_rate * scale
        terms = [(gradient, self.fraction(-rate / rows, gradient.frac_bits))]
        if self.rule.weight_decay:
            decay = self.fraction(-rate * self.rule.weight_decay, weights.frac_bits)
            terms.append((weights, decay))
        if self.state and self.rule.momentum:
            velocity = self.state["velocity"]
            terms.append((velocity, self.fraction(self.rule.momentum, velocity.frac_bits)))
        velocity = combine(terms, self.frac_bits)
        self.state["velocity"] = velocity
        self.steps += 1
        return weights + velocity


def on_shares(optimizer: Optimizer, session: Session) -> SharedOptimizer:
    """Return the form on shares of an optimizer, at its start."""
    if isinstance(optimizer, SGD):
        return SharedSGD(session, optimizer)
    raise DtypeError(f"optimizer must be one that works on shares, such as SGD, got {optimizer!r}")
