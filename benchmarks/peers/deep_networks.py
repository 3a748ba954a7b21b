"""Deep networks that are timed, in plain NumPy: ResNet-20 and a transformer encoder.

Weights are random, as they are before training; the statistics of batch normalisation are those of some
rows, as they are after it. Workers import this module from its folder, so it needs nothing but NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]

SEED = 20261128
CLASSES = 10
# What the libraries take as eps of batch and layer normalisation.
EPSILON = 1e-5

# ResNet-20 (He, Zhang, Ren, Sun 2016): images of 32x32x3, three stages of three blocks.
PIXELS = 3 * 32**2
STAGES = (16, 32, 64)
BLOCKS = 3
# The encoder: 4 layers, 128 wide, four heads, an inner width of 512, sequences of 32.
DEPTH, WIDTH, HEADS, INNER, LENGTH = 4, 128, 4, 512, 32

# Rows that batch normalisation has its statistics from, and that show Sotto how large values get.
TYPICAL = 16


@dataclass(frozen=True)
class Normalised:
    """A convolution of 3x3 and the batch normalisation behind it, whose scale is 1 and shift 0.

    Attributes
    ----------
    kernel : array of shape (3, 3, channels, outputs)
    stride : int
    mean, variance : array of shape (outputs,)
    """

    kernel: Array
    stride: int
    mean: Array
    variance: Array

    def folded(self) -> tuple[Array, Array]:
        """Return a kernel and a bias that do the work of both."""
        factor = 1 / np.sqrt(self.variance + EPSILON)
        return self.kernel * factor, -self.mean * factor


def rows(kind: str, count: int, seed: int) -> Array:
    """Return rows of a network's inputs: pixels in [0, 1], or embeddings in [-1, 1]."""
    rng = np.random.default_rng((SEED, seed, count))
    if kind == "resnet20":
        return rng.uniform(0, 1, (count, PIXELS))
    return rng.uniform(-1, 1, (count, LENGTH * WIDTH))


def typical(kind: str) -> Array:
    """Return rows like those that are timed, but others."""
    return rows(kind, TYPICAL, 1)


