"""Normalisation of each row on its own: by layers, groups of channels, root mean squares, neighbours.

On shares by :mod:`mpc.protocols.root_mean_square`, and neighbours by :mod:`mpc.protocols.inverse_power`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from mpc import SharedArray
from mpc.protocols import linear
from mpc.protocols.inverse_power import inverse_power
from mpc.protocols.root_mean_square import kept_bits, over_root_mean_square, scaled, square
from nn.core.checks import integer, interval, real
from nn.layers.layer import Layer, Shape, register
from ring.errors import ArgumentError, ShapeError

__all__ = ["GroupNorm", "LayerNorm", "LocalResponseNorm", "RMSNorm"]


def _in_format(x: SharedArray) -> SharedArray:
    """Return x with the format's fractional bits."""
    return linear.at_bits(x.truncate(), x.session.format.frac_bits)


def _standardised(x: SharedArray, epsilon: float, *, centre: bool) -> SharedArray:
    """Return rows (rows, count) divided by the root of their variance, or of their mean square."""
    x = _in_format(x)
    if centre:
        x = x - x.mean(axis=1).reshape(len(x), 1).truncate()
    return over_root_mean_square(x, epsilon)


class _Affine(Layer):
    """Base class of layers that standardise, and then scale and shift each channel."""

    # Whether the mean is subtracted.
    centres = True
    trains_on_shares = False
    sums_squares = True

    def __init__(self, scale: Any, shift: Any, epsilon: float) -> None:
        super().__init__()
        if shift is not None and tuple(scale.shape) != tuple(shift.shape):
            raise ShapeError(
                f"scale and shift must have one shape, got {scale.shape} and {shift.shape}"
            )
        self.scale, self.shift = scale, shift
        self.epsilon = real("epsilon", epsilon, above=0, below=math.inf)

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        named = cls._named(options)
        return cls(next(parameters), next(parameters), **named)

    @property
    def parameters(self) -> list[Any]:
        """The scale, and the shift if there is one."""
        return [self.scale] if self.shift is None else [self.scale, self.shift]

    @parameters.setter
    def parameters(self, values: Sequence[Any]) -> None:
        shapes = [tuple(value.shape) for value in values]
        if shapes != [tuple(p.shape) for p in self.parameters]:
            raise ShapeError(f"{self!r} needs parameters of {self.scale.shape}, got {shapes}")
        self.scale, *rest = values
        self.shift = rest[0] if rest else None

    def fresh(self, random: np.random.Generator, dtype: DTypeLike = np.float64) -> Self:
        shape = tuple(self.scale.shape)
        values = [np.ones(shape, dtype), np.zeros(shape, dtype)]
        return self.with_parameters(values[: len(self.parameters)])

    def _groups(self, x: Any) -> tuple[Any, Any]:
        """Return the parts that are standardised, (parts, count), and a function that undoes it."""
        raise NotImplementedError

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        parts, back = self._groups(x)
        if isinstance(x, SharedArray):
            normal = back(_standardised(parts, self.epsilon, centre=self.centres))
        else:
            normal = back(self._plain(parts)[0])
        scaled = normal * self.scale
        return scaled if self.shift is None else scaled + self.shift

    def _plain(self, parts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return plain parts standardised, and the factors by which they were multiplied."""
        if self.centres:
            parts = parts - parts.mean(axis=1, keepdims=True)
        square = np.mean(parts * parts, axis=1, keepdims=True)
        inverse = 1 / np.sqrt(square + np.asarray(self.epsilon, parts.dtype))
        return parts * inverse, inverse

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            raise ArgumentError(f"{self!r} is trained in the clear only, got a SharedArray")
        self.output_shape(tuple(x.shape)[1:])
        parts, back = self._groups(x)
        normal, inverse = self._plain(parts)
        self._memory = back(normal), normal, inverse
        scaled = self._memory[0] * self.scale
        return scaled if self.shift is None else scaled + self.shift

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        rows, normal, inverse = self._remembered()
        axes = tuple(range(gradient.ndim - self.scale.ndim))
        self.gradients = [(gradient * rows).sum(axis=axes), gradient.sum(axis=axes)]
        self.gradients = self.gradients[: len(self.parameters)]
        if not input_gradient:
            return None
        at_normal, back = self._groups(gradient * self.scale)
        along = normal * (at_normal * normal).mean(axis=1, keepdims=True)
        if self.centres:
            along = along + at_normal.mean(axis=1, keepdims=True)
        return back((at_normal - along) * inverse)

    def _count(self, shape: Shape) -> int:
        """Return how many elements are standardised together."""
        raise NotImplementedError

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, _ = interval(low, high)
        shape = self.output_shape(lows.shape if lows.ndim else tuple(self.scale.shape))
        # No element is more than this many times the root of the mean square. Of the variance it is
        # sqrt(count - 1), but a mean is rounded on shares, so rows of a few units are not quite centred.
        reach = math.sqrt(self._count(shape))
        scale = np.abs(np.asarray(self.scale, np.float64)) * reach
        shift = 0.0 if self.shift is None else np.asarray(self.shift, np.float64)
        return np.broadcast_to(shift - scale, shape), np.broadcast_to(shift + scale, shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        groups = math.prod(input_shape) // self._count(tuple(input_shape))
        # Squares, products and openings; and 60 comparison bits, as numbers, for each group.
        return (parties + 1) * (24 * math.prod(input_shape) + 200 * groups)


@register
class LayerNorm(_Affine):
    """Layer normalisation (Ba, Kiros, Hinton 2016): over the last axes of each row.

    Parameters
    ----------
    scale, shift : array of the shape of the normalised axes
        ``scale * (x - mean) / sqrt(variance + epsilon) + shift``.
    epsilon : float, default=1e-5
        Added to the variance. Above 0.

    Raises
    ------
    ShapeError
        If the shapes differ.
    ArgumentError, DtypeError
        If `epsilon` is not above 0.

    Notes
    -----
    On shares 22 to 32 rounds. Its error is about 2^-18 of a value, and the fixed-point rounding of inputs:
    rows that vary by a few units of the format only are normalised with as few digits.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import LayerNorm
    >>> LayerNorm(np.ones(2), np.zeros(2))(np.array([[1.0, 3.0]])).round(3)
    array([[-1.,  1.]])
    """

    options = ("epsilon",)

    def __init__(self, scale: Any, shift: Any, epsilon: float = 1e-5) -> None:
        super().__init__(scale, shift, epsilon)

    def __repr__(self) -> str:
        return f"LayerNorm({', '.join(map(str, self.scale.shape))})"

    def output_shape(self, input_shape: Shape) -> Shape:
        shape, own = tuple(input_shape), tuple(self.scale.shape)
        if not own or shape[-len(own) :] != own:
            raise ShapeError(f"{self!r} takes rows whose last axes are {own}, got shape {shape}")
        return shape

    def _count(self, shape: Shape) -> int:
        return math.prod(self.scale.shape)

    def _groups(self, x: Any) -> tuple[Any, Any]:
        shape = tuple(x.shape)
        return x.reshape((-1, self._count(shape))), lambda parts: parts.reshape(shape)


@register
class RMSNorm(LayerNorm):
    """Root mean square normalisation (Zhang, Sennrich 2019): no mean, no shift.

    Parameters
    ----------
    scale : array of the shape of the normalised axes
        ``scale * x / sqrt(mean square + epsilon)``.
    epsilon : float, default=1e-5
        Added to the mean square. Above 0.

    Raises
    ------
    ArgumentError, DtypeError
        If `epsilon` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import RMSNorm
    >>> RMSNorm(np.ones(2))(np.array([[1.0, 7.0]])).round(3)
    array([[0.2, 1.4]])
    """

    centres = False

    def __init__(self, scale: Any, epsilon: float = 1e-5) -> None:
        _Affine.__init__(self, scale, None, epsilon)

    def __repr__(self) -> str:
        return f"RMSNorm({', '.join(map(str, self.scale.shape))})"

    @classmethod
    def rebuilt(cls, options: Sequence[Any], parameters: Iterator[Any]) -> Self:
        return cls(next(parameters), **cls._named(options))


@register
class GroupNorm(_Affine):
    """Group normalisation (Wu, He 2018): over all places and a group of channels, the last axis.

    As many groups as channels make an instance normalisation.

    Parameters
    ----------
    scale, shift : array of shape (channels,)
    groups : int, default=1
        Groups of neighbouring channels.
    epsilon : float, default=1e-5
        Added to the variance. Above 0.

    Raises
    ------
    ShapeError
        If `scale` and `shift` are no vectors of one length.
    ArgumentError, DtypeError
        If `groups` does not divide the channels, or `epsilon` is not above 0.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import GroupNorm
    >>> layer = GroupNorm(np.ones(2), np.zeros(2), groups=2)
    >>> layer(np.array([[[1.0, 10.0], [3.0, 30.0]]])).round(3)[0]
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    options = ("groups", "epsilon")

    def __init__(self, scale: Any, shift: Any, groups: int = 1, epsilon: float = 1e-5) -> None:
        if len(scale.shape) != 1:
            raise ShapeError(f"scale and shift must be vectors, got shape {tuple(scale.shape)}")
        super().__init__(scale, shift, epsilon)
        self.groups = integer("groups", groups, 1)
        if scale.shape[0] % self.groups:
            raise ArgumentError(
                f"groups must divide the {scale.shape[0]} channels, got {self.groups}"
            )

    def __repr__(self) -> str:
        return f"GroupNorm({self.scale.shape[0]}, groups={self.groups})"

    def output_shape(self, input_shape: Shape) -> Shape:
        shape = tuple(input_shape)
        if len(shape) < 2 or shape[-1] != self.scale.shape[0]:
            raise ShapeError(
                f"{self!r} takes images or signals of {self.scale.shape[0]} channels, got shape {shape}"
            )
        return shape

    def _count(self, shape: Shape) -> int:
        return math.prod(shape) // self.groups

    def _groups(self, x: Any) -> tuple[Any, Any]:
        rows, channels = x.shape[0], x.shape[-1]
        count = math.prod(x.shape[1:-1])
        split = (rows, count, self.groups, channels // self.groups)
        shape = tuple(x.shape)
        parts = x.reshape(split).transpose((0, 2, 1, 3))
        moved = tuple(parts.shape)

        def back(parts: Any) -> Any:
            return parts.reshape(moved).transpose((0, 2, 1, 3)).reshape(shape)

        return parts.reshape((rows * self.groups, -1)), back


@register
class LocalResponseNorm(Layer):
    """Local response normalisation (Krizhevsky, Sutskever, Hinton 2012) over neighbouring channels.

    ``x / (bias + alpha / size * sum of squares)^beta``, the sum over `size` channels around each.

    Parameters
    ----------
    size : int
    alpha : float, default=1e-4
        Above 0.
    beta : float, default=0.75
        Above 0 and at most 1.
    bias : float, default=1
        Above 0.

    Raises
    ------
    ArgumentError, DtypeError
        If an argument breaks its rule.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.layers import LocalResponseNorm
    >>> layer = LocalResponseNorm(1, alpha=1.0, beta=0.5, bias=1.0)
    >>> layer(np.array([[0.75]])).round(3)
    array([[0.6]])
    """

    options = ("size", "alpha", "beta", "bias")
    trains_on_shares = False
    sums_squares = True

    def __init__(
        self, size: int, alpha: float = 1e-4, beta: float = 0.75, bias: float = 1.0
    ) -> None:
        super().__init__()
        self.size = integer("size", size, 1)
        self.alpha = real("alpha", alpha, above=0, below=math.inf)
        self.beta = real("beta", beta, above=0, below=math.nextafter(1.0, 2.0))
        self.bias = real("bias", bias, above=0, below=math.inf)

    def __repr__(self) -> str:
        return f"LocalResponseNorm({self.size}, {self.alpha:g}, {self.beta:g}, {self.bias:g})"

    def _band(self, channels: int) -> NDArray[np.int64]:
        """Return ones where a channel is among those around another."""
        before = (self.size - 1) // 2
        apart = np.arange(channels)[:, None] - np.arange(channels)
        return ((apart >= -before) & (apart <= self.size - 1 - before)).astype(np.int64)

    def __call__(self, x: Any) -> Any:
        self.output_shape(tuple(x.shape)[1:])
        band = self._band(x.shape[-1])
        if not isinstance(x, SharedArray):
            return x / self._base(x, band.astype(x.dtype)) ** self.beta
        x = _in_format(x)
        scale = Fraction(self.alpha) / self.size
        added = Fraction(self.bias) / scale
        squares = square(x, kept_bits(x, min(self.size, x.shape[-1]), added))
        least = max(1, round(added * (1 << squares.frac_bits)))
        total = linear.add_integer(squares @ band, least)
        inverse = inverse_power(total, Fraction(self.beta), scale, least)
        reach = x.bound / 2.0**x.frac_bits * self.bias**-self.beta
        return scaled(x, inverse, reach)

    def _base(self, x: Any, band: Any) -> Any:
        return self.bias + self.alpha / self.size * ((x * x) @ band)

    def forward(self, x: Any) -> Any:
        if isinstance(x, SharedArray):
            raise ArgumentError(f"{self!r} is trained in the clear only, got a SharedArray")
        self._memory = x
        return self(x)

    def backward(self, gradient: Any, *, input_gradient: bool = True) -> Any:
        x = self._remembered()
        if not input_gradient:
            return None
        band = self._band(x.shape[-1]).astype(x.dtype)
        base = self._base(x, band)
        inner = gradient * x * base ** (-self.beta - 1)
        factor = 2 * self.alpha * self.beta / self.size
        return gradient * base**-self.beta - factor * x * (inner @ band.T)

    def bounds(self, low: ArrayLike, high: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
        lows, highs = interval(low, high)
        most = self.bias**-self.beta
        return np.minimum(lows, 0) * most, np.maximum(highs, 0) * most

    def output_shape(self, input_shape: Shape) -> Shape:
        if not len(input_shape):
            raise ShapeError(f"{self!r} takes rows with an axis of channels, got shape ()")
        return tuple(input_shape)

    def shared_words(self, input_shape: Shape, parties: int) -> int:
        return 200 * (parties + 1) * math.prod(input_shape)
