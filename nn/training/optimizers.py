"""Optimizers, and schedules of the learning rate.

The tables `OPTIMIZERS` and `SCHEDULES` have them by the names that ``fit`` takes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nn.core.checks import real
from ring.errors import ArgumentError, ShapeError

__all__ = ["EPSILON", "OPTIMIZERS", "SCHEDULES", "SGD", "Adam", "Optimizer", "choose_optimizer"]

# Adam's default.
EPSILON = 1e-8


class Optimizer(ABC):
    """Base class: ``step`` moves parameters against their gradients.

    An optimizer keeps state of earlier steps for every parameter, by its position in the list. So
    it is used with one list of parameters, until ``reset``.
    """

    @abstractmethod
    def reset(self) -> None:
        """Discard the state of earlier steps."""

    @abstractmethod
    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], *, scale: float = 1.0
    ) -> list[Any]:
        """Make one step.

        Parameters
        ----------
        parameters, gradients : sequence of array
            Parameters, and the gradients of the loss with respect to them, in the same order.
        scale : float, default=1
            Factor on the learning rate for this step.

        Returns
        -------
        list of array
            The parameters after the step. NumPy arrays are changed in place and returned.

        Raises
        ------
        ShapeError
            If lengths or shapes of the two sequences differ, or changed since the last step.
        """


def _check(parameters: Sequence[Any], gradients: Sequence[Any], state: Sequence[Any]) -> None:
    shapes = [tuple(array.shape) for array in parameters]
    for name, arrays in (("gradients", gradients), ("earlier steps", state)):
        others = [tuple(array.shape) for array in arrays]
        if others != shapes and not (arrays is state and not others):
            raise ShapeError(f"parameters have shapes {shapes}, but {name} have {others}")


class SGD(Optimizer):
    """Stochastic gradient descent with momentum: ``v = momentum v - learning_rate g; p += v``.

    Parameters
    ----------
    learning_rate : float, default=0.1
        Above 0.
    momentum : float, default=0.9
        At least 0 and below 1.
    weight_decay : float, default=0
        ``weight_decay * p`` is added to the gradient. At least 0.

    Raises
    ------
    ArgumentError
        If a value breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.training.optimizers import SGD
    >>> optimizer = SGD(learning_rate=0.5, momentum=0.5)
    >>> weights, gradient = np.array([1.0]), np.array([1.0])
    >>> optimizer.step([weights], [gradient])
    [array([0.5])]
    >>> optimizer.step([weights], [gradient])
    [array([-0.25])]
    """

    def __init__(
        self, learning_rate: float = 0.1, momentum: float = 0.9, weight_decay: float = 0.0
    ) -> None:
        self.learning_rate = real("learning_rate", learning_rate, above=0, below=math.inf)
        self.momentum = real("momentum", momentum, least=0, below=1)
        self.weight_decay = real("weight_decay", weight_decay, least=0, below=math.inf)
        self.reset()

    def __repr__(self) -> str:
        decay = f", weight_decay={self.weight_decay:g}" if self.weight_decay else ""
        return f"SGD(learning_rate={self.learning_rate:g}, momentum={self.momentum:g}{decay})"

    def reset(self) -> None:
        self._velocities: list[Any] = []

    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], *, scale: float = 1.0
    ) -> list[Any]:
        _check(parameters, gradients, self._velocities)
        rate = -self.learning_rate * scale
        moves = [gradient * rate for gradient in gradients]
        if self.weight_decay:
            for move, parameter in zip(moves, parameters, strict=True):
                move += rate * self.weight_decay * parameter
        for i, velocity in enumerate(self._velocities):
            velocity *= self.momentum
            moves[i] += velocity
        self._velocities = moves
        updated = []
        for parameter, move in zip(parameters, moves, strict=True):
            parameter += move
            updated.append(parameter)
        return updated


class Adam(Optimizer):
    """Adam (Kingma and Ba 2015): steps scaled by running moments of the gradient.

    With `weight_decay` it is AdamW (Loshchilov and Hutter 2019).

    Parameters
    ----------
    learning_rate : float, default=0.001
        Above 0.
    beta_1, beta_2 : float, default=0.9, 0.999
        Decay of the first and second moment, at least 0 and below 1.
    epsilon : float, default=1e-8
        Above 0; added to the divisor. On shares it must be the default; the divisor is at least
        2^-22 there instead.
    weight_decay : float, default=0
        Each step subtracts ``learning_rate * weight_decay * p``. At least 0.

    Raises
    ------
    ArgumentError
        If a value breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.training.optimizers import Adam
    >>> weights = np.array([1.0, 1.0])
    >>> Adam(learning_rate=0.5).step([weights], [np.array([3.0, -0.2])])[0].round(6)
    array([0.5, 1.5])
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = EPSILON,
        weight_decay: float = 0.0,
    ) -> None:
        self.learning_rate = real("learning_rate", learning_rate, above=0, below=math.inf)
        self.beta_1 = real("beta_1", beta_1, least=0, below=1)
        self.beta_2 = real("beta_2", beta_2, least=0, below=1)
        self.epsilon = real("epsilon", epsilon, above=0, below=math.inf)
        self.weight_decay = real("weight_decay", weight_decay, least=0, below=math.inf)
        self.reset()

    def __repr__(self) -> str:
        decay = f", weight_decay={self.weight_decay:g}" if self.weight_decay else ""
        return (
            f"Adam(learning_rate={self.learning_rate:g}, beta_1={self.beta_1:g}, "
            f"beta_2={self.beta_2:g}, epsilon={self.epsilon:g}{decay})"
        )

    def reset(self) -> None:
        self._steps = 0
        self._first: list[Any] = []
        self._second: list[Any] = []

    def step(
        self, parameters: Sequence[Any], gradients: Sequence[Any], *, scale: float = 1.0
    ) -> list[Any]:
        _check(parameters, gradients, self._first)
        if not self._first:
            self._first = [np.zeros_like(parameter) for parameter in parameters]
            self._second = [np.zeros_like(parameter) for parameter in parameters]
        self._steps += 1
        # Both moments start at zero; these factors undo that bias.
        size = self.learning_rate * scale / (1 - self.beta_1**self._steps)
        unbias = 1 / math.sqrt(1 - self.beta_2**self._steps)
        kept = 1 - self.learning_rate * scale * self.weight_decay
        for parameter, gradient, first, second in zip(
            parameters, gradients, self._first, self._second, strict=True
        ):
            first *= self.beta_1
            first += (1 - self.beta_1) * gradient
            second *= self.beta_2
            second += (1 - self.beta_2) * (gradient * gradient)
            spread = np.sqrt(second)
            spread *= unbias
            spread += self.epsilon
            if self.weight_decay:
                parameter *= kept
            parameter -= size * first / spread
        return list(parameters)


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam}

