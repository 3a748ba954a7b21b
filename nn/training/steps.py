"""The parts of a training step, for any list of layers, and the loop over steps in the clear."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nn.core.progress import progress_bar
from nn.layers import Layer
from nn.training.optimizers import Optimizer
from nn.training.settings import FitSettings
from ring.errors import ArgumentError

__all__ = [
    "backward",
    "blas_threads",
    "forward",
    "parameters",
    "shuffled_batches",
    "stalled",
    "train",
    "update",
]

# Multiply-adds of a matrix product from which on several threads are faster than one.
_LARGE_PRODUCT = 2**27


def forward(layers: Sequence[Layer], x: Any) -> Any:
    """Return the last layer's output for the rows `x`; each layer keeps what ``backward`` needs."""
    for layer in layers:
        x = layer.forward(x)
    return x


def backward(layers: Sequence[Layer], gradient: Any) -> None:
    """Compute each layer's ``gradients``, given the gradient at the last layer's output."""
    for i in range(len(layers) - 1, -1, -1):
        gradient = layers[i].backward(gradient, input_gradient=i > 0)


def parameters(layers: Sequence[Layer]) -> list[Any]:
    """Return all parameters in layer order."""
    return [parameter for layer in layers for parameter in layer.parameters]


def update(layers: Sequence[Layer], optimizer: Optimizer, scale: float = 1.0) -> None:
    """Make one step of `optimizer` by the layers' ``gradients``.

    `scale` is a factor on the learning rate.
    """
    gradients = [gradient for layer in layers for gradient in layer.gradients]
    remaining = iter(optimizer.step(parameters(layers), gradients, scale=scale))
    for layer in layers:
        layer.parameters = [next(remaining) for _ in layer.parameters]


def shuffled_batches(
    rows: int, batch_size: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield the indices 0 to rows - 1 once, in random order; the last batch may be short."""
    order = random.permutation(rows)
    for start in range(0, rows, batch_size):
        yield order[start : start + batch_size]


def blas_threads(largest_product: int) -> AbstractContextManager[Any]:
    """Return a context in which BLAS uses one thread, if `largest_product` multiply-adds are few.

    For small products several threads are not faster, take minutes where other processes use the
    same cores, and round differently for every number of cores.
    """
    if largest_product >= _LARGE_PRODUCT:
        return nullcontext()
    # A dependency of scikit-learn.
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


def stalled(scores: Sequence[float], patience: int | None) -> bool:
    """Return whether the last `patience` scores have not improved on the best before them."""
    if patience is None or len(scores) <= patience:
        return False
    return max(scores[-patience:]) <= max(scores[:-patience])


def train(
    layers: Sequence[Layer],
    X: NDArray[Any],
    targets: NDArray[Any],
    settings: FitSettings,
    random: np.random.Generator,
) -> Iterator[float]:
    """Train `layers` in place, yielding the mean loss of each epoch."""
    loss, optimizer, batch_size = settings.loss_record, settings.rule, settings.batch_size
    steps = settings.epochs * -(-len(X) // batch_size)
    rate = settings.rate(len(X))
    step = 0
    largest = min(batch_size, len(X)) * max(array.size for array in parameters(layers))
    with progress_bar(steps, "fit", "batch", settings.progress, delay=0.5) as bar:
        for epoch in range(1, settings.epochs + 1):
            total = 0.0
            # A training that diverges is reported below, in one error and not in warnings.
            with blas_threads(largest), np.errstate(over="ignore", invalid="ignore"):
                for rows in shuffled_batches(len(X), batch_size, random):
                    scores = forward(layers, X[rows])
                    wanted = targets[rows]
                    total += loss.value(scores, wanted) * len(rows)
                    backward(layers, loss.gradient(scores, wanted))
                    update(layers, optimizer, rate(step))
                    step += 1
                    bar.update()
            mean = total / len(X)
            if not np.isfinite(mean):
                raise ArgumentError(
                    f"{optimizer!r} must keep the loss finite, got {mean} in epoch {epoch}; "
                    "a lower learning_rate may help"
                )
            bar.set_postfix(epoch=epoch, loss=f"{mean:.4f}", refresh=False)
            yield mean
