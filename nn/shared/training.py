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
from nn.layers.dropout import Dropout
from nn.layers.graph import backward, rewired, run
from nn.layers.layer import parameters
from nn.layers.normalisation import BatchNorm, folded, frozen
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
        for layer in self._norms():
            layer.on_shares(session)
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
        # They may be the last step's, which the model keeps.
        self.weights.kept = True
        with self.session.protocol("masking"):
            mask_ahead(self.weights)
        views = iter(self.views())
        for layer in self.layers:
            layer.parameters = [next(views) for _ in layer.parameters]

    def _norms(self) -> list[BatchNorm]:
        return [layer for layer in self.layers if isinstance(layer, BatchNorm)]

    @property
    def statistics(self) -> dict[str, SharedArray]:
        """The running statistics of batch normalisations, by name, as checkpoints keep them."""
        return {
            f"{name} {number}": getattr(layer, name)
            for number, layer in enumerate(self._norms(), start=1)
            for name in ("mean", "variance")
        }

    @statistics.setter
    def statistics(self, values: dict[str, SharedArray]) -> None:
        for number, layer in enumerate(self._norms(), start=1):
            layer.mean, layer.variance = values[f"mean {number}"], values[f"variance {number}"]

    @property
    def generators(self) -> list[np.random.Generator]:
        """Those that draw what is dropped."""
        return [layer.random for layer in self.layers if isinstance(layer, Dropout)]

    def evaluated(self) -> Sequence[Layer]:
        """Return the layers that predict: running statistics folded in, no dropout."""
        self.place()
        if not any(layer.only_trains for layer in self.layers):
            return self.layers
        with self.session.layer("batch normalisation"), self.session.range_policy.vouched():
            layers = frozen(self.layers)
            for old, new in zip(self.layers, layers, strict=True):
                if isinstance(old, BatchNorm) and self.range is not None:
                    self.range.normalisation(old, *new.parameters)
        return folded(layers)

    def step(
        self, x: SharedArray, targets: SharedArray, scale: float, weights: SharedArray | None = None
    ) -> None:
        """Make one step on a batch of rows; `scale` is a factor on the learning rate."""
        # The range watch checks these values, if `fit` was asked to.
        with self.session.range_policy.vouched():
            self.gradients(x, targets, weights)
            found = [g.reshape(-1) for layer in self.layers for g in layer.gradients]
            gradient = linear.concatenate(found)
            updated = self.optimizer.step(self.weights, gradient, len(x), scale, self.range)
        self.weights = updated.with_integer_bound(self._bound)

    @property
    def _limit(self) -> float:
        return float(2.0**self.session.format.int_bits)

    def gradients(
        self, x: SharedArray, targets: SharedArray, weights: SharedArray | None = None
    ) -> None:
        """Compute the gradients of the loss, summed over the rows, into each layer's ``gradients``."""
        self.place()
        inputs: list[Any] = []
        scores = self.forward(x, inputs)
        gradient: Any = self.loss.shared_gradient(scores, targets)
        if weights is not None:
            gradient = gradient.truncate() * weights

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
                grows = layer.may_grow and (layer.joins or layer.only_trains)
                if layer.parameters or grows:
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

        if self.session.prepares():
            self.session.prepare(
                lambda planned: check(watch.twin(planned), planned.twin(self.weights))
            )
        return check(watch, self.weights)

    def epoch(
        self,
        X: SharedArray,
        targets: SharedArray,
        batch_size: int,
        random: np.random.Generator,
        scale: Callable[[int], float],
        weights: SharedArray | None = None,
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
        weights : SharedArray of shape (rows, 1), optional
            Factors on the rows' loss.

        Yields
        ------
        int
            Number of rows, after each step.
        """
        X.mask_data()
        if weights is not None:
            weights.mask_data()
        if self.range is not None:
            self.range.begin()
        batches = list(shuffled_batches(len(X), batch_size, random))

        def steps(
            trainer: SharedTrainer,
            x: SharedArray,
            y: SharedArray,
            w: SharedArray | None,
            first: int,
        ) -> Iterator[int]:
            for rows in batches[first : first + _STEPS_AHEAD]:
                rate = scale(trainer.optimizer.steps)
                trainer.step(x[rows], y[rows], rate, None if w is None else w[rows])
                yield len(rows)
            if trainer.range is not None:
                trainer.range.gather()

        for first in range(0, len(batches), _STEPS_AHEAD):
            if self.session.prepares():
                self.session.prepare(
                    lambda planned, first=first: sum(  # type: ignore[misc]
                        steps(
                            self.twin(planned),
                            planned.twin(X),
                            planned.twin(targets),
                            None if weights is None else planned.twin(weights),
                            first,
                        )
                    )
                )
            yield from steps(self, X, targets, weights, first)

    def twin(self, planned: Session) -> SharedTrainer:
        """Return this trainer in a plan's session, see :meth:`mpc.Session.prepare`."""
        twin = copy.copy(self)
        twin.session = planned
        twin.weights = planned.twin(self.weights)
        twin.range = None if self.range is None else self.range.twin(planned)
        copies = [layer.with_parameters(layer.parameters) for layer in self.layers]
        twin.layers = rewired(self.layers, copies)
        twin.statistics = {name: planned.twin(x) for name, x in self.statistics.items()}
        twin.optimizer = copy.copy(self.optimizer)
        twin.optimizer.state = {n: planned.twin(x) for n, x in self.optimizer.state.items()}
        return twin


def _layer_name(number: int, layer: Layer) -> str:
    return f"layer {number}, {layer!r}"
