"""Transformer encoders: of sequences of vectors, and of patches of images."""

from __future__ import annotations

import math

import numpy as np

from nn.layers import (
    Add,
    Dense,
    Flatten,
    Layer,
    LayerNorm,
    MatMul,
    ReduceMean,
    ReLU,
    Reshape,
    Shift,
    Softmax,
    Take,
    Transpose,
)
from nn.layers.initialisation import RandomState
from nn.models.sequential import Sequential
from nn.networks.building import Builder, untrained
from ring.errors import ArgumentError

__all__ = ["TransformerEncoder", "ViT"]

_LAYERS, _WIDTH, _HEADS, _SEQUENCE = 4, 128, 4, 32


def _norm() -> LayerNorm:
    return LayerNorm(np.ones(_WIDTH), np.zeros(_WIDTH))


def _initial(layer: Layer, random: np.random.Generator) -> Layer:
    """Return a layer with initial weights; those of queries hold the factor of attention's scores."""
    if isinstance(layer, Shift):
        return layer.with_parameters([random.normal(scale=0.02, size=layer.summand.shape)])
    if not isinstance(layer, Dense):
        return layer.fresh(random)
    inputs, outputs = layer.weights.shape
    parts = 3 if outputs == 3 * inputs else 1
    limit = math.sqrt(6 / (inputs + outputs // parts))
    weights = random.uniform(-limit, limit, size=(inputs, outputs))
    if parts == 3:
        weights[:, :inputs] /= math.sqrt(_WIDTH // _HEADS)
    return layer.with_parameters([weights, np.zeros(outputs)])


def _attention(b: Builder, x: int, length: int) -> int:
    """Add self-attention of several heads."""
    wide = _WIDTH // _HEADS
    # One product for queries, keys and values, of shape (3, heads, length, head width).
    parts = b.chain(
        x,
        Dense.untrained(_WIDTH, 3 * _WIDTH),
        Reshape(length, 3, _HEADS, wide),
        Transpose(1, 2, 0, 3),
    )
    queries, keys, values = (b.add(Take(0, [k]), parts) for k in range(3))
    scores = b.add(MatMul(), queries, b.add(Transpose(0, 1, 3, 2), keys))
    mixed = b.add(MatMul(), b.add(Softmax(), scores), values)
    return b.chain(
        mixed, Transpose(0, 2, 1, 3), Reshape(length, _WIDTH), Dense.untrained(_WIDTH, _WIDTH)
    )


def _encoder(b: Builder, x: int, length: int) -> Builder:
    """Add positions, the layers of an encoder, and a classifier on the mean."""
    x = b.add(Shift(np.zeros((length, _WIDTH))), x)
    for _ in range(_LAYERS):
        x = b.add(Add(), x, _attention(b, b.add(_norm(), x), length))
        y = b.chain(
            x,
            _norm(),
            Dense.untrained(_WIDTH, 4 * _WIDTH),
            ReLU(),
            Dense.untrained(4 * _WIDTH, _WIDTH),
        )
        x = b.add(Add(), x, y)
    b.chain(x, _norm(), ReduceMean(0, keep=False), Flatten(), Dense.untrained(_WIDTH, 10))
    return b


def TransformerEncoder(*, random_state: RandomState = None) -> Sequential:
    """Return a transformer encoder: 4 layers, 128 wide, sequence 32. 798,730 parameters.

    The encoder of Vaswani et al. 2017 with four heads and an inner width of 512, with the layer
    normalisation before each part, which Xiong et al. 2020 found easier to train, and ReLU as in the
    first paper. Positions are learnt; a dense layer on the mean of the sequence gives ten scores.

    Parameters
    ----------
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        Draws the initial weights (Glorot, Bengio 2010), and as for :class:`nn.Sequential`. ``fit``
        starts from those of He et al. 2015, and positions of 0.

    Returns
    -------
    Sequential
        For rows of 4,096 features: 32 vectors of 128, one after the other, embedded already.

    Notes
    -----
    Arrays for :meth:`nn.Sequential.from_parameters`: positions (32, 128); for each layer scale and
    shift of the first normalisation, weights (128, 384) and bias of queries, keys and values side by
    side, weights (128, 128) and bias of the output, scale and shift of the second normalisation,
    weights (128, 512) and bias, weights (512, 128) and bias; then scale and shift of the last
    normalisation, weights (128, 10) and bias of the classifier. Weights and bias of the queries hold
    the factor ``1 / sqrt(32)`` by which the paper divides the scores of attention.

    Examples
    --------
    >>> import numpy as np
    >>> import nn
    >>> model = nn.networks.TransformerEncoder(random_state=0)
    >>> model.n_parameters
    798730
    >>> model.decision_function(np.zeros((2, 4096))).shape
    (2, 10)
    """
    b = Builder()
    _encoder(b, b.add(Reshape(_SEQUENCE, _WIDTH), 0), _SEQUENCE)
    return untrained(b, _SEQUENCE * _WIDTH, random_state, _initial)


def ViT(*, patch: int = 8, random_state: RandomState = None) -> Sequential:
    """Return a vision transformer for 32x32x3 (Dosovitskiy et al. 2021). 821,386 parameters.

    Patches of the image, each as a vector, a dense layer to 128, and the encoder of
    :func:`TransformerEncoder`. The classifier takes the mean of the patches, and ReLU stands in the
    place of GELU.

    Parameters
    ----------
    patch : {4, 8}
        Pixels of a patch's side: 64 or 16 patches.
    random_state : int, None, numpy.random.Generator or numpy.random.RandomState
        As for :func:`TransformerEncoder`.

    Returns
    -------
    Sequential
        For rows of 3,072 features: pixels row by row, the three colours of each together.

    Raises
    ------
    ArgumentError
        If `patch` is neither 4 nor 8.

    Notes
    -----
    Arrays for :meth:`nn.Sequential.from_parameters`: weights (patch x patch x 3, 128) and bias of
    the patches, pixels of a patch row by row; then as for :func:`TransformerEncoder`, with positions
    of shape (patches, 128).

    Examples
    --------
    >>> import nn
    >>> nn.networks.ViT(random_state=0).n_parameters
    821386
    """
    if patch not in (4, 8):
        raise ArgumentError(f"patch must be 4 or 8, got {patch!r}")
    across = 32 // patch
    b = Builder()
    x = b.chain(
        0,
        Reshape(across, patch, across, patch, 3),
        Transpose(0, 2, 1, 3, 4),
        Reshape(across**2, 3 * patch**2),
        Dense.untrained(3 * patch**2, _WIDTH),
    )
    return untrained(_encoder(b, x, across**2), 3 * 32**2, random_state, _initial)