def convolve(x: Array, kernel: Array, stride: int) -> Array:
    """Convolve images, padded by a pixel on all sides."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
    return np.tensordot(windows, kernel, axes=([4, 5, 3], [0, 1, 2]))


def shortcut(x: Array, channels: int) -> Array:
    """Take every other pixel, and pad channels with zeros, where they get more."""
    more = (channels - x.shape[3]) // 2
    return np.pad(x[:, ::2, ::2], ((0, 0),) * 3 + ((more, more),)) if more else x


def steps() -> Iterator[tuple[int, int, int]]:
    """Channels, outputs and stride of each convolution: the first, and two of each block."""
    yield 3, STAGES[0], 1
    channels = STAGES[0]
    for outputs in STAGES:
        for _ in range(BLOCKS):
            yield channels, outputs, 1 if channels == outputs else 2
            yield outputs, outputs, 1
            channels = outputs


@cache
def resnet20() -> tuple[tuple[Normalised, ...], Array, Array]:
    """Return the convolutions, and the weights and bias of the dense layer (He initialisation)."""
    rng = np.random.default_rng(SEED)
    x, kept, found = typical("resnet20").reshape(-1, 32, 32, 3), np.empty(0), []
    for at, (channels, outputs, stride) in enumerate(steps()):
        kernel = rng.normal(0, np.sqrt(2 / (9 * channels)), (3, 3, channels, outputs))
        y = convolve(x, kernel, stride)
        found.append(Normalised(kernel, stride, y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))))
        y = (y - found[-1].mean) / np.sqrt(found[-1].variance + EPSILON)
        second = at > 0 and at % 2 == 0
        if not second and at:
            kept = x
        x = np.maximum(y + shortcut(kept, outputs) if second else y, 0)
    weights = rng.normal(0, np.sqrt(1 / STAGES[-1]), (STAGES[-1], CLASSES))
    return tuple(found), weights, rng.normal(0, 0.05, CLASSES)


def resnet20_scores(x: Array) -> Array:
    """Evaluate ResNet-20."""
    convolutions, weights, bias = resnet20()
    folded = [(*one.folded(), one.stride) for one in convolutions]

    def normalised(x: Array, at: int) -> Array:
        kernel, shift, stride = folded[at]
        return convolve(x, kernel, stride) + shift

    x = np.maximum(normalised(x.reshape(-1, 32, 32, 3), 0), 0)
    for at in range(1, len(folded), 2):
        y = normalised(np.maximum(normalised(x, at), 0), at + 1)
        x = np.maximum(y + shortcut(x, y.shape[3]), 0)
    return x.mean(axis=(1, 2)) @ weights + bias


@cache
def encoder() -> tuple[Array, ...]:
    """Return the encoder's arrays, in the order of `nn.networks.TransformerEncoder`.

    Positions; for each layer scale and shift of a normalisation, weights and bias of queries, keys and
    values side by side, of the output, again scale and shift, two dense layers; scale and shift of the
    last normalisation and the classifier. Queries hold the factor of attention's scores.
    """
    rng = np.random.default_rng(SEED)

    def norm() -> list[Array]:
        return [rng.normal(1, 0.05, WIDTH), rng.normal(0, 0.05, WIDTH)]

    def dense(inputs: int, outputs: int) -> list[Array]:
        limit = np.sqrt(6 / (inputs + outputs))
        return [rng.uniform(-limit, limit, (inputs, outputs)), rng.normal(0, 0.02, outputs)]

    found = [rng.normal(0, 0.02, (LENGTH, WIDTH))]
    for _ in range(DEPTH):
        found += norm()
        parts = [dense(WIDTH, WIDTH) for _ in range(3)]
        parts[0] = [part / np.sqrt(WIDTH // HEADS) for part in parts[0]]
        found += [np.concatenate(part, axis=-1) for part in zip(*parts, strict=True)]
        found += [*dense(WIDTH, WIDTH), *norm(), *dense(WIDTH, INNER), *dense(INNER, WIDTH)]
    return (*found, *norm(), *dense(WIDTH, CLASSES))


def encoder_scores(x: Array) -> Array:
    """Evaluate the encoder."""
    arrays = iter(encoder())

    def norm(x: Array) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return centred / np.sqrt(variance + EPSILON) * next(arrays) + next(arrays)

    def dense(x: Array) -> Array:
        return x @ next(arrays) + next(arrays)

    x = x.reshape(-1, LENGTH, WIDTH) + next(arrays)
    for _ in range(DEPTH):
        parts = dense(norm(x)).reshape(-1, LENGTH, 3, HEADS, WIDTH // HEADS)
        queries, keys, values = parts.transpose(2, 0, 3, 1, 4)
        powers = np.exp(queries @ keys.swapaxes(2, 3))
        mixed = powers / powers.sum(axis=-1, keepdims=True) @ values
        x = x + dense(mixed.transpose(0, 2, 1, 3).reshape(x.shape))
        x = x + dense(np.maximum(dense(norm(x)), 0))
    return dense(norm(x).mean(axis=1))


def scores(kind: str, x: Array) -> Array:
    """Evaluate a network."""
    return resnet20_scores(x) if kind == "resnet20" else encoder_scores(x)


def arrays(kind: str) -> list[Array]:
    """Return a network's arrays, with batch normalisation folded into the convolutions."""
    if kind == "encoder":
        return list(encoder())
    convolutions, weights, bias = resnet20()
    return [*(part for one in convolutions for part in one.folded()), weights, bias]


def strides() -> list[int]:
    """Return the stride of each convolution."""
    return [one.stride for one in resnet20()[0]]


def whole_arrays(kind: str) -> list[Array]:
    """Return a network's arrays as `from_parameters` of :mod:`nn.networks` takes them."""
    if kind == "encoder":
        return list(encoder())
    convolutions, weights, bias = resnet20()
    found = []
    for one in convolutions:
        none = np.zeros(len(one.mean))
        found += [one.kernel, none, none + 1, none, one.mean, one.variance]
    return [*found, weights, bias]
