"""Batch normalisation, in the clear and on shares; and what a model has in place of it when shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction as Exact
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from mpc.protocols import linear, product, truncation
from mpc.protocols.combination import Fraction, combine
from mpc.protocols.inverse_power import inverse_power
from mpc.protocols.root_mean_square import with_mean_square
from nn.core.checks import integer, interval, real
from nn.layers.convolution import Convolution
from nn.layers.dense import Dense
from nn.layers.dropout import Dropout
from nn.layers.graph import Graph, inputs_of, names, rewired
from nn.layers.layer import Layer, Shape
from nn.layers.scale import Scale
from ring.errors import RangeError, ShapeError

__all__ = ["BatchNorm", "folded", "frozen", "resumed"]

# Bits that encoded values of a running variance, and products of parameters, may take.
_ROOM = 61
# Significant bits of a weight in a running mean, and fractional bits of a running variance, at least.
_LEAST_WEIGHT_BITS, _VARIANCE_BITS = 8, 16


class BatchNorm(Layer):
    """Batch normalisation over the last axis (Ioffe, Szegedy 2015).

    ``forward`` normalises by the mean and variance of the batch, and updates the running mean and
    variance; ``layer(x)`` normalises by the running ones. Before a model is shared, the layer is
    folded into the Dense or Convolution before it.

    Training on shares computes both statistics on shares, and opens neither: about 30 rounds a step,
    6 on the way back. The running variance has the format's fractional bits, or at least 16. After the
    training the layer is a :class:`Scale` with a secret factor and summand.

    Parameters
    ----------
    scale, shift : array of shape (channels,)
        The parameters, gamma and beta.
    mean, variance : array of shape (channels,), optional
        The running mean and variance; default 0 and 1.
    momentum : float, default=0.9
        Weight of the old running values in an update, in [0, 1).
    epsilon : float, default=1e-5
        Added to the variance. Above 0.

    Raises
    ------
    ShapeError
        If `scale`, `shift`, `mean` and `variance` are not vectors of one length.
    ArgumentError, DtypeError
        If `momentum` or `epsilon` breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import BatchNorm
    >>> layer = BatchNorm(np.ones(1), np.zeros(1))
    >>> layer.forward(np.array([[1.0], [3.0]])).round(2).tolist()
    [[-1.0], [1.0]]
    """

    only_trains = True
    options = ("momentum", "epsilon")

    def __init__(
        self,
        scale: Any,
        shift: Any,
        mean: Any = None,
        variance: Any = None,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        # Shared arrays while the layer is trained on shares.
        self.scale: Any = np.asarray(scale)
        self.shift: Any = np.asarray(shift)
        kind = self.scale.dtype
        self.mean: Any = np.zeros(self.scale.shape, kind) if mean is None else np.asarray(mean)
        self.variance: Any = (
            np.ones(self.scale.shape, kind) if variance is None else np.asarray(variance)
        )
        shapes = [a.shape for a in (self.scale, self.shift, self.mean, self.variance)]
        if self.scale.ndim != 1 or len(set(shapes)) > 1:
            raise ShapeError(
                f"scale, shift, mean and variance must be vectors, got shapes {shapes}"
            )
        self.momentum = real("momentum", momentum, least=0, below=1)
        self.epsilon = real("epsilon", epsilon, above=0, below=np.inf)

    @classmethod
    def untrained(cls, channels: int) -> BatchNorm:
        """Return a layer that is to be trained, for inputs whose last axis has `channels` entries."""
        count = integer("channels", channels, 1)
        return cls(np.ones(count), np.zeros(count))

    def __repr__(self) -> str:
        return f"BatchNorm({len(self.scale)})"

    @property
    def parameters(self) -> list[Any]:
        """The scale and the shift."""
        return [self.scale, self.shift]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        if shapes != [self.scale.shape] * 2:
            raise ShapeError(f"{self!r} needs two parameters of {self.scale.shape}, got {shapes}")
        self.scale, self.shift = values

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> BatchNorm:
        count = len(self.scale)
        layer = self.with_parameters([np.ones(count, dtype), np.zeros(count, dtype)])
        layer.mean, layer.variance = np.zeros(count, dtype), np.ones(count, dtype)
        return layer

    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return float64 vectors with which ``layer(x)`` is ``x * factor + summand``."""
        factor = np.asarray(self.scale, np.float64) / np.sqrt(
            np.asarray(self.variance, np.float64) + self.epsilon
        )
        return factor, self.shift - self.mean * factor

    def on_shares(self, session: Any) -> None:
        """Take the running mean and variance, which are public so far, as shared arrays."""
        form = session.format
        self.mean = SharedArray.from_public(
            session, self.mean, form.frac_bits + form.guard_bits, form.bound << form.guard_bits
        )
        bits = min(form.frac_bits, _ROOM - 2 - _LEAST_WEIGHT_BITS - 2 * form.int_bits)
        if bits < min(form.frac_bits, _VARIANCE_BITS):
            raise RangeError(
                f"{self!r} needs a format with fewer integer bits to be trained on shares, as squares"
                f" take twice as many, got int_bits={form.int_bits}"
            )
        limit = 1 << (2 * form.int_bits + bits)
        self.variance = SharedArray.from_public(session, self.variance, bits, limit)

    def shared_affine(self) -> tuple[SharedArray, SharedArray]:
        """Return shares of the vectors of :meth:`affine`, with the format's guard bits.

        The caller checks that they are in range.
        """
        scale, shift, mean, variance = self.scale, self.shift, self.mean, self.variance
        form = scale.session.format
        bits = form.frac_bits + form.guard_bits
        most = max(variance.frac_bits, min(30, _ROOM - 1 - 2 * form.int_bits))
        least = max(1, round(self.epsilon * (1 << most)))
        total = linear.add_integer(linear.at_bits(variance, most), least)
        inverse = inverse_power(total, Exact(1, 2), Exact(1), least)
        factor = _product(scale, inverse, bits)
        moved = product.multiply(factor, mean.truncate())
        summand = truncation.truncate(linear.subtract(shift, moved), moved.frac_bits - bits)
        return factor, summand

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        factor, summand = self.affine()
        return x * factor.astype(self.scale.dtype) + summand.astype(self.scale.dtype)

    def forward(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        if isinstance(x, SharedArray):
            return self._forward_on_shares(x)
        axes = tuple(range(x.ndim - 1))
        mean = x.mean(axis=axes)
        centred = x - mean
        variance = np.mean(centred * centred, axis=axes)
        inverse = 1 / np.sqrt(variance + self.epsilon)
        normal = centred * inverse
        kept = self.momentum
        self.mean = (kept * self.mean + (1 - kept) * mean).astype(self.scale.dtype)
        self.variance = (kept * self.variance + (1 - kept) * variance).astype(self.scale.dtype)
        self._memory = normal, inverse
        return normal * self.scale + self.shift

    def _forward_on_shares(self, x: SharedArray) -> SharedArray:
        form, count = x.session.format, len(self.scale)
        shape = tuple(x.shape)
        columns = linear.at_bits(x.truncate(), form.frac_bits).reshape((-1, count)).T
        mean = columns.mean(axis=1).truncate()
        normal, inverse, square = with_mean_square(columns - mean.reshape(count, 1), self.epsilon)
        self.mean = _nearer(self.mean, mean, 1 - self.momentum)
        square = square.reshape(count)
        if square.frac_bits > self.variance.frac_bits:
            square = truncation.truncate(square, square.frac_bits - self.variance.frac_bits)
        square = square.with_integer_bound(self.variance.bound)
        self.variance = _nearer(self.variance, square, 1 - self.momentum)
        normal = normal.T
        self._memory = normal, inverse.reshape(count)
        output: SharedArray = (normal * self.scale + self.shift).reshape(shape)
        return output

    @property
    def terms(self) -> tuple[Any, Any]:
        """The factors of the last ``forward``'s products: normalised rows, and the scale."""
        return self._remembered()[0], self.scale

    @property
    def inverse(self) -> Any:
        """1 over the deviation of each channel in the last ``forward``'s batch."""
        return self._remembered()[1]

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        normal, inverse = self._remembered()
        if isinstance(gradient, SharedArray):
            return self._backward_on_shares(gradient, normal, inverse, input_gradient)
        axes = tuple(range(gradient.ndim - 1))
        with_normal, total = (gradient * normal).sum(axis=axes), gradient.sum(axis=axes)
        self.gradients = [with_normal, total]
        if not input_gradient:
            return None
        count = gradient.size // len(self.scale)
        centred = gradient - total / count - normal * (with_normal / count)
        return centred * (self.scale * inverse)

    def _backward_on_shares(
        self, gradient: SharedArray, normal: SharedArray, inverse: SharedArray, wanted: bool
    ) -> SharedArray | None:
        form, count = gradient.session.format, len(self.scale)
        shape = tuple(gradient.shape)
        gradient = linear.at_bits(gradient.truncate(), form.frac_bits).reshape((-1, count))
        with_normal, total = (gradient * normal).sum(axis=0), gradient.sum(axis=0)
        self.gradients = [with_normal, total]
        if not wanted:
            return None
        means = linear.stack([with_normal, linear.at_bits(total, with_normal.frac_bits)])
        means = (means / len(gradient)).truncate()
        along = normal * linear.at_bits(means[0], form.frac_bits)
        centred = (gradient - means[1] - along).truncate()
        bits = form.frac_bits + form.guard_bits
        factor = _product(self.scale, inverse, bits)
        # Before a watch looks at its shares, so that sessions in one process deal as others do.
        back: SharedArray = (centred * factor).truncate().reshape(shape)
        return back

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        factor, summand = self.affine()
        ends = lows * factor + summand, highs * factor + summand
        return np.minimum(*ends), np.maximum(*ends)

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if not shape or shape[-1] != len(self.scale):
            raise ShapeError(f"{self!r} takes {len(self.scale)} channels, got shape {shape}")
        return shape


def _product(scale: SharedArray, inverse: SharedArray, bits: int) -> SharedArray:
    """Return scale times inverse with `bits` fractional bits; bounds prove that it is in range."""
    scale = scale.truncate()
    surplus = max(0, (scale.bound * inverse.bound).bit_length() - _ROOM)
    if surplus:
        inverse = truncation.truncate(inverse, min(surplus, inverse.frac_bits))
    made = product.multiply(scale, inverse, whole=True)
    if made.frac_bits > bits:
        return truncation.truncate(made, made.frac_bits - bits)
    return linear.at_bits(made, bits)


def _nearer(old: SharedArray, new: SharedArray, weight: float) -> SharedArray:
    """Return old + weight (new - old), with the places and the bound of `old`: 1 round."""
    rest = new - old
    room = min(16, _ROOM - rest.bound.bit_length())
    step = combine([(rest, Fraction.nearest(weight, 30, room))], old.frac_bits)
    return (old + step).with_integer_bound(old.bound)


def frozen(layers: Sequence[Layer], *, made: bool = True) -> Sequence[Layer]:
    """Return layers with a Scale in place of each batch normalisation, by its running statistics.

    With ``made=False`` the Scales stand for those to come, and have no numbers of theirs.
    """
    found = []
    for layer in layers:
        if isinstance(layer, BatchNorm):
            if not made:
                layer = Scale(layer.scale, layer.shift)
            elif isinstance(layer.mean, SharedArray):
                layer = Scale(*layer.shared_affine())
            else:
                layer = Scale(*(part.astype(layer.scale.dtype) for part in layer.affine()))
        found.append(layer)
    return rewired(layers, found)


def resumed(fresh: Sequence[Layer], given: Sequence[Layer]) -> Sequence[Layer] | None:
    """Return the layers of a network with the parameters of a model, None if those are of another one.

    If the model's batch normalisation has been folded in, it stays so, and its statistics do not change.
    Dropout is the network's.
    """
    if names(fresh) == names(given):
        made = []
        for layer, other in zip(fresh, given, strict=True):
            layer = layer.with_parameters(_cast(layer.parameters, other.parameters))
            if isinstance(layer, BatchNorm):
                assert isinstance(other, BatchNorm)
                layer.mean, layer.variance = other.mean, other.variance
            made.append(layer)
        return rewired(fresh, made)
    given = folded(given)
    for unfolded in (frozen(fresh, made=False), fresh):
        wanted = folded(unfolded)
        if names(wanted) == names(given):
            made = [
                layer.with_parameters(_cast(layer.parameters, other.parameters))
                for layer, other in zip(wanted, given, strict=True)
            ]
            return _with_dropout(unfolded, made)
    return None


def _cast(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    """Return copies of parameters in the types of others; shared ones as they are."""
    return [
        b if isinstance(b, SharedArray) else np.array(b, a.dtype)
        for a, b in zip(old, new, strict=True)
    ]


def _with_dropout(layers: Sequence[Layer], given: Sequence[Layer]) -> Sequence[Layer]:
    """Return `given`, which stand for ``folded(layers)``, with the dropout of `layers` between them."""
    _, places = _fold(layers)
    nodes: list[tuple[Layer, tuple[int, ...]]] = []
    at, used = {0: 0}, set()
    for number, (layer, taken) in enumerate(zip(layers, inputs_of(layers), strict=True), start=1):
        place = places[number]
        if not isinstance(layer, Dropout) and place in used:
            at[number] = at[taken[0]]  # folded into a layer before
            continue
        if not isinstance(layer, Dropout):
            used.add(place)
            layer = given[place - 1]
        nodes.append((layer, tuple(at[k] for k in taken)))
        at[number] = len(nodes)
    return _wired(layers, nodes)


def folded(layers: Sequence[Layer]) -> Sequence[Layer]:
    """Return the layers that a model is shared with: no dropout, batch normalisation folded in.

    Batch normalisation goes into the Convolution or Dense before it, if nothing else takes that
    layer's output, and is a Scale elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import Dense
    >>> from nn.layers.normalisation import BatchNorm, folded
    >>> norm = BatchNorm(np.array([2.0]), np.ones(1), epsilon=1e-12)
    >>> (layer,) = folded([Dense(np.ones((2, 1)), np.zeros(1)), norm])
    >>> layer(np.array([[1.0, 2.0]])).round(6).tolist()
    [[7.0]]
    """
    if not any(isinstance(layer, (BatchNorm, Dropout)) for layer in layers):
        return layers
    return _wired(layers, _fold(layers)[0])


def _wired(
    layers: Sequence[Layer], nodes: Sequence[tuple[Layer, tuple[int, ...]]]
) -> Sequence[Layer]:
    """Return nodes as a graph if `layers` are one, else as a list."""
    if isinstance(layers, Graph):
        return Graph(nodes, layers.n_features)
    return [layer for layer, _ in nodes]


def _fold(
    layers: Sequence[Layer],
) -> tuple[list[tuple[Layer, tuple[int, ...]]], dict[int, int]]:
    """Return the nodes that remain, and the number among them of what stands for each value."""
    wiring = inputs_of(layers)
    uses = Counter(k for taken in wiring for k in taken)
    nodes: list[tuple[Layer, tuple[int, ...]]] = []
    # Of each value its number among the nodes that are kept, and how often it is used.
    places, users = {0: 0}, {0: uses[0]}
    for number, (layer, taken) in enumerate(zip(layers, wiring, strict=True), start=1):
        given = tuple(places[k] for k in taken)
        last = nodes[given[0] - 1][0] if given[0] else None
        if isinstance(layer, Dropout):
            places[number] = given[0]
            users[given[0]] += uses[number] - 1
            continue
        if isinstance(layer, BatchNorm):
            factor, summand = layer.affine()
            if isinstance(last, (Convolution, Dense)) and users[given[0]] == 1:
                weights, bias = (np.asarray(p) for p in last.parameters)
                kind = weights.dtype
                made = last.with_parameters(
                    [(weights * factor).astype(kind), (bias * factor + summand).astype(kind)]
                )
                nodes[given[0] - 1] = made, nodes[given[0] - 1][1]
                places[number] = given[0]
                users[given[0]] = uses[number]
                continue
            kind = layer.scale.dtype
            layer = Scale(factor.astype(kind), summand.astype(kind))
        nodes.append((layer, given))
        places[number] = len(nodes)
        users[len(nodes)] = uses[number]
    return nodes, places
