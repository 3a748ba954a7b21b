"""Training on shares: the steps of `nn.training.steps`, with data, weights and gradients secret.

Nothing is opened twice. The data set is opened under its mask once; a batch is a view of it. The
parameters are one vector, opened under its mask once a step; the layers hold views of it, so that
forward and backward products use the same masked weights. They use the same masked inputs and
gradients of each layer, too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mpc import Session, SharedArray
from mpc.protocols import linear
from mpc.protocols.masking import mask_ahead
from nn.layers import Layer
from nn.layers.graph import backward, rewired, run
from nn.layers.layer import parameters
from nn.losses.loss import Loss
from nn.shared.optimizers import SharedOptimizer
from nn.shared.range import RangeWatch
from nn.training.steps import shuffled_batches

__all__ = ["SharedTrainer"]

# Steps for which the provider prepares randomness at a time.
_STEPS_AHEAD = 16


class SharedTrainer:
    """A network on shares in training.

    Parameters
    ----------
    session : Session
    layers : sequence of Layer
        With the initial parameters: plain arrays, which are public, or shared arrays.
    loss : Loss
    optimizer : SharedOptimizer
        That has made no step yet.
    check_range : bool, default=False
        Whether the steps are watched, see :mod:`nn.shared.range`.

    Attributes
    ----------
    weights : SharedArray of shape (parameters,)
        All parameters, layer by layer, with the format's fractional bits and its guard bits.
    """

    def __init__(
        self,
        session: Session,
        layers: Sequence[Layer],
        loss: Loss,
        optimizer: SharedOptimizer,
        *,
        check_range: bool = False,
    ) -> None:
        self.session = session
        self.range = RangeWatch(session) if check_range else None
        self.layers = rewired(layers, [layer.with_parameters(layer.parameters) for layer in layers])
        self.loss = loss
        self.optimizer = optimizer
        self.shapes = [tuple(array.shape) for array in parameters(layers)]
        self._bound = session.format.bound << session.format.guard_bits
        initial = parameters(layers)
        flat = np.concatenate([array.reshape(-1) for array in initial])
        self.weights = (
            linear.at_bits(flat, optimizer.frac_bits)
            if isinstance(flat, SharedArray)
            else SharedArray.from_public(session, flat, optimizer.frac_bits, self._bound)
        )

    def views(self) -> list[SharedArray]:
        """Return the parameters in their shapes, as views of ``weights``."""
        arrays, start = [], 0
        for shape in self.shapes:
            stop = start + int(np.prod(shape, dtype=np.int64))
            arrays.append(self.weights[start:stop].reshape(shape))
            start = stop
        return arrays

    def place(self) -> None:
        """Mask ``weights``, and set the layers' parameters to views of it."""
        with self.session.protocol("masking"):
            mask_ahead(self.weights)
        views = iter(self.views())
        for layer in self.layers:
            layer.parameters = [next(views) for _ in layer.parameters]

    def step(self, x: SharedArray, targets: SharedArray, scale: float) -> None:
        """Make one step on a batch of rows; `scale` is a factor on the learning rate."""
        # The range watch checks these values, if `fit` was asked to.
        with self.session.range_policy.vouched():
            self.gradients(x, targets)
            found = [g.reshape(-1) for layer in self.layers for g in layer.gradients]
            gradient = linear.concatenate(found)
            updated = self.optimizer.step(self.weights, gradient, len(x), scale, self.range)
        self.weights = updated.with_integer_bound(self._bound)

    @property
    def _limit(self) -> float:
        return float(2.0**self.session.format.int_bits)

    def gradients(self, x: SharedArray, targets: SharedArray) -> None:
        """Compute the gradients of the loss, summed over the rows, into each layer's ``gradients``."""
        self.place()
        inputs: list[Any] = []
        scores = self.forward(x, inputs)
        gradient: Any = self.loss.shared_gradient(scores, targets)

        def check(index: int, layer: Layer, gradient: SharedArray) -> None:
            if self.range is not None:
                self.range.backward(_layer_name(index + 1, layer), layer, inputs[index], gradient)

        backward(self.layers, gradient, check)

    def forward(self, x: Any, inputs: list[Any] | None = None) -> SharedArray:
        """Return the scores; each layer keeps what its ``backward`` needs.

        Each layer's input is appended to `inputs`, if given.
        """
        form = self.session.format

        def step(index: int, layer: Layer, before: Any) -> SharedArray:
            if inputs is not None:
                inputs.append(before)
            with self.session.layer(f"{index + 1} {layer!r}"):
                x: SharedArray = layer.forward(before)
                if self.range is not None:
                    self.range.forward(_layer_name(index + 1, layer), layer, before, x)
                if layer.parameters or (layer.joins and layer.may_grow):
                    # Assumed; the range watch checks it.
                    x = x.with_integer_bound(form.bound << (x.frac_bits - form.frac_bits))
            return x

        scores: SharedArray = run(self.layers, x, step)
        return scores

    def in_range(self) -> bool:
        """Open one bit: whether all parameters, and all steps since the last call, were in range."""
        if self.range is None:
            return True
        watch = self.range

        def check(watch: RangeWatch, weights: SharedArray) -> bool:
            watch.gather()
            watch.compare(weights, self._limit)
            return watch.in_range()

        self.session.prepare(lambda planned: check(watch.twin(planned), planned.twin(self.weights)))
        return check(watch, self.weights)

    def epoch(
        self,
        X: SharedArray,
        targets: SharedArray,
        batch_size: int,
        random: np.random.Generator,
        scale: Callable[[int], float],
    ) -> Iterator[int]:
        """Train on every row once.

        Parameters
        ----------
        X : SharedArray of shape (rows, features)
        targets : SharedArray of shape (rows, outputs)
        batch_size : int
        random : numpy.random.Generator
            Shuffles the rows.
        scale : callable
            Takes a step's number and returns the factor on the learning rate.

        Yields
        ------
        int
            Number of rows, after each step.
        """
        X.mask_data()
        if self.range is not None:
            self.range.begin()
        batches = list(shuffled_batches(len(X), batch_size, random))

        def steps(
            trainer: SharedTrainer, x: SharedArray, y: SharedArray, first: int
        ) -> Iterator[int]:
            for rows in batches[first : first + _STEPS_AHEAD]:
                trainer.step(x[rows], y[rows], scale(trainer.optimizer.steps))
                yield len(rows)
            if trainer.range is not None:
                trainer.range.gather()

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
        twin.range = None if self.range is None else self.range.twin(planned)
        copies = [layer.with_parameters(layer.parameters) for layer in self.layers]
        twin.layers = rewired(self.layers, copies)
        twin.optimizer = copy.copy(self.optimizer)
        twin.optimizer.state = {n: planned.twin(x) for n, x in self.optimizer.state.items()}
        return twin


def _layer_name(number: int, layer: Layer) -> str:
    return f"layer {number}, {layer!r}"