# Factor on the learning rate, given the fraction `done` of the steps that are made, in [0, 1).
SCHEDULES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + math.cos(math.pi * done)),
    # Powers of two, which training on shares represents exactly.
    "halving": lambda done: 2.0 ** -int(4 * done),
}


def choose_optimizer(
    optimizer: str | Optimizer, learning_rate: float | None, momentum: float | None
) -> Optimizer:
    """Return the optimizer for arguments of ``fit``.

    Raises
    ------
    ArgumentError
        If there is no such optimizer, or it does not take an argument.
    """
    given = {"learning_rate": learning_rate, "momentum": momentum}
    options: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    if isinstance(optimizer, Optimizer):
        if options:
            name, value = next(iter(options.items()))
            raise ArgumentError(f"{name} must be left to the optimizer object, got {value!r}")
        return optimizer
    if not isinstance(optimizer, str) or optimizer not in OPTIMIZERS:
        raise ArgumentError(
            f"optimizer must be one of {sorted(OPTIMIZERS)} or an Optimizer, got {optimizer!r}"
        )
    if "momentum" in options and optimizer != "sgd":
        raise ArgumentError(f"momentum belongs to 'sgd', got {momentum!r} with {optimizer!r}")
    return OPTIMIZERS[optimizer](**options)
