"""Training on shares: the steps of `nn.training`, with data, weights and gradients secret.

The data set is opened under its mask once; a batch is a view of it. The parameters are one vector,
masked once a step, of which the layers hold views, so that forward and backward products share its
mask, as they do each layer's input and each gradient: nothing is opened twice.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mpc import Session, SharedArray
from mpc.protocols import linear, sharing
from mpc.protocols.masking import mask_together
from nn.layers import Layer
from nn.shared_losses import SharedLoss
from nn.shared_optimizers import SharedOptimizer
from nn.training import backward, parameters, shuffled_batches

__all__ = ["SharedTrainer"]

# How many steps the provider is told of at a time.
_STEPS_AHEAD = 16


class SharedTrainer:
    """A network on shares in training.

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
        With the initial parameters: plain arrays, which are public, or shared arrays.
    loss : SharedLoss
    optimizer : SharedOptimizer
        At its start.

    Attributes
    ----------
    weights : SharedArray of shape (parameters,)
        All parameters, layer by layer, with the format's fractional bits and its guard bits.
    """

    def __init__(
        self,
        session: Session,
        layers: Sequence[Layer],
        loss: SharedLoss,
        optimizer: SharedOptimizer,
    ) -> None:
        self.session = session
        self.layers = [layer.with_parameters(layer.parameters) for layer in layers]
        self.loss = loss
        self.optimizer = optimizer
        self.shapes = [tuple(array.shape) for array in parameters(layers)]
        self._bound = session.format.bound << session.format.guard_bits
        initial = parameters(layers)
        flat = np.concatenate([array.reshape(-1) for array in initial])
        self.weights = (
            linear.at_bits(flat, optimizer.frac_bits)
            if isinstance(flat, SharedArray)
            else sharing.from_public(session, flat, optimizer.frac_bits, self._bound)
        )

    def views(self) -> list[SharedArray]:
        """Return the parameters in their shapes, as views of the one vector."""
        arrays, start = [], 0
        for shape in self.shapes:
            stop = start + int(np.prod(shape, dtype=np.int64))
            arrays.append(self.weights[start:stop].reshape(shape))
            start = stop
        return arrays

    def place(self) -> None:
        """Mask the parameters, and give the layers their views."""
        with self.session.protocol("masking"):
            mask_together(self.weights)
        views = iter(self.views())
        for layer in self.layers:
            layer.parameters = [next(views) for _ in layer.parameters]

    def step(self, x: SharedArray, targets: SharedArray, scale: float) -> None:
        """Make one step on a batch of rows."""
        # Training relies on it; see `fit` on how to have it checked.
        with self.session.range_policy.vouched():
            self.gradients(x, targets)
            found = [g.reshape(-1) for layer in self.layers for g in layer.gradients]
            gradient = linear.concatenate(found)
            updated = self.optimizer.step(self.weights, gradient, len(x), scale)
        self.weights = updated.with_integer_bound(self._bound)

    def gradients(self, x: SharedArray, targets: SharedArray) -> None:
        """Leave each layer the gradients of the loss summed over the rows."""
        self.place()
        scores = self.forward(x)
        backward(self.layers, self.loss.gradient(scores, targets))

    def forward(self, x: Any) -> SharedArray:
        """Return the scores, each layer keeping what its way back needs."""
        form = self.session.format
        for number, layer in enumerate(self.layers, start=1):
            with self.session.layer(f"{number} {layer!r}"):
                x = layer.forward(x)
                if layer.parameters:
                    # Training relies on it; see `fit` on how to have it checked.
                    x = x.with_integer_bound(form.bound << (x.frac_bits - form.frac_bits))
        return x

    def in_range(self) -> bool:
        """Open one bit: whether every parameter is inside the format's range."""
        limit = 2.0**self.session.format.int_bits
        outside = (self.weights >= limit).sum() + (self.weights <= -limit).sum()
        # In a plan there is nothing to see.
        return bool((outside == 0).reveal()) or not self.session.here

    def epoch(
        self,
        X: SharedArray,
        targets: SharedArray,
        batch_size: int,
        random: np.random.Generator,
        scale: Callable[[int], float],
    ) -> Iterator[int]:
        """Train on every row once, yielding the rows of each step; `scale` takes the step's number."""
        X.mask_data()
        batches = list(shuffled_batches(len(X), batch_size, random))

        def steps(
            trainer: SharedTrainer, x: SharedArray, y: SharedArray, first: int
        ) -> Iterator[int]:
            for rows in batches[first : first + _STEPS_AHEAD]:
                trainer.step(x[rows], y[rows], scale(trainer.optimizer.steps))
                yield len(rows)

        for first in range(0, len(batches), _STEPS_AHEAD):
            self.session.prepare(
                lambda planned, first=first: sum(  # type: ignore[misc]
                    steps(self.twin(planned), planned.twin(X), planned.twin(targets), first)
                )
            )
            yield from steps(self, X, targets, first)

    def twin(self, planned: Session) -> SharedTrainer:
        """Return this trainer in a plan's session, see :meth:`mpc.Session.prepare`."""
        twin = copy.copy(self)
        twin.session = planned
        twin.weights = planned.twin(self.weights)
        twin.layers = [layer.with_parameters(layer.parameters) for layer in self.layers]
        twin.optimizer = copy.copy(self.optimizer)
        twin.optimizer.state = {n: planned.twin(x) for n, x in self.optimizer.state.items()}
        return twin
