"""The public range of a model's inputs, and the scale in which features are shared.

Features may differ by many orders of magnitude, but a fixed-point format has one unit for all. Where a
model has a range for each feature, the owner of the data shares ``(x - middle) / 2^power``, which lies
in [-1, 1], in place of x; the owner of the model folds the inverse into the first layer's weights.
`middle` and `power` follow from the range, which is public.

Rows to predict may lie outside a range that was taken from data. Such a model is shared for a range
that is wider by a power of two, as large as the format has room for and at most :data:`MOST_ROOM`.

Decision trees compare features with thresholds, for which every bit counts. If trees take the features,
these are shared 2^FINE_BITS times as large: in the default format with a unit of 2^-28 of half the
range, as fine as float32 at the range's ends. Other layers then take them through Narrow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mpc import SharedArray
from mpc.core.errors import DtypeError
from mpc.protocols import linear
from nn.core.checks import interval
from nn.layers import Dense, Layer, Narrow, Trees
from nn.layers.graph import inputs_of, rewired
from ring.errors import ArgumentError, DataError, RangeError, ShapeError

__all__ = [
    "FINE_BITS",
    "MOST_ROOM",
    "InputScale",
    "ScaledRows",
    "check_inside",
    "input_range",
    "public_range",
    "typical_range",
]

Floats = NDArray[np.float64]
# By how much a range that was taken from data is widened at most, as a factor on its width.
MOST_ROOM = 64
# By how many bits features are finer if trees take them, and by how much their range is widened then.
FINE_BITS, _FINE_ROOM = 12, 4
# More than any exponent of a double.
_LARGEST_POWER = 1100
Range = tuple[Floats, Floats]


def public_range(X: NDArray[Any]) -> Range:
    """Return a range for each feature that contains `X` and, since it is public, says little of it.

    The ends are rounded outward, to multiples of a power of two that is about half the feature's
    width. A feature of one value v gets the range [v - r, v + r], r the larger of |v| and 1.

    Parameters
    ----------
    X : array of shape (rows, features)
        Finite, with at least one row.

    Returns
    -------
    (float64 array of shape (features,), float64 array of shape (features,))
        Low and high ends.

    Examples
    --------
    >>> import numpy as np
    >>> from nn.fixed_point.inputs import public_range
    >>> low, high = public_range(np.array([[3.0, 0.0, 1907.0], [700.0, 0.0, 2021.0]]))
    >>> low.tolist(), high.tolist()
    ([0.0, -1.0, 1856.0], [1024.0, 1.0, 2048.0])
    """
    low, high = X.min(axis=0).astype(np.float64), X.max(axis=0).astype(np.float64)
    room = np.where(low == high, np.maximum(np.abs(low), 1.0), 0.0)
    low, high = low - room, high + room
    fraction, exponent = np.frexp(high - low)
    grid = np.ldexp(1.0, exponent - np.where(fraction > 0.5, 1, 2))
    return np.floor(low / grid) * grid, np.ceil(high / grid) * grid


def typical_range(X: NDArray[Any], layers: Sequence[Layer]) -> Range:
    """Return a range for each feature that contains `X`; for images one for each channel.

    What a pixel has shown says little of what it will show, and nothing that the channel's other pixels do
    not.

    Parameters
    ----------
    X : array of shape (rows, features)
        Finite, with at least one row.
    layers : sequence of Layer
        The rows are images if the first layer that computes takes (height, width, channels).

    Returns
    -------
    (float64 array of shape (features,), float64 array of shape (features,))

    Examples
    --------
    >>> import numpy as np
    >>> from nn.fixed_point.inputs import typical_range
    >>> from nn.layers import MaxPool, Reshape
    >>> X = np.array([[0.0, 8.0, 0.5, 3.0]])
    >>> [ends.tolist() for ends in typical_range(X, [Reshape(2, 1, 2), MaxPool((2, 1))])]
    [[0.0, 0.0, 0.0, 0.0], [0.5, 8.0, 0.5, 8.0]]
    """
    places = np.arange(X.shape[1])[None]
    for k, (layer, taken) in enumerate(zip(layers, inputs_of(layers), strict=True)):
        if not layer.only_moves or taken != (k,):
            break
        places = layer(places)
    if places.ndim != 4 or X.shape[1] != places.size:
        return public_range(X)
    channels = places.reshape(-1, places.shape[3])
    ends = public_range(X[:, channels].reshape(-1, places.shape[3]))
    spread = [np.empty(X.shape[1]) for _ in ends]
    for whole, one in zip(spread, ends, strict=True):
        whole[channels] = one
    return spread[0], spread[1]


def input_range(low: ArrayLike, high: ArrayLike, features: int) -> Range:
    """Return the ends of a range after checking them: float64, both of shape () or (features,)."""
    lows, highs = interval(low, high)
    for name, ends in (("low", lows), ("high", highs)):
        if ends.ndim and ends.shape != (features,):
            raise ShapeError(
                f"{name} must be a number or have one entry for each of {features} features, "
                f"got shape {ends.shape}"
            )
        if not np.isfinite(ends).all():
            raise RangeError(f"{name} must be finite, got {ends[~np.isfinite(ends)][0]}")
    if lows.ndim or highs.ndim:
        lows, highs = (np.broadcast_to(ends, (features,)).copy() for ends in (lows, highs))
    return lows, highs


def check_inside(X: NDArray[Any], low: Floats, high: Floats) -> None:
    """Raise RangeError unless all values of `X` lie in [low, high].

    The message has a value: call it in the process of the rows' owner.
    """
    # Of many rows the least and the largest: nothing as large as X is written. A NaN is both.
    least, largest = (X, X) if len(X) < 8 else (X.min(axis=0), X.max(axis=0))
    if not ((least >= low) & (largest <= high)).all():
        inside = (X >= low) & (X <= high)
        row, column = (int(i) for i in np.argwhere(~inside)[0])
        ends = [float(np.broadcast_to(e, X.shape[1:])[column]) for e in (low, high)]
        raise RangeError(
            f"X must lie in [{ends[0]:g}, {ends[1]:g}], the range this model was shared for"
            f"{' in this feature' if low.ndim else ''}, got {X[row, column]} at index "
            f"{(row, column)}; share the model with wider low and high for such rows"
        )


@dataclass(frozen=True, eq=False)
class InputScale:
    """The scale of inputs: ``(x - middle) / 2^power`` for every feature, a value in [-1, 1].

    Attributes
    ----------
    middle : float64 array of shape (features,)
    power : int array of shape (features,)
    """

    middle: Floats
    power: NDArray[Any]

    @classmethod
    def of(cls, low: Floats, high: Floats, layers: Sequence[Layer]) -> InputScale | None:
        """Return the scale of a range; None for a scalar range, or if no first layer can undo it."""
        if not low.ndim or not cls.fits(layers):
            return None
        middle = low + (high - low) / 2
        fraction, exponent = np.frexp(np.maximum(high - middle, middle - low))
        power = exponent - (fraction == 0.5)
        return cls(middle, np.where(fraction == 0, 0, power) - cls.fine_bits(layers))

    @classmethod
    def checked(cls, middle: Any, power: Any, low: Floats) -> InputScale:
        """Return a scale that was read from a file or a message.

        Parameters
        ----------
        middle, power
            Claimed to be float64 and int64 arrays of shape (features,).
        low : float64 array
            The low end of the range.

        Raises
        ------
        DataError
            If `middle` or `power` is no such array, or its shape is not that of `low`.
        """
        if (
            not low.ndim
            or np.shape(middle) != low.shape
            or np.shape(power) != low.shape
            or middle.dtype != np.float64
            or power.dtype != np.int64
            or not np.isfinite(middle).all()
            or not (np.abs(power) <= _LARGEST_POWER).all()
        ):
            raise DataError(
                "the scale of the inputs must have one middle and one power for each feature"
            )
        return cls(middle, power)

    @staticmethod
    def fits(layers: Sequence[Layer]) -> bool:
        """Return whether the layers that take the input can undo a scale.

        One Dense layer can; so can trees, and Dense layers that take the input through Narrow.
        """
        takers = _takers(layers, 0)
        dense = [k for k in takers if isinstance(layers[k], Dense)]
        narrow = [k for k in takers if type(layers[k]) is Narrow]
        trees = [k for k in takers if isinstance(layers[k], Trees)]
        if dense:
            return len(takers) == 1
        inner = [layers[j] for k in narrow for j in _takers(layers, k + 1)]
        known = len(trees) + len(narrow) == len(takers)
        return known and all(isinstance(layer, Dense) for layer in inner)

    @staticmethod
    def fine_bits(layers: Sequence[Layer]) -> int:
        """Return by how many bits features are finer than in [-1, 1]."""
        return 0 if any(isinstance(layers[k], Dense) for k in _takers(layers, 0)) else FINE_BITS

    @classmethod
    def most_room(cls, layers: Sequence[Layer], room: int) -> int:
        """Return by how much a range may be widened, `room` or less."""
        return min(room, _FINE_ROOM) if cls.fine_bits(layers) else room

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, InputScale)
            and np.array_equal(self.middle, other.middle)
            and np.array_equal(self.power, other.power)
        )

    __hash__ = None  # type: ignore[assignment]

    def of_columns(self, columns: Any) -> InputScale:
        """Return the scale of some of the features, given by an index."""
        return InputScale(self.middle[columns], self.power[columns])

    def apply(self, X: ArrayLike) -> Floats:
        """Return rows of shape (rows, features) in this scale, in float64."""
        scaled: Floats = np.ldexp(np.asarray(X, dtype=np.float64) - self.middle, -self.power)
        return scaled

    def undo(self, scaled: Floats) -> Floats:
        """Return the rows whose `apply` is `scaled`, up to rounding."""
        return np.ldexp(scaled, self.power) + self.middle

    def fold(self, layers: Sequence[Layer], room: float = 1) -> Sequence[Layer]:
        """Return layers whose outputs for scaled rows are those of `layers` for unscaled rows.

        The rows lie in a range that was widened `room` times.
        """
        folded = list(layers)
        reach = room * 2.0 ** self.fine_bits(layers)
        for k in _takers(layers, 0):
            layer = layers[k]
            if isinstance(layer, Trees):
                folded[k] = layer.rescaled(self.middle, self.power, reach)
            elif isinstance(layer, Narrow):
                folded[k] = Narrow(FINE_BITS)
                for j in _takers(layers, k + 1):
                    folded[j] = self._fold_dense(layers[j], FINE_BITS)
            else:
                folded[k] = self._fold_dense(layer, 0)
        return rewired(layers, folded)

    def _fold_dense(self, layer: Layer, fine: int) -> Dense:
        assert isinstance(layer, Dense)
        weights = np.asarray(layer.weights, dtype=np.float64)
        bias = np.asarray(layer.bias, dtype=np.float64) + self.middle @ weights
        return Dense(np.ldexp(weights, (self.power + fine)[:, None]), bias)

    def unfold(self, layers: Sequence[Layer]) -> Sequence[Layer]:
        """Undo :meth:`fold`."""
        unfolded = list(layers)
        for k in _takers(layers, 0):
            layer = layers[k]
            if isinstance(layer, Trees):
                unfolded[k] = layer.unscaled(self.middle, self.power)
            elif isinstance(layer, Narrow):
                unfolded[k] = Narrow()
                for j in _takers(layers, k + 1):
                    unfolded[j] = self._unfold_dense(layers[j], FINE_BITS)
            else:
                unfolded[k] = self._unfold_dense(layer, 0)
        return rewired(layers, unfolded)

    def _unfold_dense(self, layer: Layer, fine: int) -> Layer:
        assert isinstance(layer, Dense)
        unscaled = np.ldexp(layer.weights, -(self.power + fine)[:, None])
        return layer.with_parameters([unscaled, layer.bias - self.middle @ unscaled])


def _takers(layers: Sequence[Layer], value: int) -> list[int]:
    """Return the indices of the layers that take a value."""
    return [k for k, taken in enumerate(inputs_of(layers)) if value in taken]


class ScaledRows:
    """Shared rows in the scale of one model's inputs, made by ``share_rows``.

    Indexing selects rows; ``np.concatenate`` joins the rows of several owners.

    Attributes
    ----------
    scaled : SharedArray of shape (rows, features)
        The rows in that scale, in [-1, 1].
    inputs : InputScale
        The scale, which is public.
    """

    __slots__ = ("inputs", "scaled")

    def __init__(self, scaled: SharedArray, inputs: InputScale) -> None:
        self.scaled, self.inputs = scaled, inputs

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, features)."""
        return self.scaled.shape

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"ScaledRows(shape={self.shape})"

    def __getitem__(self, rows: Any) -> ScaledRows:
        taken = self.scaled[rows]
        if isinstance(rows, tuple) or taken.ndim != 2:
            raise DtypeError(f"only whole rows of ScaledRows can be taken, got index {rows!r}")
        return ScaledRows(taken, self.inputs)

    def __array__(self, *args: object, **kwargs: object) -> Any:
        return self.scaled.__array__(*args, **kwargs)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any
    ) -> ScaledRows:
        """Join rows by ``np.concatenate``; other functions have no meaning in another scale."""
        if function is not np.concatenate:
            raise DtypeError(
                f"np.{function.__name__} is not defined on ScaledRows, which are in the scale of"
                " one model; np.concatenate joins them"
            )
        return _joined(*args, **kwargs)

    def __array_ufunc__(self, ufunc: np.ufunc, *args: object, **kwargs: object) -> Any:
        raise DtypeError(
            f"np.{ufunc.__name__} is not defined on ScaledRows, which are in the scale of one model;"
            " compute on the values before share_rows"
        )


def _joined(parts: Sequence[Any], axis: int = 0) -> ScaledRows:
    if axis not in (0, -2):
        raise ShapeError(f"ScaledRows are joined as rows, along axis 0, got axis {axis!r}")
    for part in parts:
        if not isinstance(part, ScaledRows):
            raise DtypeError(
                f"ScaledRows can be joined with ScaledRows alone, got {type(part).__name__}: share"
                " all rows by the model's share_rows"
            )
        if part.inputs != parts[0].inputs:
            raise ArgumentError("all rows must be shared by share_rows of the same model")
    return ScaledRows(linear.concatenate([part.scaled for part in parts]), parts[0].inputs)
